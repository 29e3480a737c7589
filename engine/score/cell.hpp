#pragma once
/// What a model said to a task's test rows, and how it was scored: the rows of predictions/*.jsonl.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "metrics/result.hpp"
#include "score/scorers.hpp"

namespace mcit {

struct Prediction {
  std::string id, prompt, text, gold;
  std::vector<std::string> golds{};  ///< every accepted answer, where there are several
  std::string image{};               ///< the picture's file name; empty for a text-only row
  double score = 0.0;
  bool well_formed = false;
  std::optional<bool> in_set{};  ///< the answer is one of the task's answer set, if it has one
  std::optional<std::string> restricted_text{};  ///< best answer of the task's answer set
  std::optional<double> restricted_score{};
  std::int64_t selected_task = -1;           ///< what the strategy routed to; -1 when it selects nothing
  std::optional<std::string> oracle_text{};  ///< with the true task, where another was selected
  std::optional<double> oracle_score{};

  std::vector<std::string> accepted() const { return golds.empty() ? std::vector{gold} : golds; }
};

struct Cell {
  std::vector<Prediction> rows;  ///< in file order
  /// Percent of a scorer that looks at all rows together; score_cell() fills them in.
  std::optional<double> corpus{}, corpus_restricted{}, corpus_oracle{};

  double score() const;                                              ///< percent
  std::optional<double> restricted_score() const;                    ///< percent
  std::optional<double> selector_accuracy(std::int64_t task) const;  ///< percent of rows routed to `task`
  double oracle_score() const;  ///< percent, with the true task for every row
  double total() const;         ///< score() * rows / 100
};

/// Scores every text of the cell. @throws DataError on golds that the scorer cannot take, naming the row.
void score_cell(Cell& cell, const Scorer& scorer);

/// Enters a cell into all matrices of a run and its stage's share of rightly selected tasks.
/// @param learned whether the task had been trained: only then was there a right one to select
void enter_cell(RunResult& result, std::int64_t row, std::int64_t task, const Cell& cell, bool learned);

/// Whether `text` is one of `answers` but for case, outer white space and one final full stop.
bool is_among(const std::string& text, const std::vector<std::string>& answers);

/// predictions.jsonl: one object a row, deterministic bytes. What a corpus scorer says of all rows is not in
/// it.
std::string to_jsonl(const Cell& cell);
/// @throws DataError naming the line.
Cell from_jsonl(const std::string& text, const std::string& where);

}  // namespace mcit
