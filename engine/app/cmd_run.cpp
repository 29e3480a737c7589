#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <optional>

#include "app/commands.hpp"
#include "app/prefix.hpp"
#include "app/run_setup.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/run_dir.hpp"
#include "core/system.hpp"
#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"
#include "report/comparison.hpp"
#include "report/heatmap.hpp"
#include "report/table_plot.hpp"

namespace mcit {
namespace {

struct Flags : RunFlags {
  std::string begin_with;
  bool overwrite = false;
  std::int64_t until = 0;
};

/// Everything a run is made of; the resolved settings are what resume compares.
struct Settings : RunSettings {
  std::string label;
  bool cell_cache = true;
  double epochs = 0.0;
  std::int64_t max_steps = 0, max_new_tokens = 0;  ///< at most so many of a task, of an answer; 0 = no limit
  LoopOptions loop;
};

/// A resumed run goes on with what it began with; what would change its numbers is refused instead of
/// ignored.
Config resumed(const Flags& flags) {
  if (flags.settings_given() || flags.overwrite || !flags.begin_with.empty())
    throw ConfigError("--resume", "goes on with the settings that the run began with",
                      "leave out everything but --plugin-dir, --stop-after and --until, or start a new run");
  return Config::read(std::filesystem::path(flags.resume) / "config.toml");
}

Settings read_settings(const Config& config) {
  Settings s{RunSettings::read(config), {}, true, 0.0, 0, 0, {}};
  s.label = config.text("label", "");
  s.adapter = config.path("adapter", "");
  const Config train = config.child("train");
  s.loop.train = read_train_options(train, s.loop.train);
  s.epochs = train.number("epochs", 0.0, 0.0);
  s.max_steps = train.integer("max_steps", 0, 0);
  const Config eval = config.child("eval");
  s.loop.eval_batch = eval.integer("batch", s.loop.eval_batch, 1, 1 << 16);
  s.loop.evaluate_base = eval.flag("base", true);
  s.cell_cache = eval.flag("cell_cache", true);
  s.max_new_tokens = eval.integer("max_new_tokens", 0, 0, 4096);
  const Config run = config.child("run");
  s.loop.snapshot_every = run.integer("snapshot_every", s.loop.snapshot_every, 0);
  s.loop.tensorboard = run.flag("tensorboard", true);
  config.finish();
  s.loop.seed = s.seed;
  return s;
}

/// @param taken_up a run that this group began before torchrun started it anew
RunDir open_run(const Flags& flags, const Settings& s, const Group& group, bool taken_up) {
  const std::filesystem::path root = flags.resume.empty() ? s.out : std::filesystem::path(flags.resume);
  if (!group.first()) return RunDir::beside(root);
  if (!flags.resume.empty() || taken_up) return RunDir::open(root);
  return flags.overwrite ? RunDir::overwrite(root) : RunDir::create(root);
}

void write_views(const RunDir& run, const RunResult& result) {
  write_atomic(run.matrix_csv(), matrix_to_csv(result.matrix, result.stage_names()));
  write_atomic(run.matrix_svg(),
               heatmap_svg(result.matrix,
                           result.strategy + " on " + result.suite + ", seed " + std::to_string(result.seed),
                           result.stage_names()));
  for (std::size_t i = 0; i < result.stages.size(); ++i)
    for (const auto& [name, table] : result.stages[i].tables)
      write_atomic(run.plot(static_cast<std::int64_t>(i) + 1, name),
                   table_svg(table, result.strategy + ": " + name + " after " + result.stages[i].name));
}

/// Steps of a task: by the settings' epochs, else by the suite's steps or epochs, else by the settings'
/// steps.
std::int64_t steps_of(const StreamTask& task, double suite_epochs, const Settings& s) {
  std::int64_t steps = task.steps > 0 ? task.steps : s.loop.train.steps;
  const double epochs = s.epochs > 0.0 ? s.epochs : task.steps > 0 ? 0.0 : suite_epochs;
  if (epochs > 0.0) {
    const double per_epoch = static_cast<double>(task.train.size()) /
                             static_cast<double>(s.loop.train.batch * s.loop.train.accumulation);
    steps = static_cast<std::int64_t>(std::max(1.0, std::ceil(per_epoch * epochs)));
  }
  return s.max_steps > 0 ? std::min(steps, s.max_steps) : steps;
}

Suite suite_of(const Settings& s) {
  Suite suite = open_suite(s);
  for (SuiteTask& task : suite.tasks)
    if (s.max_new_tokens > 0) task.max_new_tokens = std::min(task.max_new_tokens, s.max_new_tokens);
  return suite;
}

/// The suite's stages by the numbers of their tasks.
std::vector<Stage> stages_of(const Suite& suite) {
  std::vector<Stage> out;
  std::int64_t next = 0;
  for (const SuiteStage& stage : suite.stages) {
    out.push_back({stage.name, {}});
    for (std::size_t i = 0; i < stage.tasks.size(); ++i) out.back().tasks.push_back(next++);
  }
  return out;
}

struct Prepared : RunParts {
  std::vector<Stage> stages;
  bool causal;  ///< the strategy's stages do not depend on tasks to come

