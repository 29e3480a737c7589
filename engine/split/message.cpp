#include "split/message.hpp"

#include <charconv>
#include <cmath>

#include "mcit/errors.hpp"

namespace mcit::split {
namespace {

constexpr const char *kSchema = "mcit.split.1", *kSchemaField = "schema", *kKindField = "kind";

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string out = "[";
  for (const std::int64_t size : shape) out += (out.size() > 1 ? ", " : "") + std::to_string(size);
  return out + "]";
}

template <class T>
T number_of(const Message& message, const std::string& field) {
  const auto found = message.fields.find(field);
  T value{};
  if (found != message.fields.end()) {
    const std::string& text = found->second;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size()) return value;
  }
  throw DataError("message '" + message.kind + "'",
                  "'" + field + "' is " + (found == message.fields.end() ? "missing" : "no number"));
}

}  // namespace

std::string Message::encode() const {
  std::map<std::string, std::string> metadata = fields;
  metadata[kSchemaField] = kSchema;
  metadata[kKindField] = kind;
  return fed::to_blob(arrays, metadata);
}

Message Message::decode(std::string_view bytes, const std::string& who, std::size_t most) {
  if (bytes.size() > most)
    throw DataError(who, "sent a message of " + std::to_string(bytes.size()) + " bytes, at most " +
                             std::to_string(most) + " are read");
  Message out;
  try {
    fed::Blob blob = fed::from_blob(bytes, who);
    out.fields = std::move(blob.metadata);
    out.arrays = std::move(blob.arrays);
  } catch (const std::exception& e) {
    throw DataError(who, "sent what is no message: " + cause_of(e));
  }
  if (out.fields[kSchemaField] != kSchema)
    throw DataError(who, "speaks '" + out.fields[kSchemaField] + "', this program " + kSchema,
                    "server and clients must be of one version");
  out.kind = out.fields[kKindField];
  out.fields.erase(kSchemaField);
  out.fields.erase(kKindField);
  return out;
}

void Message::set(const std::string& field, double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  fields[field] = std::string(text, end);
}

std::int64_t Message::integer(const std::string& field, std::int64_t least) const {
  const auto value = number_of<std::int64_t>(*this, field);
  if (value < least)
    throw DataError("message '" + kind + "'",
                    "'" + field + "' is " + std::to_string(value) + ", below " + std::to_string(least));
  return value;
}

double Message::number(const std::string& field) const { return number_of<double>(*this, field); }

void expect_kind(const Message& message, const std::string& kind, const std::string& who) {
  if (message.kind == kind) return;
  if (message.kind == "error") {
    const auto what = message.fields.find("what");
    throw DataError(
        who, "failed: " + (what == message.fields.end() ? std::string("without a reason") : what->second));
  }
  throw DataError(who, "answered '" + message.kind + "' where '" + kind + "' was due");
}

const fed::Array& expect_array(const Message& message, const std::string& name,
                               const std::vector<std::int64_t>& shape, const std::string& who) {
  const auto found = message.arrays.find(name);
  if (found == message.arrays.end()) throw DataError(who, "sent no '" + name + "'");
  const fed::Array& array = found->second;
  if (array.shape != shape || !fed::is_float(array.dtype))
    throw DataError(who, "sent '" + name + "' as " + shape_text(array.shape) + " " +
                             fed::dtype_text(array.dtype) + ", expected floating-point " + shape_text(shape));
  for (const double value : fed::values_of(array))
    if (!std::isfinite(value)) throw DataError(who, "sent '" + name + "' with a number that is not finite");
  return array;
}

}  // namespace mcit::split
