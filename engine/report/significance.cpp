#include "report/significance.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <string_view>

#include "core/files.hpp"
#include "core/progress.hpp"
#include "core/run_dir.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"
#include "report/predictions.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;
using Number = std::optional<double>;

/// ACC of every run of a comparison that is no bound, by strategy and seed. The first of a seed counts.
std::map<std::string, std::map<std::uint64_t, double>> acc_by_seed(const Comparison& comparison) {
  std::map<std::string, std::map<std::uint64_t, double>> out;
  const std::optional<std::size_t> acc = find_column(comparison, "acc");
  for (const ComparedGroup& group : comparison.groups) {
    if (group.bound || !acc) continue;
    for (std::size_t r = 0; r < group.seeds.size(); ++r)
      if (const Number value = group.samples[*acc][r]) out[group.label].emplace(group.seeds[r], *value);
  }
  return out;
}

/// Labels of methods in the order the tables show them.
std::vector<std::string> method_labels(const std::vector<Comparison>& comparisons) {
  std::vector<std::string> labels;
  for (const Comparison& comparison : comparisons)
    for (const ComparedGroup& group : comparison.groups)
      if (!group.bound && std::find(labels.begin(), labels.end(), group.label) == labels.end())
        labels.push_back(group.label);
  return labels;
}

// --- paired differences

const ComparedGroup& group_called(const Comparison& comparison, const std::string& name) {
  std::vector<std::string> known;
  std::vector<const ComparedGroup*> found;
  for (const ComparedGroup& group : comparison.groups) {
    if (group.label == name) return group;
    if (group.strategy == name) found.push_back(&group);
    known.push_back(group.label);
  }
  if (found.size() == 1) return *found.front();
  if (found.empty())
    throw ConfigError("paired", "'" + comparison.suite + "' has no row '" + name + "'",
                      suggestion(name, known));
  std::string rows;
  for (const ComparedGroup* group : found) rows.append(rows.empty() ? "" : ", ").append(group->label);
  throw ConfigError("paired", "'" + name + "' names several rows: " + rows, "give a row's whole name");
}

const ComparedRun& run_of(const ComparedGroup& group, std::uint64_t seed,
                          const std::vector<ComparedRun>& runs) {
  for (std::size_t r = 0; r < group.seeds.size(); ++r)
    if (group.seeds[r] == seed)
      for (const ComparedRun& run : runs)
        if (run.path == group.runs[r]) return run;
  throw ConfigError("paired", group.label + " has no run with seed " + std::to_string(seed));
}

/// The stage whose scores are a task's final ones: the last; its own where each task was trained alone.
std::int64_t final_stage(const RunResult& run, std::int64_t task) {
  return run.strategy == "single" ? run.matrix.learned_at(task) : run.matrix.stages();
}

double final_score(const ComparedRun& run, std::int64_t task) {
  const AccuracyMatrix& matrix = run.result.matrix;
  const auto cell = matrix.at(final_stage(run.result, task), task);
  if (!cell)
    throw DataError(run.path,
                    "has no final score of '" + matrix.names()[static_cast<std::size_t>(task)] + "'",
                    "finish the run first");
  return *cell;
}

using RowScores = std::map<std::string, double>;  ///< percent by question id

/// Nothing where the run keeps no predictions.
std::optional<RowScores> row_scores(const ComparedRun& run, std::int64_t task) {
  std::error_code ignored;
  const fs::path file = predictions_file(folder_of(run.path), final_stage(run.result, task),
                                         run.result.matrix.names()[static_cast<std::size_t>(task)]);
  if (!fs::exists(file, ignored)) return {};
  const std::string text = read_file(file);
  RowScores scores;
  std::int64_t number = 0;
  for (std::string_view rest = text; !rest.empty();) {
    const std::string where = file.string() + ":" + std::to_string(++number);
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (trimmed(line).empty()) continue;
    const Json row = parse_json(line, where);
    const double score = json_number(row, "score", where);
    if (!std::isfinite(score)) throw DataError(where, "the score is not a number");
    if (!scores.emplace(json_text(row, "question_id", where), 100.0 * score).second)
      throw DataError(where, "question_id is there twice");
  }
  return scores;
}

/// Whether the cell is the mean of its rows' scores; a score over the whole test set (CIDEr) is not.
bool is_mean(const RowScores& scores, double cell) {
  constexpr double kRounding = 1e-6;
  double sum = 0.0;
  for (const auto& [id, score] : scores) sum += score;
  return !scores.empty() && std::abs(sum / static_cast<double>(scores.size()) - cell) <= kRounding;
}

