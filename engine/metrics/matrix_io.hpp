#pragma once
/// Accuracy matrices from files: ours, and those of papers and other programs.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.hpp"
#include "metrics/matrix.hpp"

namespace mcit {

/// Bare rows, short ones included: T rows when the base was not measured, T + 1 with it first, fewer for a
/// stream that is still on its way. @param names of the tasks; none: "task 1", …, as many as the longest row
/// has cells
/// @param has_base the first row is the base whatever their number. @throws DataError when they are too many.
AccuracyMatrix matrix_from_rows(const std::vector<std::vector<AccuracyMatrix::Cell>>& rows,
                                std::vector<std::string> names, bool has_base, const std::string& where);

/// Rows of numbers, one line a stage, with comma, semicolon, tab, "|" (Markdown) or spaces between them:
/// - T rows (the base was not measured) or T + 1 rows, the first being the base; or the base is named in a
/// first column
///   ("base", "zero-shot", "0");
/// - rows may be short (a lower triangle), cells empty, "-" or "nan": missing;
/// - a first line of task names and a first column of stage names are optional; "%" signs and lines that
/// start with "#" are ignored. Our matrix.csv is such a file: "stage,<task>,…", then "0:base", "1:<stage>", …
/// @throws DataError "where:line: what".
AccuracyMatrix matrix_from_text(std::string_view text, const std::string& where);

/// result.json; {"tasks": [...], "matrix": [[...]]}; or [[...]] alone. null is a missing cell.
AccuracyMatrix matrix_from_json(const Json& value, const std::string& where);

/// Either form, told apart by content. A folder is read as the run whose result.json it holds.
AccuracyMatrix read_matrix(const std::filesystem::path& file);

/// One score for each of `tasks` tasks: a single row of numbers, or a matrix of a run that trained each task
/// alone.
std::vector<std::optional<double>> read_scores(const std::filesystem::path& file, std::int64_t tasks);

/// matrix.csv: numbers in the shortest form that reads back equal, missing cells empty.
/// @param stages names of the stages after the base; by default the tasks' names
std::string matrix_to_csv(const AccuracyMatrix& matrix, const std::vector<std::string>& stages = {});
/// Rows of numbers and nulls.
Json matrix_to_json(const AccuracyMatrix& matrix);
/// The other way, with what the rows cannot tell. @throws DataError when the shape is not stages + 1 by
/// tasks.
AccuracyMatrix matrix_of_run(const Json& rows, std::vector<std::string> tasks, std::int64_t stages,
                             std::vector<std::int64_t> learned_at, const std::string& where);

}  // namespace mcit
