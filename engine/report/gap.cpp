#include "report/gap.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <set>

#include "core/config.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"
#include "metrics/metrics.hpp"

namespace mcit {
namespace {

using Number = std::optional<double>;
using Settings = std::map<std::string, std::string>;

/// A setting without the quotes of TOML; empty when the run has none of that name.
std::string setting(const Settings& settings, const std::string& key) {
  const auto found = settings.find(key);
  if (found == settings.end()) return {};
  const std::string& text = found->second;
  return text.size() > 1 && text.front() == '"' ? text.substr(1, text.size() - 2) : text;
}

Number number_in(const std::string& text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? Number(value) : Number();
}

bool equal(double a, double b) {
  constexpr double kRounding = 1e-9;
  return std::abs(a - b) <= kRounding * std::max(std::abs(a), std::abs(b));
}

bool same_backbone(const Published& published, const std::string& run, const std::string& printed) {
  if (plain_name(run) == plain_name(printed)) return true;
  for (const auto& [name, aliases] : published.aliases)
    if (plain_name(name) == plain_name(printed))
      return std::any_of(aliases.begin(), aliases.end(),
                         [&run](const std::string& alias) { return plain_name(alias) == plain_name(run); });
  return false;
}

/// Whether two texts for a condition say the same; nothing where only a reader can tell.
std::optional<bool> agree(const Published& published, const std::string& name, const std::string& run,
                          const std::string& printed) {
  if (name == "backbone") return same_backbone(published, run, printed);
  if (const Number a = number_in(run), b = number_in(printed); a && b) return equal(*a, *b);
  if (plain_name(run) == plain_name(printed)) return true;
  if (name == "prompts" || name == "scorer" || name == "projector") return false;
  if ((name == "replay" || name == "clients") && run == "none") return false;
  return {};
}

std::vector<ConditionCheck> check_conditions(const Published& published, const Conditions& run,
                                             const Conditions& printed) {
  std::vector<ConditionCheck> out;
  for (const ConditionInfo& info : condition_catalogue()) {
    const std::string name(info.name);
    const auto mine = run.find(name), theirs = printed.find(name);
    ConditionCheck check{std::string(info.title), mine == run.end() ? "" : mine->second,
                         theirs == printed.end() ? "" : theirs->second, Verdict::open};
    const bool special = name == "replay" || name == "clients";  // silence says that there are none
    if (check.published.empty()) {
      if (special && (check.run.empty() || check.run == "none")) continue;
      check.verdict = special ? Verdict::differs : Verdict::unstated;
    } else if (!check.run.empty()) {
      const std::optional<bool> same = agree(published, name, check.run, check.published);
      check.verdict = !same ? Verdict::open : *same ? Verdict::same : Verdict::differs;
    }
    out.push_back(std::move(check));
  }
  return out;
}

/// The common tasks: where they stand in the run and in the tables.
struct Common {
  std::vector<std::pair<std::size_t, std::size_t>> tasks;  ///< run, published; in the run's order
  bool whole = false;                                      ///< neither has a task that the other lacks
  bool in_order = false;
};

Common common_tasks(const Comparison& comparison, const Published& published) {
  Common common;
  std::set<std::size_t> taken;
  for (std::size_t j = 0; j < comparison.tasks.size(); ++j)
    if (const auto task = published.task(comparison.tasks[j]); task && taken.insert(*task).second)
      common.tasks.emplace_back(j, *task);
  common.whole =
      common.tasks.size() == comparison.tasks.size() && common.tasks.size() == published.tasks.size();
  common.in_order = std::is_sorted(common.tasks.begin(), common.tasks.end(),
                                   [](const auto& a, const auto& b) { return a.second < b.second; });
  return common;
}

ConditionCheck task_condition(const Comparison& comparison, const Published& published,
                              const Common& common) {
  std::vector<std::string> printed;
  for (const PublishedTask& task : published.tasks) printed.push_back(task.name);
  return {"tasks and their order", joined(comparison.tasks, " → "), joined(printed, " → "),
          common.whole && common.in_order ? Verdict::same : Verdict::differs};
}

ConditionCheck suite_condition(const Comparison& comparison, const Published& published) {
  std::vector<std::string> names;
  for (const PublishedSuite& suite : published.suites) names.push_back(suite.name);
  return {"suite", comparison.suite, joined(names, " or "),
          published.suite(comparison.suite) != nullptr ? Verdict::same : Verdict::differs};
}

std::vector<const ComparedRun*> runs_of(const ComparedGroup& group, const std::vector<ComparedRun>& runs) {
  std::vector<const ComparedRun*> out;
  for (const ComparedRun& run : runs)
    if (std::find(group.runs.begin(), group.runs.end(), run.path) != group.runs.end()) out.push_back(&run);
  return out;
}

/// A metric over the runs of a group; from the comparison where it has it.
std::optional<Statistic> metric_of(const std::string& name, const Comparison& comparison, std::size_t group,
                                   const std::vector<const ComparedRun*>& runs) {
  if (const auto column = find_column(comparison, name)) return comparison.groups[group].values[*column];
  std::vector<double> values;
  for (const ComparedRun* run : runs)
    if (const Number value = compute_metric(name, run->result.inputs(run->result.matrix)).value)
      values.push_back(*value);
  return statistic(values);
}

using Rows = std::vector<std::pair<const PublishedTable*, const PublishedRow*>>;

Rows rows_for(const Published& published, const std::string& strategy,
              const std::vector<std::string>& against) {
  Rows rows;
  for (const PublishedTable& table : published.tables)
    for (const PublishedRow& row : table.rows) {
      const bool named = std::any_of(against.begin(), against.end(), [&row](const std::string& method) {
        return plain_name(method) == plain_name(row.method);
      });
      if (against.empty() ? row.strategy == strategy : named) rows.emplace_back(&table, &row);
    }
  return rows;
}

std::vector<std::string> methods_of(const Published& published) {
  std::vector<std::string> names;
  for (const PublishedTable& table : published.tables)
    for (const PublishedRow& row : table.rows)
      if (std::find(names.begin(), names.end(), row.method) == names.end()) names.push_back(row.method);
  return names;
}

void check_against(const Published& published, const std::vector<std::string>& against) {
  for (const std::string& method : against)
    if (rows_for(published, {}, {method}).empty())
      throw ConfigError("against", "'" + published.name + "' prints no method '" + method + "'",
                        suggestion(method, methods_of(published)));
}

/// Columns in which a matched row has a number: tasks in the run's order, then metrics as in the catalogue.
std::vector<ComparedColumn> columns_for(const Comparison& comparison, const Published& published,
                                        const Common& common, const Rows& rows) {
  std::vector<ComparedColumn> columns;
  for (const auto& [mine, theirs] : common.tasks)
    if (std::any_of(rows.begin(), rows.end(),
                    [j = theirs](const auto& r) { return !r.second->finals.empty() && r.second->finals[j]; }))
      columns.push_back({"final:" + comparison.tasks[mine], published.tasks[theirs].title, Section::task,
                         Better::higher, 2});
  for (const MetricInfo& info : metric_catalogue()) {
    const std::string name(info.name);
    if (common.whole && std::any_of(rows.begin(), rows.end(),
                                    [&name](const auto& r) { return r.second->metrics.contains(name); }))
      columns.push_back({name, metric_title(name), Section::quality, info.better, 2});
  }
  return columns;
}

Number printed_of(const PublishedRow& row, const ComparedColumn& column, const Published& published) {
  if (column.section == Section::task) {
    const auto task = published.task(column.key.substr(column.key.find(':') + 1));
    return row.finals.empty() || !task ? Number() : row.finals[*task];
  }
  const auto found = row.metrics.find(column.key);
  return found == row.metrics.end() ? Number() : found->second;
}

PublishedMatch match_of(const PublishedTable& table, const PublishedRow& row, const GapGroup& group,
                        const GapComparison& gaps, const Published& published) {
  PublishedMatch match{table.name, row.method, table.source, row.evidence, row.decimals, {}, {}, {}};
  for (std::size_t c = 0; c < gaps.columns.size(); ++c) {
    match.published.push_back(printed_of(row, gaps.columns[c], published));
    const bool both = match.published.back() && group.values[c];
    match.gap.push_back(both ? Number(group.values[c]->mean - *match.published.back()) : Number());
  }
  return match;
}

bool has_number(const PublishedMatch& match) {
  return std::any_of(match.published.begin(), match.published.end(),
                     [](const Number& n) { return n.has_value(); });
}

}  // namespace

bool PublishedMatch::like_for_like() const {
  return std::none_of(conditions.begin(), conditions.end(),
                      [](const ConditionCheck& check) { return check.verdict == Verdict::differs; });
}

Conditions run_conditions(const std::vector<const ComparedRun*>& runs) {
  Conditions out;
  if (runs.empty()) return out;
  std::set<std::uint64_t> seeds;
  for (const ComparedRun* run : runs) seeds.insert(run->result.seed);
  out["seeds"] = std::to_string(seeds.size());
  const Provenance& provenance = runs.front()->result.provenance;
  Settings settings;
  try {
    settings = Config::parse(provenance.config, runs.front()->path).values();
  } catch (const ConfigError&) {  // written by somebody else
  }
  if (settings.empty()) return out;  // nothing is known
  const auto put = [&out](const char* name, const std::string& text) {
    if (!text.empty()) out[name] = text;
  };
  const std::string model = setting(settings, "model");
  put("backbone", std::filesystem::path(model.empty() ? provenance.model : model).filename().string());
  put("base_weights", provenance.model);
  put("rank", setting(settings, "strategy.rank"));
  put("alpha", setting(settings, "strategy.alpha"));
  if (const std::string trains = setting(settings, "strategy.train_connector"); !trains.empty())
    out["projector"] = trains == "true" ? "trained" : "frozen";
  const Number epochs = number_in(setting(settings, "train.epochs"));
  const std::string steps = setting(settings, "train.steps");
  if (epochs && *epochs > 0.0)
    put("epochs", setting(settings, "train.epochs"));
  else if (!steps.empty())
    put("epochs", steps + " steps a task");
  const Number batch = number_in(setting(settings, "train.batch")),
               accumulation = number_in(setting(settings, "train.accumulation"));
  if (batch) put("batch", std::to_string(std::llround(*batch * accumulation.value_or(1.0))));
  put("learning_rate", setting(settings, "train.lr"));
  const std::string buffer = setting(settings, "strategy.buffer");
  out["replay"] = buffer.empty() || buffer == "0" ? "none" : "a buffer of " + buffer;
  out["scorer"] = runs.front()->result.profile;
  out["clients"] = "none";
  return out;
}

GapComparison compare_with_published(const Comparison& comparison, const std::vector<ComparedRun>& runs,
                                     const Published& published, const std::vector<std::string>& against) {
  check_against(published, against);
  const Common common = common_tasks(comparison, published);
  if (common.tasks.empty()) {
    std::vector<std::string> tasks;
    for (const PublishedTask& task : published.tasks) tasks.push_back(task.name);
    throw ConfigError("published",
                      "'" + comparison.suite + "' and '" + published.name + "' have no task in common",
                      "'" + published.name + "' has " + joined(tasks, ", "));
  }
  GapComparison gaps{comparison.suite, published.name, {}, {}, {}};
  Rows all;
  for (const ComparedGroup& group : comparison.groups)
    for (const auto& row : rows_for(published, group.strategy, against)) all.push_back(row);
  gaps.columns = columns_for(comparison, published, common, all);
  if (!common.whole)
    gaps.notes.push_back("only final scores of " + std::to_string(common.tasks.size()) + " of the " +
                         std::to_string(published.tasks.size()) +
                         " published tasks: means over other tasks are no column of these tables");
  const PublishedSuite* suite = published.suite(comparison.suite);
  for (std::size_t g = 0; g < comparison.groups.size(); ++g) {
    const ComparedGroup& from = comparison.groups[g];
    const std::vector<const ComparedRun*> own = runs_of(from, runs);
    GapGroup group{from.label, from.strategy, {}, {}};
    for (const ComparedColumn& column : gaps.columns)
      group.values.push_back(metric_of(column.key, comparison, g, own));
    Conditions conditions = run_conditions(own);
    if (suite != nullptr) conditions.insert(suite->conditions.begin(), suite->conditions.end());
    for (const auto& [table, row] : rows_for(published, from.strategy, against)) {
      PublishedMatch match = match_of(*table, *row, group, gaps, published);
      if (!has_number(match)) continue;
      match.conditions = check_conditions(published, conditions, row->conditions);
      match.conditions.push_back(suite_condition(comparison, published));
      match.conditions.push_back(task_condition(comparison, published, common));
      group.matches.push_back(std::move(match));
    }
    if (group.matches.empty())
      gaps.notes.push_back("'" + published.name + "' prints nothing to hold " + from.label +
                           " against; --against METHOD chooses among " + joined(methods_of(published), ", "));
    gaps.groups.push_back(std::move(group));
  }
  return gaps;
}

}  // namespace mcit