using Pairs = std::vector<std::pair<const ComparedRun*, const ComparedRun*>>;
constexpr double kTieBelow = 1e9;  // differences that rounding alone tells apart are ties

/// Runs of the same seed. @param seeds receives them, ascending
Pairs paired_runs(const ComparedGroup& left, const ComparedGroup& right, const std::vector<ComparedRun>& runs,
                  std::vector<std::uint64_t>& seeds) {
  Pairs pairs;
  for (const std::uint64_t seed : std::set<std::uint64_t>(left.seeds.begin(), left.seeds.end())) {
    if (std::find(right.seeds.begin(), right.seeds.end(), seed) == right.seeds.end()) continue;
    seeds.push_back(seed);
    pairs.emplace_back(&run_of(left, seed, runs), &run_of(right, seed, runs));
  }
  if (pairs.empty())
    throw ConfigError("paired", left.label + " and " + right.label + " have no seed in common",
                      "differences need runs of the same seed");
  return pairs;
}

/// Fills a line's means; the differences of the scores, [seed][1].
std::vector<std::vector<double>> seed_differences(const Pairs& pairs, std::int64_t task, PairedLine& line) {
  std::vector<std::vector<double>> out;
  for (const auto& [one, other] : pairs) {
    const double x = final_score(*one, task), y = final_score(*other, task);
    line.a += x / static_cast<double>(pairs.size());
    line.b += y / static_cast<double>(pairs.size());
    out.push_back({x - y});
  }
  line.difference = line.a - line.b;
  return out;
}

/// Differences of the rows of one task, [seed][row]; empty where rows cannot be told.
std::vector<std::vector<double>> row_differences(const Pairs& pairs, std::int64_t task,
                                                 std::vector<std::string>& notes) {
  const std::string& name = pairs.front().first->result.matrix.names()[static_cast<std::size_t>(task)];
  std::vector<std::vector<double>> out;
  std::vector<std::string> ids;
  for (const auto& [a, b] : pairs) {
    const std::optional<RowScores> left = row_scores(*a, task), right = row_scores(*b, task);
    if (!left || !right) {
      notes.push_back("no interval over rows for " + name + ": " + (left ? b : a)->path +
                      " keeps no predictions");
      return {};
    }
    if (!is_mean(*left, final_score(*a, task)) || !is_mean(*right, final_score(*b, task))) {
      notes.push_back("no interval over rows for " + name +
                      ": its score is not the mean of its rows' scores");
      return {};
    }
    std::vector<double>& rows = out.emplace_back();
    std::vector<std::string> own;
    for (const auto& [id, score] : *left) {
      const auto other = right->find(id);
      if (other == right->end() || right->size() != left->size())
        throw DataError(b->path, "answers other test rows of '" + name + "' than " + a->path,
                        "pairs need the same test set");
      rows.push_back(score - other->second);
      own.push_back(id);
    }
    if (ids.empty()) ids = own;
    if (own != ids)
      throw DataError(a->path, "answers other test rows of '" + name + "' than with another seed");
  }
  return out;
}

/// Draws for all tasks at once, so that the mean over tasks has the same resamples.
/// @param rows by task, empty where a task's rows cannot be told; @param means [task][seed][1]
void add_intervals(PairedComparison& paired, const PairedDifferences& rows, const PairedDifferences& means,
                   const BootstrapOptions& options) {
  const bool seeds = means.front().size() > 1;
  std::vector<std::size_t> told;
  PairedDifferences told_rows;
  for (std::size_t j = 0; j < rows.size(); ++j)
    if (!rows[j].empty()) {
      told.push_back(j);
      told_rows.push_back(rows[j]);
    }
  Progress progress("bootstrap", (seeds ? 1 : 0) + (told.empty() ? 0 : seeds ? 2 : 1), "passes");
  const auto put = [&](std::optional<Interval> PairedLine::*kind, const PairedIntervals& found,
                       const std::vector<std::size_t>& places) {
    for (std::size_t i = 0; i < places.size(); ++i) paired.lines[places[i]].*kind = found.tasks[i];
    if (places.size() == rows.size()) paired.lines.back().*kind = found.mean;
    progress.advance();
  };
  std::vector<std::size_t> all(rows.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  if (seeds) put(&PairedLine::seeds, paired_bootstrap(means, Resampled::seeds, options), all);
  if (told.empty()) return;
  put(&PairedLine::rows, paired_bootstrap(told_rows, Resampled::rows, options), told);
  if (seeds) put(&PairedLine::both, paired_bootstrap(told_rows, Resampled::rows_and_seeds, options), told);
}

}  // namespace

