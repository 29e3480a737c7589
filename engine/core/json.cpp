#include "core/json.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

std::string place(const std::string& where, std::string_view text, std::size_t at) {
  at = std::min(at, text.size());
  const std::string_view before = text.substr(0, at);
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const std::size_t start = before.rfind('\n');
  const std::size_t column = start == std::string_view::npos ? at + 1 : at - start;
  return where + ":" + std::to_string(line) + ":" + std::to_string(column);
}

/// Arrays and objects nested deeper than any file of ours would overflow the stack of whoever walks them.
void check_depth(std::string_view text, const std::string& where, int max_depth) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c == '\\') ++at;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth)
        throw DataError(place(where, text, at),
                        "nested deeper than " + std::to_string(max_depth) + " levels");
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
}

/// nlohmann's text without its own "[json.exception...] parse error at line 1, column 2:" front.
std::string reason(const std::string& text) {
  const std::size_t start = text.find(": ");
  return start == std::string::npos ? text : text.substr(start + 2);
}

const Json& member(const Json& object, std::string_view key, const std::string& where) {
  if (!object.is_object())
    throw DataError(where, "expected an object, found " + std::string(object.type_name()));
  const auto found = object.find(std::string(key));
  if (found == object.end()) throw DataError(where, "'" + std::string(key) + "' is missing");
  return *found;
}

[[noreturn]] void wrong(std::string_view key, const std::string& where, const char* kind, const Json& value) {
  throw DataError(where, "'" + std::string(key) + "': expected " + kind + ", found " + value.type_name());
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes)
    throw DataError(where, "has " + std::to_string(text.size()) + " bytes, at most " +
                               std::to_string(limits.max_bytes) + " are expected here");
  check_depth(text, where, limits.max_depth);
  try {
    return Json::parse(text.begin(), text.end());
  } catch (const Json::parse_error& error) {
    const std::size_t at = error.byte == 0 ? 0 : error.byte - 1;
    throw DataError(place(where, text, at), "not JSON: " + reason(error.what()));
  } catch (const Json::exception& error) {
    throw DataError(where, "not JSON: " + reason(error.what()));
  }
}

Json read_json(const std::filesystem::path& file, const JsonLimits& limits) {
  return parse_json(read_file(file, limits.max_bytes), file.string(), limits);
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

void write_json(const std::filesystem::path& file, const Json& value, int indent) {
  write_atomic(file, dump_json(value, indent) + "\n");
}

std::string json_text(const Json& object, std::string_view key, const std::string& where) {
  const Json& value = member(object, key, where);
  if (!value.is_string()) wrong(key, where, "a text", value);
  return value.get<std::string>();
}

std::int64_t json_integer(const Json& object, std::string_view key, const std::string& where) {
  const Json& value = member(object, key, where);
  if (!value.is_number_integer()) wrong(key, where, "an integer", value);
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > INT64_MAX)
    wrong(key, where, "a smaller integer", value);
  return value.get<std::int64_t>();
}

double json_number(const Json& object, std::string_view key, const std::string& where) {
  const Json& value = member(object, key, where);
  if (!value.is_number()) wrong(key, where, "a number", value);
  return value.get<double>();
}

const Json& json_array(const Json& object, std::string_view key, const std::string& where) {
  const Json& value = member(object, key, where);
  if (!value.is_array()) wrong(key, where, "an array", value);
  return value;
}

const Json& json_object(const Json& object, std::string_view key, const std::string& where) {
  const Json& value = member(object, key, where);
  if (!value.is_object()) wrong(key, where, "an object", value);
  return value;
}

}  // namespace mcit
