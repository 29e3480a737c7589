#include "report/comparison.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "core/config.hpp"
#include "mcit/errors.hpp"
#include "metrics/metrics.hpp"

namespace mcit {
namespace {

constexpr const char* kSingle =
    "single";  // each task alone from the base: its last row says nothing about the others

using Settings = std::map<std::string, std::string>;
using Number = std::optional<double>;

bool is_bound(const std::string& strategy) {
  return strategy == kSingle || strategy == "joint" || strategy == "zero_shot";
}

const std::vector<ComparedColumn>& fixed_columns() {
  using enum Section;
  static const std::vector<ComparedColumn> all = {
      {"acc", "ACC", quality, Better::higher, 2},
      {"maa", "MAA", quality, Better::higher, 2},
      {"mft", "MFT", quality, Better::higher, 2},
      {"bwt_T", "BWT/T", quality, Better::higher, 2},
      {"bwt_T-1", "BWT/(T-1)", quality, Better::higher, 2},
      {"forgetting_chaudhry", "forgetting", quality, Better::lower, 2},
      {"fwt_zero", "FWT zero-shot", quality, Better::higher, 2},
      {"fwt_plasticity", "plasticity", quality, Better::higher, 2},
      {"acc_restricted", "ACC restr.", quality, Better::higher, 2},
      {"bwt_T-1_restricted", "BWT/(T-1) restr.", quality, Better::higher, 2},
      {"selector_accuracy", "selector", quality, Better::higher, 2},
      {"acc_oracle", "ACC oracle id", quality, Better::higher, 2},
      {"client_accuracy", "ACC of clients", quality, Better::higher, 2},
      {"client_worst", "worst client", quality, Better::higher, 2},
      {"client_deviation", "between clients", quality, Better::lower, 2},
      {"client_forgetting", "forgetting of clients", quality, Better::lower, 2},
      {"trainable_parameters", "trainable", cost, Better::lower, 0},
      {"stored_parameters", "stored", cost, Better::lower, 0},
      {"train_seconds", "train s", cost, Better::lower, 1},
      {"eval_seconds", "eval s", cost, Better::lower, 1},
      {"examples_per_second", "samples/s", cost, Better::higher, 1},
      {"tokens_per_second", "tokens/s", cost, Better::higher, 0},
      {"peak_memory_mb", "peak MiB", cost, Better::lower, 0},
      {"round_mb_up", "MB up", cost, Better::lower, 2},
      {"round_mb_down", "MB down", cost, Better::lower, 2},
  };
  return all;
}

std::string final_key(const std::string& task) { return "final:" + task; }

Number mean_of(const std::vector<Number>& values) {
  double sum = 0.0;
  for (const Number& value : values) {
    if (!value) return {};
    sum += *value;
  }
  return values.empty() ? Number() : sum / static_cast<double>(values.size());
}

Number per_second(std::int64_t count, double seconds) {
  return seconds > 0.0 && count > 0 ? Number(static_cast<double>(count) / seconds) : Number();
}

Number if_positive(double value) { return value > 0.0 ? Number(value) : Number(); }

/// What a federated run has besides: of the clients' own models, and bytes of a round.
void add_federated(const FederatedResult& result, std::map<std::string, Number>& out) {
  constexpr double kMega = 1e6;
  const FederatedMetrics m = federated_metrics(result);
  if (m.local_accuracy) {
    out["client_accuracy"] = m.local_accuracy->mean;
    out["client_worst"] = m.local_accuracy->worst;
    out["client_deviation"] = m.local_accuracy->deviation;
  }
  if (m.forgetting) out["client_forgetting"] = m.forgetting->mean;
  if (m.rounds == 0) return;
  out["round_mb_up"] = m.bytes_up / kMega;
  out["round_mb_down"] = m.bytes_down / kMega;
}

/// Every number of one run by column key.
std::map<std::string, Number> numbers_of(const RunResult& run, const std::vector<Number>& single) {
  std::map<std::string, Number> out;
  const bool alone = run.strategy == kSingle;
  const AccuracyMatrix& matrix = run.matrix;
  const std::vector<Number> learned = scores_when_learned(matrix);
  for (std::int64_t j = 0; j < matrix.tasks(); ++j) {
    const auto at = static_cast<std::size_t>(j);
    out[final_key(matrix.names()[at])] = alone ? learned[at] : matrix.at(matrix.stages(), j);
  }
  MetricInputs inputs = run.inputs(run.matrix);
  inputs.single = single;
  const MetricInputs restricted = run.inputs(run.matrix_restricted);
  if (alone) {
    out["acc"] = mean_of(learned);
    out["acc_restricted"] = mean_of(scores_when_learned(run.matrix_restricted));
  } else {
    for (const char* name :
         {"acc", "maa", "mft", "bwt_T", "bwt_T-1", "forgetting_chaudhry", "fwt_zero", "fwt_plasticity"})
      out[name] = compute_metric(name, inputs).value;
    out["acc_restricted"] = compute_metric("acc", restricted).value;
    out["bwt_T-1_restricted"] = compute_metric("bwt_T-1", restricted).value;
    out["selector_accuracy"] = run.selector_accuracy();
    out["acc_oracle"] = compute_metric("acc", run.inputs(run.matrix_oracle)).value;
  }
  if (run.federated) add_federated(*run.federated, out);
  const StageCost cost = run.total_cost();
  out["trainable_parameters"] = static_cast<double>(cost.trainable_parameters);
  out["stored_parameters"] = static_cast<double>(cost.stored_parameters);
  out["train_seconds"] = cost.train_seconds;
  out["eval_seconds"] = cost.eval_seconds;
  out["examples_per_second"] = per_second(cost.examples, cost.train_seconds);
  out["tokens_per_second"] = per_second(cost.tokens, cost.train_seconds);
  out["peak_memory_mb"] = if_positive(cost.peak_memory_mb);
  return out;
}

/// What a run was asked to do, without what differs between seeds of the same experiment.
Settings settings_of(const ComparedRun& run) {
  Settings settings;
  try {
    settings = Config::parse(run.result.provenance.config, run.path).values();
  } catch (const ConfigError&) {  // written by somebody else: the strategy's name has to do
    return {};
  }
  std::erase_if(settings, [](const auto& entry) {
    const std::string name = entry.first.substr(entry.first.rfind('.') + 1);
    return name == "seed" || name == "out";
  });
  return settings;
}

struct Group {
  std::string strategy;
  std::string profile;
  Settings settings;
  std::vector<const ComparedRun*> runs;
};

/// Names groups of the same strategy by the settings in which they differ.
std::string name_of(const Group& group, const std::vector<Group>& all) {
  if (const auto own = group.settings.find("label"); own != group.settings.end() && own->second.size() > 2)
    return own->second.substr(1, own->second.size() - 2);  // as TOML, in quotes
  std::set<std::string> differing;
  bool alone = true;
  for (const Group& other : all) {
    if (other.strategy != group.strategy || other.settings == group.settings) continue;
    alone = false;
    for (const auto& [key, value] : group.settings) {
      const auto found = other.settings.find(key);
      if (found == other.settings.end() || found->second != value) differing.insert(key);
    }
    for (const auto& [key, value] : other.settings)
      if (!group.settings.contains(key)) differing.insert(key);
  }
  if (alone) return group.strategy;
  constexpr std::size_t kMostNamed = 2;
  if (differing.empty() || differing.size() > kMostNamed)
    return group.strategy + " (" + group.runs.front()->path + ")";
  std::string what;
  for (const std::string& key : differing) {
    const auto found = group.settings.find(key);
    what.append(what.empty() ? "" : ", ").append(key.substr(key.rfind('.') + 1)).append("=");
    what.append(found == group.settings.end() ? "default" : found->second);
  }
  return group.strategy + " (" + what + ")";
}

std::string label_of(const Group& group, const std::vector<Group>& all) {
  const std::string name = name_of(group, all);
  return group.profile == "strict" ? name : name + ", scored as " + group.profile;
}

/// Whether runs that were given the same name agree wherever both say something: versions of the engine
/// differ in what settings there are.
bool same_but_for_versions(const Settings& left, const Settings& right) {
  const auto label = left.find("label"), other = right.find("label");
  if (label == left.end() || other == right.end() || label->second.size() <= 2) return false;
  return std::all_of(left.begin(), left.end(), [&right](const auto& entry) {
    const auto found = right.find(entry.first);
    return found == right.end() || found->second == entry.second;
  });
}

std::vector<Group> grouped(const std::vector<const ComparedRun*>& runs) {
  std::vector<Group> groups;
  for (const ComparedRun* run : runs) {
    const Settings settings = settings_of(*run);
    const auto same = std::find_if(groups.begin(), groups.end(), [&](const Group& group) {
      return group.strategy == run->result.strategy && group.profile == run->result.profile &&
             (group.settings == settings || same_but_for_versions(group.settings, settings));
    });
    if (same != groups.end())
      same->runs.push_back(run);
    else
      groups.push_back({run->result.strategy, run->result.profile, settings, {run}});
  }
  return groups;
}

/// S of the run "single" by the same rules, of the same seed if there is one.
std::vector<Number> single_scores(const std::vector<const ComparedRun*>& runs, const RunResult& of) {
  const ComparedRun* chosen = nullptr;
  for (const ComparedRun* run : runs)
    if (run->result.strategy == kSingle && run->result.profile == of.profile &&
        (chosen == nullptr || run->result.seed == of.seed))
      chosen = run;
  return chosen == nullptr ? std::vector<Number>() : scores_when_learned(chosen->result.matrix);
}

/// A note when a fact that should be common is not; `fact` gives a text, empty when the run does not say.
template <class Fact>
void note_if_differing(const std::vector<const ComparedRun*>& runs, const char* note, Fact fact,
                       std::vector<std::string>& notes) {
  std::set<std::string> seen;
  for (const ComparedRun* run : runs) seen.insert(fact(run->result));
  seen.erase(std::string());
  if (seen.size() > 1) notes.emplace_back(note);
}

void note_versions(const std::vector<Group>& groups, std::vector<std::string>& notes) {
  std::set<std::string> unsaid;
  const auto collect = [&unsaid](const Settings& left, const Settings& right) {
    for (const auto& [key, value] : left)
      if (!right.contains(key)) unsaid.insert(key);
  };
  for (const Group& group : groups)
    for (const ComparedRun* run : group.runs) {
      const Settings settings = settings_of(*run);
      collect(settings, group.settings);
      collect(group.settings, settings);
    }
  if (unsaid.empty()) return;
  std::string keys;
  for (const std::string& key : unsaid) keys += (keys.empty() ? "" : ", ") + key;
  notes.push_back("seeds of one row are of different versions of mcit; only some know " + keys);
}

std::vector<std::string> notes_on(const std::vector<const ComparedRun*>& runs,
                                  const std::vector<Group>& groups) {
  std::vector<std::string> notes;
  for (const ComparedRun* run : runs)
    if (!run->result.complete) notes.push_back(run->path + " is not finished");
  for (const Group& group : groups) {
    std::set<std::uint64_t> seeds;
    for (const ComparedRun* run : group.runs)
      if (!seeds.insert(run->result.seed).second)
        notes.push_back("seed " + std::to_string(run->result.seed) + " of " + group.strategy +
                        " is there twice (" + run->path + ")");
  }
  note_versions(groups, notes);
  note_if_differing(
      runs, "the runs start from different base models",
      [](const RunResult& r) { return r.provenance.model_hash; }, notes);
  note_if_differing(
      runs, "the runs read different data files",
      [](const RunResult& r) {
        std::string all;
        for (const auto& [file, hash] : r.provenance.data) all.append(hash).append(" ");
        return all;
      },
      notes);
  note_if_differing(
      runs, "the test sets differ in size",
      [](const RunResult& r) {
        std::string all;
        for (const TaskResult& task : r.tasks) all.append(std::to_string(task.test_examples)).append(" ");
        return all;
      },
      notes);
  note_if_differing(
      runs, "the runs used different machines or numbers of threads: compare costs with care",
      [](const RunResult& r) {
        return r.provenance.hardware.cpu.empty()
                   ? std::string()
                   : r.provenance.hardware.cpu + "/" + std::to_string(r.provenance.threads) + "/" +
                         std::to_string(r.provenance.processes) + "/" + r.provenance.device;
      },
      notes);
  const bool has_single =
      std::any_of(groups.begin(), groups.end(), [](const Group& g) { return g.strategy == kSingle; });
  notes.emplace_back(
      has_single
          ? "single: each task trained alone from the base; its row shows the scores right after training"
          : "plasticity needs a run of strategy single");
  return notes;
}

Comparison compare_stream(const std::vector<const ComparedRun*>& runs) {
  Comparison comparison;
  const RunResult& first = runs.front()->result;
  comparison.suite = first.suite;
  comparison.tasks = first.task_names();
  for (const TaskResult& task : first.tasks) {
    comparison.chance.push_back(task.chance);
    comparison.columns.push_back({final_key(task.name), task.name, Section::task, Better::higher, 2});
  }
  comparison.columns.insert(comparison.columns.end(), fixed_columns().begin(), fixed_columns().end());
  const std::vector<Group> groups = grouped(runs);
  for (const Group& group : groups) {
    ComparedGroup out{label_of(group, groups), group.strategy, is_bound(group.strategy), {}, {}, {}, {}};
    std::vector<std::map<std::string, Number>> numbers;
    for (const ComparedRun* run : group.runs) {
      out.seeds.push_back(run->result.seed);
      out.runs.push_back(run->path);
      numbers.push_back(numbers_of(run->result, single_scores(runs, run->result)));
    }
    for (const ComparedColumn& column : comparison.columns) {
      std::vector<double> known;
      auto& samples = out.samples.emplace_back();
      for (std::map<std::string, Number>& of_run : numbers) {
        samples.push_back(of_run[column.key]);
        if (samples.back()) known.push_back(*samples.back());
      }
      out.values.push_back(statistic(known));
    }
    comparison.groups.push_back(std::move(out));
  }
  comparison.notes = notes_on(runs, groups);
  return comparison;
}

}  // namespace

std::string metric_title(std::string_view name) {
  static const std::map<std::string_view, std::string_view> more = {
      {"forgetting_pclr", "forgetting/(T-1)"}, {"hide_last", "Last"}, {"hide_avg", "Avg"}};
  for (const ComparedColumn& column : fixed_columns())
    if (column.key == name) return column.title;
  const auto found = more.find(name);
  return std::string(found == more.end() ? name : found->second);
}

std::optional<std::size_t> find_column(const Comparison& comparison, std::string_view key) {
  for (std::size_t c = 0; c < comparison.columns.size(); ++c)
    if (comparison.columns[c].key == key) return c;
  return {};
}

std::vector<Comparison> compare_runs(const std::vector<ComparedRun>& runs) {
  std::vector<std::vector<const ComparedRun*>> streams;
  for (const ComparedRun& run : runs) {
    const auto same = std::find_if(streams.begin(), streams.end(), [&run](const auto& stream) {
      return stream.front()->result.suite == run.result.suite &&
             stream.front()->result.task_names() == run.result.task_names();
    });
    if (same != streams.end())
      same->push_back(&run);
    else
      streams.push_back({&run});
  }
  std::vector<Comparison> comparisons;
  for (const auto& stream : streams) comparisons.push_back(compare_stream(stream));
  return comparisons;
}

}  // namespace mcit
