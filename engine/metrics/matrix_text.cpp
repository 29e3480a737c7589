#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/text.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"

namespace mcit {
namespace {

using Cell = AccuracyMatrix::Cell;
using Row = std::vector<Cell>;

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
  const auto named = [](const Line& row) { return !row.cells.empty() && is_word(row.cells.front()); };
  const auto labelled = [&](const Line& row) {
    return named(row) || (!row.cells.empty() && names_base(row.cells.front()));
  };
  const bool by_words =
      std::any_of(rows.begin(), rows.end(), named) && std::all_of(rows.begin(), rows.end(), labelled);
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
  const bool has_base = !labels.empty() && names_base(labels.front());
  if (!has_base || !labels.front().starts_with("0:"))
    return matrix_from_rows(values, std::move(header), has_base, where);
  // Our own file: every stage has its row, and there may be more or fewer stages than tasks.
  if (header.empty()) throw DataError(where, "names no task");
  auto learned = learned_by_label(header, labels);
  AccuracyMatrix matrix(std::move(header), static_cast<std::int64_t>(values.size()) - 1, std::move(learned));
  for (std::size_t i = 0; i < values.size(); ++i) matrix.set_row(static_cast<std::int64_t>(i), values[i]);
  return matrix;
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

}  // namespace mcit
