#include "eval/evaluate.hpp"

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "core/system.hpp"

namespace mcit {

AnswerHook generated_answers(Mllm& model,
                             std::function<std::string(const std::vector<std::int64_t>&)> decode_text,
                             std::shared_ptr<const AnswerTrie> set, std::int64_t max_new_tokens) {
  return [&model, decode = std::move(decode_text), set = std::move(set), max_new_tokens](const Batch& batch,
                                                                                         bool restricted) {
    const auto texts = [&](const std::vector<std::vector<std::int64_t>>& ids) {
      std::vector<std::string> out;
      for (const auto& one : ids) out.push_back(decode(one));
      return out;
    };
    Prefill prefill = model.prefill(batch, max_new_tokens);
    Answers out{.free = texts(model.decode(prefill, max_new_tokens)), .restricted = {}};
    if (restricted && set) out.restricted = texts(model.decode(prefill, max_new_tokens, set.get()));
    return out;
  };
}

AnswerHook class_answers(ClipModel& model, std::vector<std::string> classes) {
  return [&model, classes = std::move(classes)](const Batch& batch, bool) {
    Answers out;
    for (const std::int64_t best : model.classify(batch))
      out.free.push_back(classes[static_cast<std::size_t>(best)]);
    return out;
  };
}

namespace {

/// Puts the rows that each process answered where they belong.
/// @param order rows of the task as they are answered, `batch` at a time
void unite(Cell& cell, const std::vector<std::size_t>& order, std::size_t batch, const EvalShare& share) {
  const auto rows_of = [&](std::int64_t rank) {
    std::vector<std::size_t> rows;
    for (std::size_t i = 0; i < order.size(); ++i)
      if (static_cast<std::int64_t>(i / batch) % share.size == rank) rows.push_back(order[i]);
    return rows;
  };
  Cell own;
  for (const std::size_t row : rows_of(share.rank)) own.rows.push_back(cell.rows[row]);
  const std::vector<std::string> texts = share.gather(to_jsonl(own));
  for (std::int64_t rank = 0; rank < share.size; ++rank) {
    const std::vector<std::size_t> rows = rows_of(rank);
    Cell part = from_jsonl(texts[static_cast<std::size_t>(rank)], "answers of rank " + std::to_string(rank));
    for (std::size_t i = 0; i < rows.size(); ++i) cell.rows[rows[i]] = std::move(part.rows.at(i));
  }
}

}  // namespace

Cell evaluate(Model& model, const EvalTask& task, std::int64_t batch, const SelectHook& select, bool learned,
              const std::function<void(std::int64_t)>& progress, const EvalShare& share) {
  const at::NoGradGuard no_grad;
  model.set_training(false);
  std::vector<std::size_t> order(task.examples.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return task.examples[a]->prompt_length < task.examples[b]->prompt_length;
  });
  Cell cell;
  cell.rows.resize(task.examples.size());
  std::int64_t number = 0;
  for (std::size_t begin = 0; begin < order.size(); begin += static_cast<std::size_t>(batch)) {
    const std::size_t end = std::min(order.size(), begin + static_cast<std::size_t>(batch));
    if (number++ % share.size != share.rank) {
      if (progress) progress(static_cast<std::int64_t>(end - begin));
      continue;
    }
    Batch part;
    for (std::size_t i = begin; i < end; ++i) part.examples.push_back(task.examples[order[i]]);
    model.route().task.assign(part.size(), -1);
    model.route().clear();
    const Selection selection = select ? select(part) : Selection{};
    const Answers answers = task.answer(part, true);
    for (std::size_t i = begin; i < end; ++i) {
      const std::size_t row = order[i], at = i - begin;
      const Example& example = *task.examples[row];
      Prediction& out = cell.rows[row];
      out = {.id = example.id, .prompt = example.prompt, .text = answers.free[at], .gold = example.answer};
      if (task.golds[row] != std::vector{out.gold}) out.golds = task.golds[row];
      if (!example.image.empty()) out.image = std::filesystem::path(example.image).filename().string();
      if (!task.answer_set.empty()) out.in_set = is_among(out.text, task.answer_set);
      if (!answers.restricted.empty()) out.restricted_text = answers.restricted[at];
      if (!selection.task.empty()) out.selected_task = selection.task[at];
    }
    Batch misrouted;
    std::vector<std::size_t> rows;
    for (std::size_t i = begin; learned && i < end; ++i) {
      const Prediction& out = cell.rows[order[i]];
      if (out.selected_task < 0 || out.selected_task == part.examples[i - begin]->task) continue;
      misrouted.examples.push_back(part.examples[i - begin]);
      rows.push_back(order[i]);
    }
    if (!rows.empty()) {
      model.route().task.assign(rows.size(), misrouted.examples.front()->task);
      model.route().clear();
      select(misrouted);
      const Answers own = task.answer(misrouted, false);
      for (std::size_t i = 0; i < rows.size(); ++i) cell.rows[rows[i]].oracle_text = own.free[i];
    }
    if (progress) progress(static_cast<std::int64_t>(end - begin));
    if (interrupted()) throw Interrupted();
  }
  if (share.size > 1) unite(cell, order, static_cast<std::size_t>(batch), share);
  score_cell(cell, *task.scorer);
  return cell;
}

}  // namespace mcit
