#include "mcit/params.hpp"

#include "mcit/errors.hpp"

namespace mcit {
namespace {

std::vector<std::string> keys_of(const std::map<std::string, Params::Value>& values) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : values) keys.push_back(key);
  return keys;
}

}  // namespace

Params::Params(std::map<std::string, Value> values, std::string where)
    : values_(std::move(values)), where_(std::move(where)) {}

template <class T>
T Params::get(std::string_view key, T fallback, const char* kind) const {
  const std::string name(key);
  const auto found = values_.find(name);
  T value = std::move(fallback);
  if (found != values_.end()) {
    if (const T* exact = std::get_if<T>(&found->second)) {
      value = *exact;
    } else {
      bool converted = false;
      if constexpr (std::is_same_v<T, double>) {
        if (const auto* whole = std::get_if<std::int64_t>(&found->second)) {
          value = static_cast<double>(*whole);
          converted = true;
        }
      } else if constexpr (std::is_same_v<T, std::vector<double>>) {  // a single value is an array of one
        if (const auto* whole = std::get_if<std::int64_t>(&found->second))
          value = {static_cast<double>(*whole)}, converted = true;
        if (const auto* single = std::get_if<double>(&found->second)) value = {*single}, converted = true;
      } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
        if (const auto* single = std::get_if<std::string>(&found->second))
          value = {*single}, converted = true;
        const auto* empty = std::get_if<std::vector<double>>(&found->second);  // what [] is read as
        if (empty != nullptr && empty->empty()) value.clear(), converted = true;
      }
      if (!converted) throw ConfigError(where_ + "." + name, std::string("expected ") + kind);
    }
  }
  resolved_[name] = value;
  return value;
}

bool Params::flag(std::string_view key, bool fallback) const { return get(key, fallback, "true or false"); }
std::int64_t Params::integer(std::string_view key, std::int64_t fallback) const {
  return get(key, fallback, "an integer");
}
double Params::number(std::string_view key, double fallback) const { return get(key, fallback, "a number"); }
std::string Params::text(std::string_view key, std::string_view fallback) const {
  return get(key, std::string(fallback), "a text");
}
std::vector<double> Params::numbers(std::string_view key, std::vector<double> fallback) const {
  return get(key, std::move(fallback), "an array of numbers");
}
std::vector<std::string> Params::texts(std::string_view key, std::vector<std::string> fallback) const {
  return get(key, std::move(fallback), "an array of texts");
}

std::string Params::choice(std::string_view key, std::string_view fallback,
                           const std::vector<std::string>& allowed) const {
  std::string value = text(key, fallback);
  for (const std::string& candidate : allowed)
    if (candidate == value) return value;
  throw ConfigError(where_ + "." + std::string(key), "unknown value '" + value + "'",
                    suggestion(value, allowed));
}

void Params::finish() const {
  for (const auto& [key, value] : values_)
    if (!resolved_.contains(key))
      throw ConfigError(where_ + "." + key, "unknown key", suggestion(key, keys_of(resolved_)));
}

}  // namespace mcit
