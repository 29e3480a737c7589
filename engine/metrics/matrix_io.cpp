#include "metrics/matrix_io.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

using Cell = AccuracyMatrix::Cell;
using Row = std::vector<Cell>;

constexpr std::size_t kMostTasks = 1000;  // a matrix of a million cells
constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;

std::size_t longest_row(const std::vector<Row>& rows) {
  std::size_t longest = 0;
  for (const Row& row : rows) longest = std::max(longest, row.size());
  return longest;
}

std::vector<Row> rows_of_json(const Json& value, const std::string& where) {
  if (!value.is_array() || value.empty()) throw DataError(where, "expected an array of rows");
  std::vector<Row> rows;
  for (const Json& line : value) {
    const std::string place = where + ": row " + std::to_string(rows.size() + 1);
    if (!line.is_array()) throw DataError(place, "expected an array of numbers");
    Row row;
    for (const Json& cell : line) {
      if (cell.is_null())
        row.emplace_back();
      else if (cell.is_number())
        row.emplace_back(cell.get<double>());
      else
        throw DataError(place, "expected a number or null, found " + dump_json(cell));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<std::string> names_of_json(const Json& tasks, const std::string& where) {
  std::vector<std::string> names;
  for (const Json& task : tasks)
    names.push_back(task.is_string() ? task.get<std::string>() : json_text(task, "name", where));
  return names;
}

}  // namespace

AccuracyMatrix matrix_from_rows(const std::vector<Row>& rows, std::vector<std::string> names, bool has_base,
                                const std::string& where) {
  if (names.empty())
    for (std::size_t j = 1; j <= longest_row(rows); ++j) names.push_back("task " + std::to_string(j));
  const std::size_t tasks = names.size();
  if (tasks == 0 || tasks > kMostTasks || longest_row(rows) > tasks)
    throw DataError(where, "rows of " + std::to_string(longest_row(rows)) + " cells for " +
                               std::to_string(tasks) + " tasks");
  has_base = has_base || rows.size() == tasks + 1;
  if (rows.size() > tasks + (has_base ? 1 : 0))
    throw DataError(where, std::to_string(rows.size()) + " rows for " + std::to_string(tasks) + " tasks",
                    "a matrix has one row for each task, and one more when the first is the untrained base");
  AccuracyMatrix matrix(std::move(names));
  std::int64_t stage = has_base ? 0 : 1;
  for (const Row& row : rows) matrix.set_row(stage++, row);
  return matrix;
}

AccuracyMatrix matrix_from_json(const Json& value, const std::string& where) {
  if (value.is_array()) {
    const std::vector<Row> rows = rows_of_json(value, where);
    return matrix_from_rows(rows, {}, false, where);
  }
  const Json& matrix = json_array(value, "matrix", where);
  const std::vector<Row> rows = rows_of_json(matrix, where + ": matrix");
  std::vector<std::string> names;
  if (value.contains("tasks")) names = names_of_json(json_array(value, "tasks", where), where + ": tasks");
  if (names.empty() || !value.contains("stages"))
    return matrix_from_rows(rows, std::move(names), false, where);
  std::vector<std::int64_t> learned(names.size(), 0);
  std::int64_t stage = 0;
  for (const Json& entry : json_array(value, "stages", where)) {
    ++stage;
    for (const Json& task : json_array(entry, "tasks", where + ": stages")) {
      if (!task.is_number_integer() || task.get<std::int64_t>() < 0 ||
          task.get<std::int64_t>() >= static_cast<std::int64_t>(names.size()))
        throw DataError(
            where, "stage " + std::to_string(stage) + " trains " + dump_json(task) + ", which is no task");
      std::int64_t& at = learned[task.get<std::size_t>()];
      if (at == 0) at = stage;
    }
  }
  return matrix_of_run(matrix, std::move(names), stage, std::move(learned), where);
}

AccuracyMatrix matrix_of_run(const Json& value, std::vector<std::string> tasks, std::int64_t stages,
                             std::vector<std::int64_t> learned_at, const std::string& where) {
  const std::vector<Row> rows = rows_of_json(value, where + ": matrix");
  if (rows.size() != static_cast<std::size_t>(stages) + 1)
    throw DataError(
        where, std::to_string(rows.size()) + " rows for " + std::to_string(stages) + " stages and the base");
  for (const Row& row : rows)
    if (row.size() != tasks.size())
      throw DataError(where, "a row of " + std::to_string(row.size()) + " cells for " +
                                 std::to_string(tasks.size()) + " tasks");
  AccuracyMatrix matrix(std::move(tasks), stages, std::move(learned_at));
  for (std::size_t i = 0; i < rows.size(); ++i) matrix.set_row(static_cast<std::int64_t>(i), rows[i]);
  return matrix;
}

AccuracyMatrix read_matrix(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::path file =
      std::filesystem::is_directory(path, ignored) ? path / "result.json" : path;
  const std::string text = read_file(file, kMostBytes);
  const std::string_view body = trimmed(text);
  const std::size_t start = body.find_first_not_of("\n \t\r");
  if (start != std::string_view::npos && (body[start] == '{' || body[start] == '['))
    return matrix_from_json(parse_json(text, file.string(), {kMostBytes}), file.string());
  return matrix_from_text(text, file.string());
}

std::vector<std::optional<double>> read_scores(const std::filesystem::path& file, std::int64_t tasks) {
  const AccuracyMatrix matrix = read_matrix(file);
  if (matrix.tasks() != tasks)
    throw DataError(file.string(), "has scores of " + std::to_string(matrix.tasks()) + " tasks, " +
                                       std::to_string(tasks) + " are needed");
  std::int64_t rows = 0;
  std::int64_t row = 0;
  for (std::int64_t i = 0; i <= matrix.stages(); ++i) {
    bool any = false;
    for (std::int64_t j = 0; j < tasks; ++j) any = any || matrix.at(i, j).has_value();
    if (any) row = i;
    rows += any ? 1 : 0;
  }
  std::vector<std::optional<double>> scores;
  for (std::int64_t j = 0; j < tasks; ++j) {
    const std::int64_t stage = rows == 1 ? row : matrix.learned_at(j);
    scores.push_back(matrix.at(stage, j));
  }
  return scores;
}

Json matrix_to_json(const AccuracyMatrix& matrix) {
  Json rows = Json::array();
  for (std::int64_t i = 0; i <= matrix.stages(); ++i) {
    Json row = Json::array();
    for (std::int64_t j = 0; j < matrix.tasks(); ++j) {
      const Cell cell = matrix.at(i, j);
      row.push_back(cell ? Json(*cell) : Json(nullptr));
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace mcit
