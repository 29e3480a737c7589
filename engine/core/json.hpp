#pragma once
/// JSON in and out: bounded when it comes from outside, the same bytes every time when we write it.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace mcit {

/// Keeps the order of keys. Include <nlohmann/json.hpp> where values are touched.
using Json = nlohmann::ordered_json;

struct JsonLimits {
  std::uint64_t max_bytes = std::uint64_t{1} << 30;
  int max_depth = 64;
};

/// @throws DataError "where:line:column: what".
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});
Json read_json(const std::filesystem::path& file, const JsonLimits& limits = {});

/// UTF-8; bytes that are not are written as U+FFFD. Numbers in the shortest form that reads back equal; NaN
/// and infinities as null. @param indent -1 for a single line
std::string dump_json(const Json& value, int indent = -1);
void write_json(const std::filesystem::path& file, const Json& value, int indent = 2);

/// Members of an object, with errors "where: key: expected a text". @throws DataError when absent or of
/// another type.
std::string json_text(const Json& object, std::string_view key, const std::string& where);
std::int64_t json_integer(const Json& object, std::string_view key, const std::string& where);
double json_number(const Json& object, std::string_view key, const std::string& where);
const Json& json_array(const Json& object, std::string_view key, const std::string& where);
const Json& json_object(const Json& object, std::string_view key, const std::string& where);

}  // namespace mcit
