#include "score/cell.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "score/rules.hpp"

namespace mcit {
namespace {

double percent(double sum, std::size_t rows) {
  return rows == 0 ? 0.0 : 100.0 * sum / static_cast<double>(rows);
}

Score score_text(const Prediction& row, const std::string& text, const std::vector<std::string>& golds,
                 const Scorer& scorer) {
  try {
    return scorer.score(text, golds, {.prompt = row.prompt, .image = row.image});
  } catch (const DataError& e) {
    throw DataError("row '" + row.id + "'", e.what());
  }
}

void score_rows(Cell& cell, const Scorer& scorer) {
  for (Prediction& row : cell.rows) {
    const std::vector<std::string> golds = row.accepted();
    const Score score = score_text(row, row.text, golds, scorer);
    row.score = score.value;
    row.well_formed = score.well_formed;
    if (row.restricted_text)
      row.restricted_score = score_text(row, *row.restricted_text, golds, scorer).value;
    if (row.oracle_text) row.oracle_score = score_text(row, *row.oracle_text, golds, scorer).value;
  }
}

/// @param text of a row
template <class Text>
CorpusScore score_corpus(const Cell& cell, const std::vector<std::vector<std::string>>& golds,
                         const Scorer& scorer, const Text& text) {
  std::vector<CorpusRow> rows;
  for (std::size_t i = 0; i < cell.rows.size(); ++i) rows.push_back({text(cell.rows[i]), golds[i]});
  return scorer.corpus(rows);
}

void score_together(Cell& cell, const Scorer& scorer) {
  using Text = std::string_view;
  std::vector<std::vector<std::string>> golds;
  for (const Prediction& row : cell.rows) golds.push_back(row.accepted());
  const CorpusScore free =
      score_corpus(cell, golds, scorer, [](const Prediction& row) -> Text { return row.text; });
  cell.corpus = cell.corpus_oracle = free.percent;
  for (std::size_t i = 0; i < cell.rows.size(); ++i) {
    cell.rows[i].score = free.rows[i].value;
    cell.rows[i].well_formed = free.rows[i].well_formed;
  }
  const auto any = [&](auto member) {
    return std::any_of(cell.rows.begin(), cell.rows.end(),
                       [&](const Prediction& row) { return (row.*member).has_value(); });
  };
  if (any(&Prediction::restricted_text)) {
    const CorpusScore set = score_corpus(cell, golds, scorer, [](const Prediction& row) -> Text {
      return row.restricted_text ? *row.restricted_text : row.text;
    });
    cell.corpus_restricted = set.percent;
    for (std::size_t i = 0; i < cell.rows.size(); ++i) cell.rows[i].restricted_score = set.rows[i].value;
  }
  if (any(&Prediction::oracle_text)) {
    const CorpusScore own = score_corpus(cell, golds, scorer, [](const Prediction& row) -> Text {
      return row.oracle_text ? *row.oracle_text : row.text;
    });
    cell.corpus_oracle = own.percent;
    for (std::size_t i = 0; i < cell.rows.size(); ++i)
      if (cell.rows[i].oracle_text) cell.rows[i].oracle_score = own.rows[i].value;
  }
}

}  // namespace

double Cell::score() const {
  if (corpus) return *corpus;
  double sum = 0.0;
  for (const Prediction& row : rows) sum += row.score;
  return percent(sum, rows.size());
}

double Cell::total() const {
  if (corpus) return *corpus * static_cast<double>(rows.size()) / 100.0;
  double sum = 0.0;
  for (const Prediction& row : rows) sum += row.score;
  return sum;
}

std::optional<double> Cell::restricted_score() const {
  double sum = 0.0;
  for (const Prediction& row : rows) {
    if (!row.restricted_score) return std::nullopt;
    sum += *row.restricted_score;
  }
  if (rows.empty()) return std::nullopt;
  return corpus_restricted ? *corpus_restricted : percent(sum, rows.size());
}

std::optional<double> Cell::selector_accuracy(std::int64_t task) const {
  double right = 0;
  for (const Prediction& row : rows) {
    if (row.selected_task < 0) return std::nullopt;
    right += row.selected_task == task ? 1 : 0;
  }
  if (rows.empty()) return std::nullopt;
  return percent(right, rows.size());
}

double Cell::oracle_score() const {
  if (corpus_oracle) return *corpus_oracle;
  double sum = 0.0;
  for (const Prediction& row : rows) sum += row.oracle_score.value_or(row.score);
  return percent(sum, rows.size());
}

void score_cell(Cell& cell, const Scorer& scorer) {
  scorer.corpus != nullptr ? score_together(cell, scorer) : score_rows(cell, scorer);
}

void enter_cell(RunResult& result, std::int64_t row, std::int64_t task, const Cell& cell, bool learned) {
  const auto i = static_cast<std::size_t>(row), j = static_cast<std::size_t>(task);
  result.matrix.set(row, task, cell.score());
  result.matrix_restricted.set(row, task, cell.restricted_score());
  result.counts.resize(std::max(result.counts.size(), result.stages.size() + 1));
  for (auto& line : result.counts) line.resize(result.tasks.size());
  result.counts[i][j] = CellCount{cell.total(), static_cast<std::int64_t>(cell.rows.size())};
  const auto selected = cell.selector_accuracy(task);
  if (!selected || !learned) return;
  result.matrix_selector.set(row, task, selected);
  result.matrix_oracle.set(row, task, cell.oracle_score());
  if (row == 0) return;
  double right = 0.0, rows = 0.0;
  for (std::int64_t t = 0; t < result.matrix.tasks(); ++t) {
    const auto& count = result.counts[i][static_cast<std::size_t>(t)];
    const auto share = result.matrix_selector.at(row, t);
    if (!share || !count) continue;
    right += *share * static_cast<double>(count->examples);
    rows += static_cast<double>(count->examples);
  }
  if (rows > 0.0) result.stages[i - 1].selector_accuracy = right / rows;
}

bool is_among(const std::string& text, const std::vector<std::string>& answers) {
  return rules::equals_any(rules::plain(text), answers);
}

std::string to_jsonl(const Cell& cell) {
  std::string out;
  for (const Prediction& row : cell.rows) {
    Json line = {{"question_id", row.id}, {"prompt", row.prompt}, {"text", row.text}, {"gold", row.gold}};
    if (!row.golds.empty()) line["golds"] = row.golds;
    if (!row.image.empty()) line["image"] = row.image;
    line["score"] = row.score;
    line["well_formed"] = row.well_formed;
    if (row.in_set) line["in_set"] = *row.in_set;
    if (row.restricted_text) {
      line["restricted_text"] = *row.restricted_text;
      line["restricted_score"] = row.restricted_score.value_or(0.0);
    }
    if (row.selected_task >= 0) line["selected_task"] = row.selected_task;
    if (row.oracle_text) line["oracle_text"] = *row.oracle_text;
    if (row.oracle_score) line["oracle_score"] = *row.oracle_score;
    out += dump_json(line) + "\n";
  }
  return out;
}

namespace {

Prediction read_prediction(const Json& object, const std::string& at) {
  Prediction row{.id = json_text(object, "question_id", at),
                 .prompt = json_text(object, "prompt", at),
                 .text = json_text(object, "text", at),
                 .gold = json_text(object, "gold", at),
                 .score = json_number(object, "score", at)};
  try {
    row.well_formed = object.value("well_formed", false);
    row.golds = object.value("golds", std::vector<std::string>{});
    row.image = object.value("image", "");
    if (object.contains("in_set")) row.in_set = object["in_set"].get<bool>();
  } catch (const Json::exception& e) {
    throw DataError(at, "a key has the wrong type");
  }
  if (object.contains("restricted_text")) {
    row.restricted_text = json_text(object, "restricted_text", at);
    row.restricted_score = json_number(object, "restricted_score", at);
  }
  if (object.contains("selected_task")) row.selected_task = json_integer(object, "selected_task", at);
  if (object.contains("oracle_text")) row.oracle_text = json_text(object, "oracle_text", at);
  if (object.contains("oracle_score")) row.oracle_score = json_number(object, "oracle_score", at);
  return row;
}

}  // namespace

Cell from_jsonl(const std::string& text, const std::string& where) {
  Cell cell;
  std::istringstream lines(text);
  std::string line;
  for (std::int64_t number = 1; std::getline(lines, line); ++number) {
    const std::string at = where + ":" + std::to_string(number);
    cell.rows.push_back(read_prediction(parse_json(line, at), at));
  }
  return cell;
}

}  // namespace mcit
