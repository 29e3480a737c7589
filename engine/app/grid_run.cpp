#include "app/grid_run.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "app/commands.hpp"
#include "app/grid_process.hpp"
#include "app/grid_view.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "metrics/result.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

/// Every task was evaluated after this stage.
bool has_row(const RunResult& result, std::int64_t stage) {
  if (stage > result.matrix.stages()) return false;
  for (std::int64_t j = 0; j < result.matrix.tasks(); ++j)
    if (!result.matrix.at(stage, j)) return false;
  return true;
}

JobState state_of(const GridJob& job) {
  try {
    if (fs::exists(job.folder / "result.json")) {
      const RunResult result = read_result(job.folder);
      if (result.complete || (job.until > 0 && has_row(result, job.until))) return JobState::done;
    }
  } catch (const DataError&) {  // a resume says what is wrong with it, or writes it anew
  }
  return fs::exists(job.folder / "config.toml") ? JobState::begun : JobState::fresh;
}

std::vector<std::string> arguments_of(const GridJob& job) {
  std::vector<std::string> out = {job.verb};
  if (state_of(job) != JobState::fresh) {
    out.insert(out.end(), {"--resume", job.folder.string()});
  } else {
    out.insert(out.end(), job.settings.begin(), job.settings.end());
    out.insert(out.end(), {"--out", job.folder.string()});
    if (fs::exists(job.folder) && job.verb == "run")
      out.emplace_back("--overwrite");  // killed before it began
    if (!job.beginning.empty()) out.insert(out.end(), {"--begin-with", job.beginning.string()});
  }
  if (job.until > 0) out.insert(out.end(), {"--until", std::to_string(job.until)});
  return out;
}

/// Starts jobs as soon as those they wait for have ended and a place is free.
class Scheduler {
 public:
  Scheduler(const std::vector<GridJob>& jobs, std::size_t at_once, const std::vector<std::string>& devices)
      : jobs_(jobs),
        at_once_(at_once),
        devices_(devices),
        load_(devices.size(), 0),
        states_(jobs.size(), State::waiting),
        view_(jobs.size(), work_of(jobs), at_once) {}

  std::vector<GridFailure> run() {
    while (true) {
      if (!interrupted()) start_ready();
      if (running_.empty()) break;
      if (interrupted() && !std::exchange(told_, true))
        for (const GridProcess& process : processes_) process.ask_to_stop();
      listen();
      view_.draw(running_);
    }
    return std::move(failures_);
  }

 private:
  enum class State { waiting, running, done, failed };

  static double work_of(const std::vector<GridJob>& jobs) {
    double work = 0.0;
    for (const GridJob& job : jobs) work += job.work;
    return work;
  }

  bool is_over(std::size_t job) const { return states_[job] == State::done || states_[job] == State::failed; }

  void start_ready() {
    for (std::size_t i = 0; i < jobs_.size() && running_.size() < at_once_; ++i) {
      const GridJob& job = jobs_[i];
      if (states_[i] != State::waiting ||
          !std::all_of(job.after.begin(), job.after.end(), [&](std::size_t j) { return is_over(j); }))
        continue;
      if (job.begins_with && !is_over(*job.begins_with)) continue;
      if (job.begins_with && states_[*job.begins_with] == State::failed) {
        const std::string why = "its beginning, '" + jobs_[*job.begins_with].name + "', failed";
        view_.skipped(job, why);
        states_[i] = State::failed;
        failures_.push_back({job.name, why});
        continue;
      }
      start(i);
    }
  }

  void start(std::size_t i) {
    std::string device;
    if (!devices_.empty()) {
      const auto least = std::min_element(load_.begin(), load_.end());
      ++*least;
      device = devices_[static_cast<std::size_t>(least - load_.begin())];
    }
    states_[i] = State::running;
    running_.push_back({.job = &jobs_[i], .device = device, .last = "starting", .failure = {}, .clock = {}});
    processes_.emplace_back(arguments_of(jobs_[i]), device);
  }

  void listen() {
    constexpr int kWait = 200;  // ms
    const std::vector<bool> ready = wait_for_output(processes_, kWait);
    for (std::size_t i = processes_.size(); i-- > 0;) {
      if (!ready[i]) continue;
      if (processes_[i].read([&](const std::string& line) { view_.line(running_[i], line); })) continue;
      end(i);
    }
  }

  void end(std::size_t i) {
    const std::string trouble = processes_[i].finish();
    const RunningJob ended = std::move(running_[i]);
    processes_.erase(processes_.begin() + static_cast<std::ptrdiff_t>(i));
    running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(i));
    if (!ended.device.empty())
      --load_[static_cast<std::size_t>(std::find(devices_.begin(), devices_.end(), ended.device) -
                                       devices_.begin())];
    states_[static_cast<std::size_t>(ended.job - jobs_.data())] =
        trouble.empty() ? State::done : State::failed;
    if (!trouble.empty() && !interrupted())
      failures_.push_back({ended.job->name, ended.failure.empty() ? trouble : ended.failure});
    if (!interrupted()) view_.ended(ended, trouble.empty(), running_);
  }

  const std::vector<GridJob>& jobs_;
  std::size_t at_once_;
  const std::vector<std::string>& devices_;
  std::vector<int> load_;
  std::vector<State> states_;
  GridView view_;
  std::vector<RunningJob> running_;
  std::vector<GridProcess> processes_;  ///< of running_, in the same order
  std::vector<GridFailure> failures_;
  bool told_ = false;  ///< the runs know that they are to stop
};

