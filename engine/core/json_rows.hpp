#pragma once
/// Files of rows, one at a time: a JSON array, or JSON Lines. Memory is that of the file's text and one row.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "core/json.hpp"

namespace mcit {

/// @param number 1-based: the element of an array, the line of a .jsonl file
using JsonRow = std::function<void(std::int64_t number, const Json& row)>;
/// A line of a .jsonl file that is not JSON, and why.
using JsonRowFault = std::function<void(std::int64_t number, const std::string& what)>;

/// Calls `row` for every row of `file`: the elements of a JSON array, or, where the name ends in .jsonl, the
/// lines that are not blank. @return how many rows there are, faulty ones included
/// @throws DataError "file:line:column: what" when the file is no JSON array, or nested too deeply.
std::int64_t for_each_json_row(const std::filesystem::path& file, const JsonRow& row,
                               const JsonRowFault& fault);

/// How many rows a file has, without reading what is in them. @throws DataError
std::int64_t count_json_rows(const std::filesystem::path& file);

/// The texts of a JSON array's elements, in order; whether each is JSON is for the caller to see.
/// @throws DataError when the text around them is no array; `where` names the file
void split_json_array(std::string_view text, const std::string& where,
                      const std::function<void(std::string_view)>& element);

}  // namespace mcit
