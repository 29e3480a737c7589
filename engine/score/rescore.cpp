#include "score/rescore.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "score/drift.hpp"
#include "score/form.hpp"
#include "score/rules.hpp"

namespace mcit {
namespace {

const char* reason(const Prediction& row, bool parsed) {
  if (rules::is_empty(row.text)) return "empty answer";
  if (rules::equals_any(rules::plain(row.text), row.accepted())) return "case or stop";
  return parsed ? "other rule" : "parse";
}

/// The strict scorer with the profile's rule in it.
Scorer with_rule(Scorer scorer, const ProfileRule& rule) {
  scorer.score = rule.score;
  scorer.corpus = rule.corpus;
  return scorer;
}

/// Scores anew; the form of the answers is a matter of the strict scorer and stays.
void score_under(Cell& cell, const Scorer& scorer) {
  std::vector<bool> forms;
  bool routed_without_text = false;
  for (const Prediction& row : cell.rows) {
    forms.push_back(row.well_formed);
    routed_without_text = routed_without_text || (row.oracle_score && !row.oracle_text);
  }
  score_cell(cell, scorer);
  for (std::size_t i = 0; i < cell.rows.size(); ++i) {
    cell.rows[i].well_formed = forms[i];
    if (routed_without_text) cell.rows[i].oracle_score.reset();
  }
}

class Rescorer {
 public:
  Rescorer(std::filesystem::path run, const std::string& profile,
           const std::map<std::string, std::string>& scorers)
      : run_(std::move(run)) {
    out_.profile = profile;
    out_.result = read_result(run_);
    for (const auto& [task, scorer] : scorers) {
      const auto names = out_.result.task_names();
      if (std::find(names.begin(), names.end(), task) == names.end())
        throw ConfigError("--scorer", "the run has no task '" + task + "'", suggestion(task, names));
    }
    for (TaskResult& task : out_.result.tasks) {
      const auto named = scorers.find(task.name);
      if (named != scorers.end()) task.scorer = named->second;
      if (task.scorer.empty())
        throw ConfigError(run_.string(), "does not say how '" + task.name + "' was scored",
                          "name it: --scorer " + task.name + "=exact");
      const Scorer& scorer = find_scorer(task.scorer);
      scorers_.push_back(scorer);
      out_.tasks.push_back({.name = task.name, .rule = find_rule(profile, scorer), .before = {}});
      choose_rule(out_.tasks.size() - 1);
    }
  }

  Rescored run() {
    RunResult& result = out_.result;
    const AccuracyMatrix old = result.matrix;
    result.counts.assign(static_cast<std::size_t>(old.stages()) + 1,
                         std::vector<std::optional<CellCount>>(result.tasks.size()));
    bool any = false;
    for (std::int64_t i = 0; i <= old.stages(); ++i)
      for (std::int64_t j = 0; j < old.tasks(); ++j) any = set(i, j) || any;
    if (!any)
      throw DataError(run_.string(), "has no predictions",
                      "rescore reads RUN/predictions/<stage>_<task>.jsonl");
    if (result.federated) result.federated->global = result.matrix;
    split_forgetting(result, [&](std::int64_t i, std::int64_t j) { return cell(i, j); });
    return std::move(out_);
  }

 private:
  /// The profile's rule, or strict's where the golds of this run have not the form that it needs.
  void choose_rule(std::size_t task) {
    RescoredTask& entry = out_.tasks[task];
    for (std::int64_t i = out_.result.matrix.stages(); i >= 0; --i) {
      std::optional<Cell> first = stored_cell(run_, i, entry.name);
      if (!first) continue;
      try {
        score_under(*first, with_rule(scorers_[task], entry.rule));
      } catch (const DataError& e) {
        if (entry.rule.as_strict || out_.profile == "strict") throw;
        entry.kept = e.what();
        ProfileRule strict = find_rule("strict", scorers_[task]);
        strict.profile = entry.rule.profile;
        strict.as_strict = true;
        entry.rule = strict;
      }
      return;
    }
  }

  std::optional<Cell> cell(std::int64_t row, std::int64_t task) {
    const auto j = static_cast<std::size_t>(task);
    std::optional<Cell> found = stored_cell(run_, row, out_.tasks[j].name);
    if (found) score_under(*found, with_rule(scorers_[j], out_.tasks[j].rule));
    return found;
  }