std::optional<RankTable> rank_strategies(const std::vector<Comparison>& comparisons, double alpha) {
  constexpr std::size_t kFewest = 3;
  RankTable out;
  out.alpha = alpha;
  out.labels = method_labels(comparisons);
  if (out.labels.size() < kFewest) return {};
  std::vector<std::vector<double>> blocks;
  std::size_t incomplete = 0;
  for (const Comparison& comparison : comparisons) {
    const auto acc = acc_by_seed(comparison);
    std::set<std::uint64_t> seeds;
    for (const auto& [label, by_seed] : acc)
      for (const auto& [seed, value] : by_seed) seeds.insert(seed);
    for (const std::uint64_t seed : seeds) {
      std::vector<double> block;
      for (const std::string& label : out.labels)
        if (const auto known = acc.find(label); known != acc.end() && known->second.contains(seed))
          block.push_back(known->second.at(seed));
      if (block.size() == out.labels.size())
        blocks.push_back(std::move(block));
      else
        ++incomplete;
    }
  }
  if (blocks.size() < 2) return {};
  out.test = friedman(blocks, alpha);
  if (incomplete > 0)
    out.notes.push_back(std::to_string(incomplete) +
                        " blocks are left out: not every strategy has a run in them");
  out.notes.emplace_back(
      "a block is one suite, order and seed; seeds of one suite share its data and its base");
  return out;
}

std::vector<OrderTable> order_tables(const std::vector<Comparison>& comparisons) {
  std::map<std::string, std::vector<const Comparison*>> suites;  // of the same set of tasks
  for (const Comparison& comparison : comparisons) {
    std::vector<std::string> tasks = comparison.tasks;
    std::sort(tasks.begin(), tasks.end());
    std::string key = comparison.suite;
    for (const std::string& task : tasks) key += '\n' + task;
    suites[key].push_back(&comparison);
  }
  std::vector<OrderTable> out;
  for (const auto& [key, orders] : suites) {
    OrderTable table{orders.front()->suite, {}, {}};
    std::vector<Comparison> all;
    for (const Comparison* order : orders) all.push_back(*order);
    for (const std::string& label : method_labels(all)) {
      std::vector<double> means;
      for (const Comparison* order : orders)
        for (const ComparedGroup& group : order->groups)
          if (const auto acc = find_column(*order, "acc"); acc && group.label == label && group.values[*acc])
            means.push_back(group.values[*acc]->mean);
      if (const auto value = order_sensitivity(means)) {
        table.labels.push_back(label);
        table.values.push_back(*value);
      }
    }
    if (!table.labels.empty()) out.push_back(std::move(table));
  }
  return out;
}

PairedComparison compare_pair(const Comparison& comparison, const std::vector<ComparedRun>& runs,
                              const std::string& a, const std::string& b, const BootstrapOptions& options) {
  const ComparedGroup &left = group_called(comparison, a), &right = group_called(comparison, b);
  if (&left == &right) throw ConfigError("paired", "'" + a + "' and '" + b + "' are the same row");
  PairedComparison out{comparison.suite, left.label, right.label, {}, options.level, {}, {}, {}};
  const Pairs pairs = paired_runs(left, right, runs, out.seed_list);
  PairedDifferences rows, means;
  std::vector<double> differences;
  PairedLine mean{"mean", 0.0, 0.0, 0.0, {}, {}, {}};
  const auto tasks = static_cast<double>(comparison.tasks.size());
  for (std::size_t j = 0; j < comparison.tasks.size(); ++j) {
    const auto task = static_cast<std::int64_t>(j);
    PairedLine line{comparison.tasks[j], 0.0, 0.0, 0.0, {}, {}, {}};
    means.push_back(seed_differences(pairs, task, line));
    rows.push_back(row_differences(pairs, task, out.notes));
    mean.a += line.a / tasks;
    mean.b += line.b / tasks;
    differences.push_back(std::round(line.difference * kTieBelow) / kTieBelow);
    out.lines.push_back(std::move(line));
  }
  mean.difference = mean.a - mean.b;
  out.lines.push_back(std::move(mean));
  add_intervals(out, rows, means, options);
  out.wilcoxon = wilcoxon_signed_rank(differences);
  constexpr std::size_t kFewSeeds = 5;
  if (pairs.size() > 1 && pairs.size() < kFewSeeds)
    out.notes.push_back("intervals over " + std::to_string(pairs.size()) +
                        " seeds are too narrow: so few cannot show how much seeds differ");
  return out;
}

}  // namespace mcit
