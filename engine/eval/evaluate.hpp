#pragma once
/// One cell of the accuracy matrix: the model's answers to a task's test rows, scored.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "mcit/strategy.hpp"
#include "model/clip_model.hpp"
#include "model/mllm.hpp"
#include "score/cell.hpp"
#include "score/scorers.hpp"

namespace mcit {

/// What a model says to test rows.
struct Answers {
  std::vector<std::string> free;        ///< [B]
  std::vector<std::string> restricted;  ///< [B] the best of the task's answer set; empty without one
};
/// @param restricted whether the answers out of the set are wanted as well
using AnswerHook = std::function<Answers(const Batch&, bool restricted)>;

/// Greedy generation. @param set the task's own answer set, or null for free text; model outlives the hook
AnswerHook generated_answers(Mllm& model,
                             std::function<std::string(const std::vector<std::int64_t>&)> decode_text,
                             std::shared_ptr<const AnswerTrie> set, std::int64_t max_new_tokens);
/// The nearest class by its name. @param model outlives the hook
AnswerHook class_answers(ClipModel& model, std::vector<std::string> classes);

/// A task's test side, ready to be asked.
struct EvalTask {
  std::string name;
  std::int64_t index = 0;                       ///< in the stream
  std::vector<ExamplePtr> examples;             ///< tokens of the prompt; answers are not read
  std::vector<std::vector<std::string>> golds;  ///< accepted answers of each row
  const Scorer* scorer = nullptr;
  AnswerHook answer;
  std::vector<std::string> answer_set{};  ///< every answer the task knows; empty for free text
  std::string digest;                     ///< hash of rows, pictures, scorer and limits
};

/// The strategy's say at inference; sets the model's route where a row's task is unknown (-1).
using SelectHook = std::function<Selection(const Batch&)>;

/// The part of a cell that this process answers, where several work on one: batch number `rank`, `rank +
/// size`, and so on of those that a single process would make.
struct EvalShare {
  std::int64_t rank = 0, size = 1;
  /// What every process has to say, by rank and the same in all; needed where size > 1.
  std::function<std::vector<std::string>(const std::string& own)> gather{};
};

/// Rows are sorted by length and answered `batch` at a time; the cell does not depend on the strategy's
/// training flag. Where the strategy selects another task than the row's own, the row is answered once more
/// with its own.
/// @param select null when no strategy is attached
/// @param share what other processes answer; the cell is whole in each of them
/// @param learned whether the task was trained: only then is there anything of its own to answer with
Cell evaluate(Model& model, const EvalTask& task, std::int64_t batch, const SelectHook& select, bool learned,
              const std::function<void(std::int64_t rows)>& progress = {}, const EvalShare& share = {});

}  // namespace mcit