  bool set(std::int64_t row, std::int64_t task) {
    RunResult& result = out_.result;
    const auto i = static_cast<std::size_t>(row), j = static_cast<std::size_t>(task);
    std::optional<Cell> stored = stored_cell(run_, row, out_.tasks[j].name);
    const AccuracyMatrix::Cell before = result.matrix.at(row, task);
    result.matrix.set(row, task, std::nullopt);
    result.matrix_restricted.set(row, task, std::nullopt);
    const bool routed = result.matrix_oracle.at(row, task).has_value();
    result.matrix_oracle.set(row, task, std::nullopt);
    if (!stored) return false;
    const Cell old = *stored;
    score_under(*stored, with_rule(scorers_[j], out_.tasks[j].rule));
    result.matrix.set(row, task, stored->score());
    result.matrix_restricted.set(row, task, stored->restricted_score());
    const bool complete = std::all_of(old.rows.begin(), old.rows.end(),
                                      [](const Prediction& p) { return !p.oracle_score || p.oracle_text; });
    if (routed && complete) result.matrix_oracle.set(row, task, stored->oracle_score());
    result.counts[i][j] = CellCount{stored->total(), static_cast<std::int64_t>(stored->rows.size())};
    if (row == result.matrix.stages()) explain(j, before, old, *stored);
    return true;
  }

  void explain(std::size_t task, AccuracyMatrix::Cell before, const Cell& old, const Cell& now) {
    RescoredTask& entry = out_.tasks[task];
    entry.before = before ? before : old.score();
    entry.after = now.score();
    double followed = 0;
    for (std::size_t i = 0; i < now.rows.size(); ++i) {
      const Prediction& row = now.rows[i];
      const std::vector<std::string> golds = row.accepted();
      followed += follows_instruction(scorers_[task].form, row.text, golds) ? 1 : 0;
      const double change = row.score - old.rows[i].score;
      if (change == 0) continue;
      bool parsed = true;
      if (entry.rule.score != nullptr) {
        const ScoreContext context{.prompt = row.prompt, .image = row.image};
        parsed = entry.rule.score(row.text, golds, context).note.empty() &&
                 scorers_[task].score(row.text, golds, context).note.empty();
      }
      Changed& changed = entry.why[reason(row, parsed)];
      ++(change > 0 ? changed.better : changed.worse);
    }
    if (!now.rows.empty()) entry.followed = 100 * followed / static_cast<double>(now.rows.size());
  }

  std::filesystem::path run_;
  Rescored out_;
  std::vector<Scorer> scorers_;
};

}  // namespace

std::optional<double> Rescored::followed() const {
  double sum = 0;
  for (const RescoredTask& task : tasks) {
    if (!task.followed) return std::nullopt;
    sum += *task.followed;
  }
  if (tasks.empty()) return std::nullopt;
  return sum / static_cast<double>(tasks.size());
}

Rescored rescore(const std::filesystem::path& run, const std::string& profile,
                 const std::map<std::string, std::string>& scorers) {
  return Rescorer(run, profile, scorers).run();
}

void write_rescored(const std::filesystem::path& run, const Rescored& rescored) {
  const auto number = [](const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); };
  Json json = result_json(rescored.result);
  json["profile"] = rescored.profile;
  json["mif"] = number(rescored.followed());
  json["rules"] = Json::array();
  for (const RescoredTask& task : rescored.tasks) {
    Json line{{"task", task.name},
              {"scorer", task.rule.scorer},
              {"as_strict", task.rule.as_strict || task.rule.profile == "strict"},
              {"says", task.rule.says},
              {"source", task.rule.source},
              {"before", number(task.before)},
              {"after", number(task.after)},
              {"mif", number(task.followed)},
              {"changed", Json::object()}};
    if (!task.kept.empty()) line["not_used"] = task.kept;
    for (const auto& [why, changed] : task.why)
      line["changed"][why] = {{"better", changed.better}, {"worse", changed.worse}};
    json["rules"].push_back(std::move(line));
  }
  write_json(run / "rescored" / (rescored.profile + ".json"), json);
}

}  // namespace mcit
