#include "metrics/matrix_io.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

using Cell = AccuracyMatrix::Cell;
using Row = std::vector<Cell>;

constexpr std::size_t kMostTasks = 10000;
constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;

bool is_missing(std::string_view cell) {
  const std::string word = lowered(cell);
  return word.empty() || word == "-" || word == "–" || word == "—" || word == "nan" || word == "na" ||
         word == "n/a" || word == "null";
}

/// A number as papers print it: a per cent sign, bold marks and a typographic minus are taken off.
std::optional<double> number_in(std::string_view cell) {
  std::string text(cell);
  const auto drop = [&text](std::string_view what, std::string_view instead) {
    for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + instead.size()))
      text.replace(at, what.size(), instead);
  };
  drop("**", "");
  drop("%", "");
  drop("\u2212", "-");
  const std::string_view bare = trimmed(text);
  double value = 0.0;
  const char* const begin = bare.data() + (bare.starts_with('+') ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, bare.data() + bare.size(), value);
  if (bare.empty() || error != std::errc() || end != bare.data() + bare.size() || !std::isfinite(value))
    return {};
  return value;
}

bool names_base(std::string_view label) {
  const std::string word = lowered(label);
  return word == "0" || word.starts_with("0:") || word == "base" || word == "zero-shot" ||
         word == "zero_shot" || word == "zeroshot" || word == "untrained";
}

struct Line {
  int number = 0;
  std::vector<std::string> cells;
};

/// Quoted cells are read as CSV writes them; quotes mean nothing with other separators.
std::vector<std::string> split(std::string_view line, char separator) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '"' && (separator == ',' || separator == ';')) {
      if (quoted && i + 1 < line.size() && line[i + 1] == '"')
        cells.back().push_back(line[++i]);
      else
        quoted = !quoted;
    } else if (c == separator && !quoted) {
      cells.emplace_back();
    } else {
      cells.back().push_back(c);
    }
  }
  for (std::string& cell : cells) cell = std::string(trimmed(cell));
  if (separator == ' ') std::erase(cells, std::string());  // several spaces are one
  return cells;
}

std::vector<Line> lines_of(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  std::vector<std::pair<int, std::string_view>> kept;
  int number = 0;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++number;
    if (trimmed(line).empty() || trimmed(line).starts_with('#')) continue;
    if (line.find_first_not_of("|-: \t\r") == std::string_view::npos &&
        line.find("--") != std::string_view::npos)
      continue;  // the rule under a Markdown header
    kept.emplace_back(number, line);
  }
  char separator = ' ';
  for (const char candidate : {',', ';', '|', '\t'}) {
    if (separator == ' ' && std::any_of(kept.begin(), kept.end(), [&](const auto& line) {
          return line.second.find(candidate) != std::string_view::npos;
        }))
      separator = candidate;
  }
  std::vector<Line> lines;
  for (auto [at, line] : kept) {
    if (separator == '|') {  // the outer borders separate nothing
      line = trimmed(line);
      if (line.starts_with('|')) line.remove_prefix(1);
      if (line.ends_with('|')) line.remove_suffix(1);
    }
    lines.push_back({at, split(line, separator)});
  }
  return lines;
}

bool is_word(const std::string& cell) { return !is_missing(cell) && !number_in(cell); }

/// Drops the column of stage names and returns it; empty when there is none.
std::vector<std::string> take_labels(std::vector<Line>& rows, std::vector<std::string>& header) {
  const std::string corner = header.empty() ? "none" : lowered(header.front());
  const bool by_header = corner.empty() || corner == "stage" || corner == "step" || corner == "after" ||
                         corner == "row" || corner == "task";
  const bool by_words = std::all_of(rows.begin(), rows.end(), [](const Line& row) {
    return !row.cells.empty() && (is_word(row.cells.front()) || names_base(row.cells.front()));
  });
  std::vector<std::string> labels;
  if (!by_header && !by_words) return labels;
  if (by_header)
    header.erase(header.begin());
  else if (!header.empty()) {
    const auto longest = std::max_element(rows.begin(), rows.end(), [](const Line& a, const Line& b) {
      return a.cells.size() < b.cells.size();
    });
    if (header.size() == longest->cells.size()) header.erase(header.begin());
  }
  for (Line& row : rows) {
    labels.push_back(row.cells.empty() ? std::string() : row.cells.front());
    if (!row.cells.empty()) row.cells.erase(row.cells.begin());
  }
  return labels;
}

std::vector<std::string> numbered_names(std::size_t count) {
  std::vector<std::string> names;
  for (std::size_t i = 1; i <= count; ++i) names.push_back("task " + std::to_string(i));
  return names;
}

/// Which stage learns which task in a file of ours: the stage of its name; without such names one stage each
/// in order, or a single one for all.
std::vector<std::int64_t> learned_by_label(const std::vector<std::string>& names,
                                           const std::vector<std::string>& labels) {
  const auto stages = static_cast<std::int64_t>(labels.size()) - 1;
  std::vector<std::int64_t> learned(names.size(), 0);
  bool named = false;
  for (std::size_t j = 0; j < names.size(); ++j)
    for (std::size_t i = 1; i < labels.size(); ++i)
      if (learned[j] == 0 && labels[i] == std::to_string(i) + ":" + names[j]) {
        learned[j] = static_cast<std::int64_t>(i);
        named = true;
      }
  if (named) return learned;
  for (std::size_t j = 0; j < names.size(); ++j)
    learned[j] = stages == 1 ? 1 : std::min(static_cast<std::int64_t>(j) + 1, stages);
  return learned;
}

