#pragma once
/// One cell of the accuracy matrix: greedy answers to a task's test rows, scored.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/scorers.hpp"
#include "mcit/strategy.hpp"
#include "model/mllm.hpp"

namespace mcit {

/// A task's test side, ready to be asked.
struct EvalTask {
  std::string name;
  std::int64_t index = 0;                       ///< in the stream
  std::vector<ExamplePtr> examples;             ///< tokens of the prompt; answers are not read
  std::vector<std::vector<std::string>> golds;  ///< accepted answers of each row
  const Scorer* scorer = nullptr;
  std::shared_ptr<const AnswerTrie> answers;  ///< the task's own answer set; null for free text
  std::int64_t max_new_tokens = 16;
  std::string digest;  ///< hash of rows, pictures, scorer and limits
};

struct Prediction {
  std::string id, prompt, text, gold;
  double score = 0.0;
  bool well_formed = false;
  std::optional<std::string> restricted_text{};  ///< best answer of the task's answer set
  std::optional<double> restricted_score{};
  std::int64_t selected_task = -1;       ///< what the strategy routed to; -1 when it selects nothing
  std::optional<double> oracle_score{};  ///< with the true task, where another was selected
};

struct Cell {
  std::vector<Prediction> rows;  ///< in file order

  double score() const;                                              ///< percent
  std::optional<double> restricted_score() const;                    ///< percent
  std::optional<double> selector_accuracy(std::int64_t task) const;  ///< percent of rows routed to `task`
  double oracle_score() const;  ///< percent, with the true task for every row
};

/// The strategy's say at inference; sets the model's route where a row's task is unknown (-1).
using SelectHook = std::function<Selection(const Batch&)>;
using DecodeText = std::function<std::string(const std::vector<std::int64_t>&)>;

/// Rows are sorted by length and answered `batch` at a time; the cell does not depend on the strategy's
/// training flag. Where the strategy selects another task than the row's own, the row is answered once more
/// with its own.
/// @param select null when no strategy is attached
/// @param learned whether the task was trained: only then is there anything of its own to answer with
Cell evaluate(Mllm& model, const EvalTask& task, std::int64_t batch, const DecodeText& decode,
              const SelectHook& select, bool learned,
              const std::function<void(std::int64_t rows)>& progress = {});

/// predictions.jsonl: one object a row, deterministic bytes.
std::string to_jsonl(const Cell& cell);
/// @throws DataError naming the line.
Cell from_jsonl(const std::string& text, const std::string& where);

}  // namespace mcit