  Prepared(const Flags& flags, const Settings& s, const Launch& launch, const Group& group)
      : RunParts(flags, s, launch, suite_of(s)) {
    for (std::size_t j = 0; j < work.tasks.size(); ++j)
      work.tasks[j].steps = steps_of(work.tasks[j], suite.tasks[j].epochs, s);
    check_batch(s.loop.train.batch, group);
    // Made once, and shown the stream, before anything is on disk: wrong settings stop the run here.
    QuietHost host;
    const StrategyPtr strategy = catalogue.create(s.strategy, params, host);
    join_group(*strategy, s.strategy, group);
    StreamInfo stream{.tasks = {}, .seed = s.seed, .backbone = work.model->info()};
    for (const StreamTask& task : work.tasks) stream.tasks.push_back(task.info);
    HookRunner hooks(*strategy, s.strategy);
    hooks.on_stream_begin(stream);
    stages = hooks.plan(stream);
    causal = dynamic_cast<const Causal*>(strategy.get()) != nullptr;
  }
};

/// A run between its settings and its end.
struct Session {
  Flags flags;
  std::string command_line;
  Launch launch = Launch::from_environment();
  std::unique_ptr<Group> group = join_launch(launch);
  Config config{};
  Settings s{};
  std::optional<Prepared> prepared{};
  std::optional<RunDir> dir{};
  RunResult head{};
  bool goes_on = false;  ///< with a snapshot

