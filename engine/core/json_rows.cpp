#include "core/json_rows.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

/// Why this text is no array of rows, with its place: the slow way, once.
[[noreturn]] void refuse(std::string_view text, const std::string& where) {
  parse_json(text, where);  // names line and column
  throw DataError(where, "expected a JSON array of rows");
}

/// Where the value ends that starts at `at`: behind it, at the "," or "]" of its array. npos when it does
/// not end, or is nested too deeply to be read.
std::size_t end_of_value(std::string_view text, std::size_t at, int max_depth) {
  int depth = 0;
  for (; at < text.size(); ++at) {
    switch (text[at]) {
      case '"':
        for (++at; at < text.size() && text[at] != '"'; ++at)
          if (text[at] == '\\') ++at;
        break;
      case '[':
      case '{':
        if (++depth > max_depth) return std::string_view::npos;
        break;
      case ']':
      case '}':
        if (depth == 0) return at;
        --depth;
        break;
      case ',':
        if (depth == 0) return at;
        break;
      default:
        break;
    }
  }
  return std::string_view::npos;
}

bool is_lines(const std::filesystem::path& file) { return lowered(file.extension().string()) == ".jsonl"; }

/// Calls `line` with number and text of every line that is not blank.
std::int64_t for_each_line(std::string_view text,
                           const std::function<void(std::int64_t, std::string_view)>& line) {
  std::int64_t number = 0, lines = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view one = trimmed(text.substr(at, end - at));
    ++number;
    at = end + 1;
    if (one.empty()) continue;
    ++lines;
    line(number, one);
  }
  return lines;
}

std::string_view without_mark(std::string_view text) {
  constexpr std::string_view kByteOrder = "\xEF\xBB\xBF";
  return text.starts_with(kByteOrder) ? text.substr(kByteOrder.size()) : text;
}

}  // namespace

void split_json_array(std::string_view text, const std::string& where,
                      const std::function<void(std::string_view)>& element) {
  const JsonLimits limits;
  const auto skip_blanks = [&](std::size_t at) {
    while (at < text.size() && is_blank(text[at])) ++at;
    return at;
  };
  std::size_t at = skip_blanks(0);
  if (at == text.size() || text[at] != '[') refuse(text, where);
  at = skip_blanks(at + 1);
  const bool empty = at < text.size() && text[at] == ']';
  while (!empty) {
    const std::size_t end = end_of_value(text, at, limits.max_depth - 1);
    if (end == std::string_view::npos || end == at || text[end] == '}') refuse(text, where);
    element(text.substr(at, end - at));
    at = end;
    if (text[at] == ']') break;
    at = skip_blanks(at + 1);
  }
  if (skip_blanks(at + 1) != text.size()) refuse(text, where);
}

std::int64_t for_each_json_row(const std::filesystem::path& file, const JsonRow& row,
                               const JsonRowFault& fault) {
  const std::string bytes = read_file(file);
  const std::string_view text = without_mark(bytes);
  const std::string where = file.string();
  if (is_lines(file))
    return for_each_line(text, [&](std::int64_t number, std::string_view line) {
      Json parsed;
      try {
        parsed = parse_json(line, "line");
      } catch (const DataError& e) {
        return fault(number, e.what());
      }
      row(number, parsed);
    });
  std::int64_t number = 0;
  split_json_array(text, where, [&](std::string_view element) {
    Json parsed = Json::parse(element.begin(), element.end(), nullptr, false);
    if (parsed.is_discarded()) refuse(text, where);
    row(++number, parsed);
  });
  return number;
}

std::int64_t count_json_rows(const std::filesystem::path& file) {
  const std::string bytes = read_file(file);
  if (is_lines(file)) return for_each_line(bytes, [](std::int64_t, std::string_view) {});
  std::int64_t number = 0;
  split_json_array(without_mark(bytes), file.string(), [&](std::string_view) { ++number; });
  return number;
}

}  // namespace mcit