/// `has_base`: the first row is the untrained model.
void fill(AccuracyMatrix& matrix, const std::vector<Row>& rows, bool has_base) {
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t j = 0; j < rows[i].size(); ++j)
      matrix.set(static_cast<std::int64_t>(i) + (has_base ? 0 : 1), static_cast<std::int64_t>(j), rows[i][j]);
}

/// A bare matrix: T rows without a base, T + 1 with one; fewer are a stream that is still on its way.
AccuracyMatrix assemble_plain(const std::vector<Row>& rows, std::vector<std::string> names, bool has_base,
                              const std::string& where) {
  const std::size_t tasks = names.size();
  has_base = has_base || rows.size() == tasks + 1;
  const std::size_t stages = rows.size() - (has_base ? 1 : 0);
  if (stages > tasks)
    throw DataError(where, std::to_string(rows.size()) + " rows for " + std::to_string(tasks) + " tasks",
                    "a matrix has one row for each task, and one more when the first is the untrained base");
  AccuracyMatrix matrix(std::move(names));
  fill(matrix, rows, has_base);
  return matrix;
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

std::size_t longest_row(const std::vector<Row>& rows) {
  std::size_t longest = 0;
  for (const Row& row : rows) longest = std::max(longest, row.size());
  return longest;
}

std::vector<std::string> names_of_json(const Json& tasks, const std::string& where) {
  std::vector<std::string> names;
  for (const Json& task : tasks)
    names.push_back(task.is_string() ? task.get<std::string>() : json_text(task, "name", where));
  return names;
}

}  // namespace

AccuracyMatrix matrix_from_text(std::string_view text, const std::string& where) {
  std::vector<Line> rows = lines_of(text);
  if (rows.empty()) throw DataError(where, "there is no row of numbers in it");
  std::vector<std::string> header;
  const auto& first = rows.front().cells;
  const auto words = std::count_if(first.begin(), first.end(), is_word);
  const bool numbers = std::any_of(first.begin(), first.end(),
                                   [](const std::string& cell) { return number_in(cell).has_value(); });
  if (words > 1 || (words == 1 && !numbers)) {
    header = first;
    rows.erase(rows.begin());
    if (rows.empty()) throw DataError(where, "there is a header but no row of numbers");
  }
  const std::vector<std::string> labels = take_labels(rows, header);
  std::vector<Row> values;
  for (const Line& line : rows) {
    Row row;
    for (const std::string& cell : line.cells) {
      const Cell value = is_missing(cell) ? Cell() : number_in(cell);
      if (!value && !is_missing(cell))
        throw DataError(where + ":" + std::to_string(line.number), "'" + cell + "' is not a number");
      row.push_back(value);
    }
    if (!header.empty() && row.size() > header.size())
      throw DataError(
          where + ":" + std::to_string(line.number),
          std::to_string(row.size()) + " cells under " + std::to_string(header.size()) + " names");
    values.push_back(std::move(row));
  }
  const std::size_t tasks = header.empty() ? longest_row(values) : header.size();
  if (tasks == 0 || tasks > kMostTasks) throw DataError(where, std::to_string(tasks) + " tasks");
  const bool has_base = !labels.empty() && names_base(labels.front());
  if (header.empty()) header = numbered_names(tasks);
  if (has_base && labels.front().starts_with("0:")) {  // our own file: every stage has its row
    auto learned = learned_by_label(header, labels);
    AccuracyMatrix matrix(std::move(header), static_cast<std::int64_t>(values.size()) - 1,
                          std::move(learned));
    fill(matrix, values, true);
    return matrix;
  }
  return assemble_plain(values, std::move(header), has_base, where);
}

AccuracyMatrix matrix_from_json(const Json& value, const std::string& where) {
  if (value.is_array()) {
    const std::vector<Row> rows = rows_of_json(value, where);
    return assemble_plain(rows, numbered_names(longest_row(rows)), false, where);
  }
  const Json& matrix = json_array(value, "matrix", where);
  const std::vector<Row> rows = rows_of_json(matrix, where + ": matrix");
  std::vector<std::string> names = value.contains("tasks")
                                       ? names_of_json(json_array(value, "tasks", where), where + ": tasks")
                                       : numbered_names(longest_row(rows));
  if (names.empty() || names.size() > kMostTasks || longest_row(rows) > names.size())
    throw DataError(where, "rows of " + std::to_string(longest_row(rows)) + " cells for " +
                               std::to_string(names.size()) + " tasks");
  if (!value.contains("stages")) return assemble_plain(rows, std::move(names), false, where);
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
  fill(matrix, rows, true);
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

std::string matrix_to_csv(const AccuracyMatrix& matrix, const std::vector<std::string>& stages) {
  std::string out = "stage";
  for (const std::string& name : matrix.names()) out += "," + csv_field(name);
  for (std::int64_t i = 0; i <= matrix.stages(); ++i) {
    std::string name = "base";
    const auto at = static_cast<std::size_t>(i);
    if (i > 0)
      name = at <= stages.size()           ? stages[at - 1]
             : at <= matrix.names().size() ? matrix.names()[at - 1]
                                           : "stage";
    out += "\n" + csv_field(std::to_string(i) + ":" + name);
    for (std::int64_t j = 0; j < matrix.tasks(); ++j) {
      const Cell cell = matrix.at(i, j);
      out += "," + (cell ? shortest(*cell) : std::string());
    }
  }
  return out + "\n";
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