bool is_set(const std::vector<std::string>& sets, const std::string& key) {
  return std::any_of(sets.begin(), sets.end(),
                     [&](const std::string& set) { return set.starts_with(key + "="); });
}

/// Settings that every run of the grid has to have in common, whenever it is started.
void add_common(Grid& grid, const GridOptions& options, std::size_t at_once, const Json& before) {
  const bool own = is_set(grid.sets, "threads") ||
                   std::any_of(grid.entries.begin(), grid.entries.end(),
                               [](const GridEntry& entry) { return is_set(entry.sets, "threads"); });
  std::vector<std::string> first;
  if (!options.devices.empty() && options.devices.front() != "cpu") first.emplace_back("device=cuda");
  if (!own) {
    const auto cores = static_cast<std::size_t>(hardware().usable_cores);
    std::string threads = "threads=" + std::to_string(std::max<std::size_t>(1, cores / at_once));
    if (before.is_object() && before.contains("set"))
      for (const Json& set : before["set"])
        if (set.is_string() && set.get<std::string>().starts_with("threads=")) threads = set;
    first.push_back(threads);
  }
  grid.sets.insert(grid.sets.begin(), first.begin(), first.end());
}

int open_lock(const fs::path& file, int flags) {
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | flags, 0666);
  if (descriptor < 0)
    throw ConfigError(file.parent_path().string(), std::string("cannot be written: ") + std::strerror(errno));
  return descriptor;
}

}  // namespace

GridLock::GridLock(const fs::path& out) {
  std::error_code error;
  fs::create_directories(out, error);
  if (error) throw ConfigError(out.string(), "cannot make the folder: " + error.message());
  own_ = open_lock(out / ".mcit-grid", O_CLOEXEC);
  if (::flock(own_, LOCK_EX | LOCK_NB) != 0) {
    ::close(own_);
    throw ConfigError(out.string(), "another process is running this grid",
                      "wait for it, or choose another --out");
  }
  runs_ = open_lock(out / ".mcit-grid-runs", 0);
  for (bool told = false; ::flock(runs_, LOCK_EX | LOCK_NB) != 0;) {
    if (!std::exchange(told, true)) log::info("waiting for runs that an earlier process left to save");
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    if (interrupted()) {
      ::close(runs_);
      ::close(own_);
      throw Interrupted();
    }
  }
}

GridLock::~GridLock() {
  ::close(runs_);
  ::close(own_);
}

GridOutcome run_grid(Grid grid, const GridOptions& options) {
  const GridLock lock(grid.out);
  const fs::path record = grid.out / "grid.json";
  const Json before = fs::exists(record) ? read_json(record) : Json();
  std::size_t at_once = options.jobs;
  if (at_once == 0)
    at_once = options.devices.empty() || options.devices.front() == "cpu"
                  ? static_cast<std::size_t>(std::max(1, hardware().usable_cores))
                  : options.devices.size();
  add_common(grid, options, at_once, before);
  const Json now = describe_grid(grid);
  write_json(record, before.is_null() ? now : merge_descriptions(before, now, grid.out.string()));

  GridOutcome outcome{.plan = plan_grid(grid), .complete = {}, .failures = {}};
  const std::vector<GridJob> jobs = pending_jobs(outcome.plan, state_of);
  const auto whole = [](const GridJob& job) { return job.until == 0; };
  const auto all = std::count_if(outcome.plan.begin(), outcome.plan.end(), whole),
             left = std::count_if(jobs.begin(), jobs.end(), whole);
  std::string text = std::to_string(all) + (all == 1 ? " run" : " runs") + " on " + grid.suite + " in " +
                     grid.out.string() + ", " + std::to_string(all - left) + " done before, " +
                     std::to_string(at_once) + " at a time";
  if (const auto shared = static_cast<std::ptrdiff_t>(jobs.size()) - left; shared > 0)
    text += ", " + std::to_string(shared) + (shared == 1 ? " beginning" : " beginnings") + " shared";
  log::info(text);
  outcome.failures = Scheduler(jobs, at_once, options.devices).run();
  if (interrupted()) {
    log::warn("interrupted; the same command goes on where it stopped");
    throw Interrupted();
  }
  for (const GridJob& job : outcome.plan)
    if (job.until == 0 && state_of(job) == JobState::done) outcome.complete.push_back(job.folder);
  return outcome;
}

void report_failures(const GridOutcome& outcome, const GridOptions& options) {
  if (outcome.failures.empty()) return;
  for (const GridFailure& failure : outcome.failures) log::info(failure.name, ": ", failure.why);
  std::string names;
  for (const GridFailure& failure : outcome.failures) names += (names.empty() ? "" : ", ") + failure.name;
  log::error(options.command, ": these runs failed: ", names,
             "; their lines above say why, the same command goes on");
  throw CheckFailed{};
}

}  // namespace mcit