  void prepare();
  void open_folder(bool taken_up);
  bool was_begun() const;
  RunResult train();
};

void Session::prepare() {
  const bool fresh = flags.resume.empty();
  config = fresh ? with_flags(
                       flags.config.empty() ? Config::parse("", "command line") : Config::read(flags.config),
                       flags)
                 : resumed(flags);
  s = read_settings(config);
  if (s.out.empty())
    s.out = std::filesystem::path("runs") / s.suite_name() / (s.strategy + "-" + std::to_string(s.seed));
  prepared.emplace(flags, s, launch, *group);
  config.child("strategy").adopt(prepared->params.resolved());
  if (s.cell_cache) s.loop.cell_cache = user_cache_dir() / "cells";
  s.loop.engine_hash = engine_hash();
  s.loop.strategy_hash = Hasher()
                             .field(prepared->provider.hash)
                             .field(s.strategy)
                             .field(config.child("strategy").resolved())
                             .hex();
  s.loop.stop_after = flags.stop_after;
  s.loop.stages = stages_of(prepared->suite);
  s.loop.last_stage = flags.until;
}

/// Whether torchrun started the group anew and it had begun this very run before.
bool Session::was_begun() const {
  const std::filesystem::path file = s.out / "config.toml";
  return launch.restart > 0 && flags.resume.empty() && std::filesystem::exists(file) &&
         read_file(file) == config.resolved();
}

void Session::open_folder(bool taken_up) {
  const bool fresh = flags.resume.empty() && !taken_up;
  goes_on = !fresh || !flags.begin_with.empty();
  dir.emplace(open_run(flags, s, *group, taken_up));
  const std::string settings = flags.resume.empty() ? config.resolved() : read_file(dir->config());
  head = head_of(s, prepared->suite, prepared->work, prepared->provider, prepared->threads, command_line,
                 settings, *group);
  if (!group->first()) return;
  log::add_file(dir->log());
  if (fresh && !flags.begin_with.empty())
    begin_with(flags.begin_with, {*dir, head, prepared->stages, prepared->causal});
  if (fresh) write_atomic(dir->config(), settings);  // from here on there is something to resume
}

RunResult Session::train() {
  Workload& work = prepared->work;
  TaskLoop loop({*work.model, work.model_hash, work.tasks, work.probe, work.stores.tower.get(), *dir, *group},
                s.loop);
  const StrategyPtr strategy = prepared->catalogue.create(s.strategy, prepared->params, loop.host());
  join_group(*strategy, s.strategy, *group);
  log::info("strategy '", s.strategy, "', suite '", prepared->suite.name, "' (", work.tasks.size(),
            " tasks), seed ", s.seed, ", ", prepared->device.str(), ", ",
            group->alone() ? "" : std::to_string(group->size()) + " processes of ", prepared->threads,
            prepared->threads == 1 ? " thread" : " threads");
  return loop.run(*strategy, s.strategy, head, goes_on);
}

void run_command(const Flags& flags, const std::string& command_line) {
  Session session{flags, command_line};
  const Group& group = *session.group;
  group.together([&] { session.prepare(); });
  group.set_timeout(std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * session.s.peer_timeout)));
  const bool taken_up = group.any(group.first() && session.was_begun());
  group.together([&] { session.open_folder(taken_up); });
  const std::filesystem::path& root = session.dir->root();
  const Stopwatch watch;
  try {
    const RunResult done = session.train();
    if (!group.first()) return;
    write_views(*session.dir, done);
    std::cout << comparison_terminal(compare_runs({{root.string(), done}}),
                                     console::width(console::Stream::out),
                                     console::colours(console::Stream::out));
    log::info(done.complete ? "done in " : "stopped after the stages asked for, ",
              duration_text(watch.seconds()), ": ", root.string());
    if (!done.complete) log::info("go on with: mcit run --resume ", root.string());
  } catch (const Interrupted&) {
    log::warn("interrupted; everything up to here is saved. Go on with: mcit run --resume ", root.string());
    throw;
  }
}

}  // namespace

void add_run(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("run", "Stream a suite's tasks through a model with one strategy");
  add_run_flags(*command, *flags, "Folder of the run [runs/SUITE/STRATEGY-SEED]",
                "One setting, e.g. train.lr=1e-3 (repeatable)",
                "Stop after this many stages; --resume goes on");
  command->add_option("--suite", flags->suite, "Name of a suite or its TOML file [mini4]")
      ->type_name("NAME|FILE");
  command->add_option("--order", flags->order, "Tasks in this order, a subset allowed, e.g. geo,vqa")
      ->delimiter(',')
      ->type_name("TASKS");
  command->add_option("--until", flags->until, "Stop behind this stage of the stream; --resume goes on")
      ->type_name("N");
  command
      ->add_option(
          "--begin-with", flags->begin_with,
          "Take over the first stages of this run, where it differs in the order of later tasks alone")
      ->type_name("DIR");
  command->add_flag("--overwrite", flags->overwrite, "Replace an earlier run in the output folder");
  command->footer(
      "Examples:\n  mcit run --suite mini4 --strategy sequential --seed 1 --out runs/seq\n"
      "  mcit run configs/runs/mini4.toml --strategy ewc --set strategy.lambda=1000\n"
      "  mcit run --resume runs/seq");
  command->callback([flags] { run_command(*flags, typed_command()); });
}

}  // namespace mcit
