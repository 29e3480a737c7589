#include "score/json_fields.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

constexpr std::array<std::string_view, 4> kIds{"question_id", "questionId", "id", "image_id"};
constexpr std::array<std::string_view, 3> kTexts{"text", "prediction", "caption"};

template <std::size_t N>
std::size_t place_of(const std::array<std::string_view, N>& keys, std::string_view key) {
  return static_cast<std::size_t>(std::find(keys.begin(), keys.end(), key) - keys.begin());
}

/// Events of the parser; true means go on.
class Listener {
 public:
  explicit Listener(bool id_only) : id_only_(id_only) {}

  bool null() { return take({}); }
  bool boolean(bool) { return take({}); }
  bool number_integer(Json::number_integer_t value) { return take(std::to_string(value)); }
  bool number_unsigned(Json::number_unsigned_t value) { return take(std::to_string(value)); }
  bool number_float(Json::number_float_t, const std::string& text) { return take(text); }
  bool string(std::string& text) { return take(std::move(text)); }
  bool binary(Json::binary_t&) { return true; }
  bool start_object(std::size_t) { return enter(); }
  bool start_array(std::size_t) { return enter(); }
  bool end_object() { return leave(); }
  bool end_array() { return leave(); }
  bool key(std::string& name) {
    if (depth_ != 1) return true;
    id_ = place_of(kIds, name);
    text_ = place_of(kTexts, name);
    object = true;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const Json::exception& e) {
    error = e.what();
    return false;
  }

  Fields fields;
  bool object = false, stopped = false;
  std::string error;

 private:
  bool enter() {
    if (depth_ == 1) id_ = text_ = SIZE_MAX;
    ++depth_;
    return true;
  }
  bool leave() {
    --depth_;
    return true;
  }
  bool take(std::optional<std::string> value) {
    if (depth_ == 0) return true;
    if (depth_ != 1) return true;
    if (value && id_ < best_id_) {
      best_id_ = id_;
      stopped = id_only_ && id_ == 0;
      fields.id = value;
    }
    if (value && text_ < best_text_) {
      best_text_ = text_;
      fields.text = std::move(value);
    }
    return !stopped;
  }

  bool id_only_;
  int depth_ = 0;
  std::size_t id_ = kIds.size(), text_ = kTexts.size();            ///< of the key at hand
  std::size_t best_id_ = kIds.size(), best_text_ = kTexts.size();  ///< found so far
};

Fields listen(std::string_view json, bool id_only) {
  Listener listener(id_only);
  Json::sax_parse(json.begin(), json.end(), &listener);
  if (!listener.error.empty()) {
    const std::size_t start = listener.error.find(": ");
    throw DataError("not JSON", listener.error.substr(start == std::string::npos ? 0 : start + 2));
  }
  if (!listener.object) throw DataError("not JSON", "expected an object with members");
  return std::move(listener.fields);
}

}  // namespace

Fields read_fields(std::string_view json) { return listen(json, false); }

std::optional<std::string> read_id(std::string_view json) { return listen(json, true).id; }

}  // namespace mcit
