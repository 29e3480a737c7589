#include "app/prefix.hpp"

#include <algorithm>
#include <optional>

#include "core/config.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "mcit/errors.hpp"
#include "metrics/reorder.hpp"
#include "train/snapshot.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

/// The settings that a run's numbers depend on, the order of tasks aside.
std::map<std::string, std::string> settings_of(const Provenance& provenance) {
  auto values = Config::parse(provenance.config, "config.toml").values();
  for (const char* key : {"out", "order", "label"}) values.erase(key);
  return values;
}

std::vector<std::string> sorted(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  return names;
}

template <class Tasks>
std::vector<std::string> names_of(const Tasks& tasks, const RunResult& run) {
  std::vector<std::string> names;
  for (const std::int64_t task : tasks) names.push_back(run.tasks.at(static_cast<std::size_t>(task)).name);
  return names;
}

/// Stages from the first on that both runs train with the same tasks in the same order.
std::int64_t common_stages(const RunResult& other, const NewRun& run) {
  std::size_t count = 0;
  while (count < std::min(other.stages.size(), run.stages.size()) &&
         other.stages[count].name == run.stages[count].name &&
         names_of(other.stages[count].tasks, other) == names_of(run.stages[count].tasks, run.head))
    ++count;
  return static_cast<std::int64_t>(count);
}

/// Why the snapshot's stages are not what the new run would have trained, or empty.
std::string obstacle(const RunResult& other, const Snapshot& snapshot, const NewRun& run) {
  const Provenance &a = other.provenance, &b = run.head.provenance;
  if (!run.causal) return "the strategy may look at tasks to come (it is not mcit::Causal)";
  if (other.suite != run.head.suite || other.strategy != run.head.strategy || other.seed != run.head.seed)
    return "it is of another suite, strategy or seed";
  if (sorted(other.task_names()) != sorted(run.head.task_names())) return "it has other tasks";
  if (settings_of(a) != settings_of(b)) return "it has other settings";
  if (a.model_hash != b.model_hash || a.data != b.data) return "it has another model or other data";
  if (a.build_tag != b.build_tag || a.build != b.build || a.plugin_hash != b.plugin_hash)
    return "engine or plugin were rebuilt since";
  if (a.device != b.device || a.dtype != b.dtype || a.threads != b.threads)
    return "it ran on another device, with another type or number of threads";
  const std::int64_t common = common_stages(other, run);
  if (snapshot.stage >= common)
    return "its first " + std::to_string(snapshot.stage + 1) + " stages have other tasks";
  return {};
}

RunResult translated(const RunResult& other, const Snapshot& snapshot, const NewRun& run) {
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> stages;
  for (const Stage& stage : run.stages) stages.emplace_back(stage.name, stage.tasks);
  RunResult out = make_result(run.head.suite, run.head.strategy, run.head.seed, run.head.tasks, stages);
  out.provenance = run.head.provenance;
  copy_rows(other, snapshot.stage + (snapshot.trained ? 1 : 0), out);
  return out;
}

}  // namespace

bool begin_with(const fs::path& other_folder, const NewRun& run) {
  const auto refuse = [&](const std::string& why) {
    log::warn("--begin-with ", other_folder.string(), ": ", why, "; the run begins at its first stage");
    return false;
  };
  if (!fs::is_directory(other_folder)) return refuse("is no folder");
  std::optional<Snapshot> snapshot = read_newest_snapshot(other_folder / "snapshots");
  if (!snapshot) return refuse("has no snapshot");
  write_atomic(run.dir.result(), snapshot->result);
  const RunResult other = read_result(run.dir.result());
  if (const std::string why = obstacle(other, *snapshot, run); !why.empty()) {
    fs::remove(run.dir.result());
    return refuse(why);
  }
  for (const auto& entry : fs::directory_iterator(other_folder / "predictions"))
    if (entry.path().extension() == ".jsonl")
      write_atomic(run.dir.root() / "predictions" / entry.path().filename(), read_file(entry.path()));
  write_atomic(run.dir.metrics(), read_file(other_folder / "metrics.jsonl"));
  write_result(run.dir.result(), translated(other, *snapshot, run));
  snapshot->result = read_file(run.dir.result());
  fs::create_directories(run.dir.snapshots());
  write_snapshot(run.dir.snapshots(), *snapshot);  // last: without it nothing was taken over
  log::info("begins with the first ", snapshot->stage + 1, snapshot->stage == 0 ? " stage" : " stages",
            " of ", other_folder.string());
  return true;
}

}  // namespace mcit
