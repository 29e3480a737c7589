#include "eval/evaluate.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "core/json.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"

namespace mcit {

double Cell::score() const {
  double sum = 0.0;
  for (const Prediction& row : rows) sum += row.score;
  return rows.empty() ? 0.0 : 100.0 * sum / static_cast<double>(rows.size());
}

std::optional<double> Cell::restricted_score() const {
  double sum = 0.0;
  for (const Prediction& row : rows) {
    if (!row.restricted_score) return std::nullopt;
    sum += *row.restricted_score;
  }
  if (rows.empty()) return std::nullopt;
  return 100.0 * sum / static_cast<double>(rows.size());
}

std::optional<double> Cell::selector_accuracy(std::int64_t task) const {
  std::int64_t right = 0;
  for (const Prediction& row : rows) {
    if (row.selected_task < 0) return std::nullopt;
    right += row.selected_task == task ? 1 : 0;
  }
  if (rows.empty()) return std::nullopt;
  return 100.0 * static_cast<double>(right) / static_cast<double>(rows.size());
}

double Cell::oracle_score() const {
  double sum = 0.0;
  for (const Prediction& row : rows) sum += row.oracle_score.value_or(row.score);
  return rows.empty() ? 0.0 : 100.0 * sum / static_cast<double>(rows.size());
}

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

Cell evaluate(Model& model, const EvalTask& task, std::int64_t batch, const SelectHook& select, bool learned,
              const std::function<void(std::int64_t)>& progress) {
  const at::NoGradGuard no_grad;
  model.set_training(false);
  std::vector<std::size_t> order(task.examples.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return task.examples[a]->prompt_length < task.examples[b]->prompt_length;
  });
  Cell cell;
  cell.rows.resize(task.examples.size());
  const auto score_of = [&](std::size_t row, const std::string& text) {
    const ScoreContext context{.options = {}, .prompt = task.examples[row]->prompt};
    return task.scorer->score(text, task.golds[row], context);
  };
  for (std::size_t begin = 0; begin < order.size(); begin += static_cast<std::size_t>(batch)) {
    const std::size_t end = std::min(order.size(), begin + static_cast<std::size_t>(batch));
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
      const Score score = score_of(row, out.text);
      out.score = score.value;
      out.well_formed = score.well_formed;
      if (!answers.restricted.empty()) {
        out.restricted_text = answers.restricted[at];
        out.restricted_score = score_of(row, *out.restricted_text).value;
      }
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
      for (std::size_t i = 0; i < rows.size(); ++i)
        cell.rows[rows[i]].oracle_score = score_of(rows[i], own.free[i]).value;
    }
    if (progress) progress(static_cast<std::int64_t>(end - begin));
    if (interrupted()) throw Interrupted();
  }
  return cell;
}

std::string to_jsonl(const Cell& cell) {
  std::string out;
  for (const Prediction& row : cell.rows) {
    Json line = {{"question_id", row.id}, {"prompt", row.prompt}, {"text", row.text},
                 {"gold", row.gold},      {"score", row.score},   {"well_formed", row.well_formed}};
    if (row.restricted_text) {
      line["restricted_text"] = *row.restricted_text;
      line["restricted_score"] = row.restricted_score.value_or(0.0);
    }
    if (row.selected_task >= 0) line["selected_task"] = row.selected_task;
    if (row.oracle_score) line["oracle_score"] = *row.oracle_score;
    out += dump_json(line) + "\n";
  }
  return out;
}

Cell from_jsonl(const std::string& text, const std::string& where) {
  Cell cell;
  std::istringstream lines(text);
  std::string line;
  for (std::int64_t number = 1; std::getline(lines, line); ++number) {
    const std::string at = where + ":" + std::to_string(number);
    const Json object = parse_json(line, at);
    Prediction row{.id = json_text(object, "question_id", at),
                   .prompt = json_text(object, "prompt", at),
                   .text = json_text(object, "text", at),
                   .gold = json_text(object, "gold", at),
                   .score = json_number(object, "score", at),
                   .well_formed = object.value("well_formed", false)};
    if (object.contains("restricted_text")) {
      row.restricted_text = json_text(object, "restricted_text", at);
      row.restricted_score = json_number(object, "restricted_score", at);
    }
    if (object.contains("selected_task")) row.selected_task = json_integer(object, "selected_task", at);
    if (object.contains("oracle_score")) row.oracle_score = json_number(object, "oracle_score", at);
    cell.rows.push_back(std::move(row));
  }
  return cell;
}

}  // namespace mcit
