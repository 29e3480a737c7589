#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "app/prefix.hpp"
#include "app/workload.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/run_dir.hpp"
#include "core/system.hpp"
#include "mcit/abi.hpp"
#include "mcit/build_tag.hpp"
#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"
#include "plugin/catalogue.hpp"
#include "report/comparison.hpp"
#include "report/heatmap.hpp"
#include "report/table_plot.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string config, suite, strategy, out, resume, begin_with, model, data, device;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> sets, plugin_dirs, order;
  bool overwrite = false;
  std::int64_t stop_after = 0, until = 0;
};

/// Everything a run is made of, in the order it is read; the resolved settings are what resume compares.
struct Settings {
  std::string suite, model, device, dtype, strategy, label;
  std::vector<std::string> order;
  std::filesystem::path data, out, adapter;
  std::uint64_t seed = 1;
  std::int64_t threads = 0, loader_threads = 1, feature_memory_mb = 2048;
  bool cell_cache = true;
  std::optional<bool> pad_square;  ///< instead of the suite's
  std::string prompt_template;
  double epochs = 0.0;
  std::int64_t max_steps = 0, max_new_tokens = 0;  ///< at most so many of a task, of an answer; 0 = no limit
  std::vector<std::filesystem::path> plugin_path;
  std::map<std::string, Params::Value> params;
  LoopOptions loop;
};

std::string quoted(const std::string& text) { return Json(text).dump(); }

Config gather(const Flags& flags) {
  Config config = flags.config.empty() ? Config::parse("", "command line") : Config::read(flags.config);
  const auto set = [&](const std::string& key, const std::string& value) {
    if (!value.empty()) config.set(key + "=" + quoted(value));
  };
  set("suite", flags.suite);
  set("strategy.name", flags.strategy);
  set("model", flags.model);
  set("device", flags.device);
  if (!flags.data.empty()) set("data", std::filesystem::absolute(flags.data).string());
  if (!flags.out.empty()) set("out", std::filesystem::absolute(flags.out).string());
  if (flags.seed) config.set("seed=" + std::to_string(*flags.seed));
  if (!flags.order.empty()) config.set("order=" + Json(flags.order).dump());
  for (const std::string& assignment : flags.sets) config.set(assignment);
  std::vector<std::string> folders;
  for (const std::string& folder : flags.plugin_dirs)
    folders.push_back(std::filesystem::absolute(folder).lexically_normal().string());
  for (const std::filesystem::path& folder : config.child("plugins").paths("path"))
    folders.push_back(folder.string());
  if (!folders.empty()) config.set("plugins.path=" + Json(folders).dump());
  return config;
}

/// A resumed run goes on with what it began with; what would change its numbers is refused instead of
/// ignored.
Config resumed(const Flags& flags) {
  const bool more = !flags.config.empty() || !flags.suite.empty() || !flags.strategy.empty() ||
                    !flags.out.empty() || !flags.model.empty() || !flags.data.empty() ||
                    !flags.device.empty() || flags.seed || !flags.sets.empty() || !flags.order.empty() ||
                    flags.overwrite || !flags.begin_with.empty();
  if (more)
    throw ConfigError("--resume", "goes on with the settings that the run began with",
                      "leave out everything but --plugin-dir, --stop-after and --until, or start a new run");
  return Config::read(std::filesystem::path(flags.resume) / "config.toml");
}

Settings read_settings(const Config& config) {
  Settings s;
  s.suite = config.name_or_path("suite", "mini4");
  s.model = config.name_or_path("model", "mini");
  s.device = config.text("device", "cpu");
  s.dtype = config.choice("dtype", "auto", {"auto", "float32", "bfloat16", "float16"});
  s.label = config.text("label", "");
  s.order = config.texts("order", {});
  s.data = config.path("data", "");
  s.adapter = config.path("adapter", "");
  s.out = config.path("out", "");
  s.seed = static_cast<std::uint64_t>(config.integer("seed", 1, 0));
  s.threads = config.integer("threads", 0, 0, 1024);
  const Config strategy = config.child("strategy");
  s.strategy = strategy.text("name", "sequential");
  s.params = strategy.params();
  s.params.erase("name");
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
  const Config data = config.child("loader");
  s.loader_threads = data.integer("threads", 1, 1, 256);
  s.feature_memory_mb = data.integer("feature_memory_mb", s.feature_memory_mb, 0);
  if (data.has("pad_square")) s.pad_square = data.flag("pad_square", false);
  s.prompt_template = data.text("template", "");
  s.plugin_path = config.child("plugins").paths("path");
  config.finish();
  s.loop.seed = s.seed;
  return s;
}

RunDir open_run(const Flags& flags, Settings& s) {
  if (!flags.resume.empty()) return RunDir::open(flags.resume);
  if (s.out.empty()) {
    s.out = std::filesystem::path("runs") /
            (s.suite.ends_with(".toml") ? std::filesystem::path(s.suite).stem().string() : s.suite) /
            (s.strategy + "-" + std::to_string(s.seed));
  }
  return flags.overwrite ? RunDir::overwrite(s.out) : RunDir::create(s.out);
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

/// The settings of a fresh run hold the command line's plugin folders already; those of a resumed run hold
/// the ones it began with.
Catalogue find_plugins(const Flags& flags, const Settings& s) {
  std::vector<std::filesystem::path> more;
  if (!flags.resume.empty()) more.assign(flags.plugin_dirs.begin(), flags.plugin_dirs.end());
  Catalogue catalogue(plugin_folders(more, s.plugin_path));
  catalogue.announce();
  return catalogue;
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

Suite with_short_answers(Suite suite, std::int64_t most) {
  for (SuiteTask& task : suite.tasks)
    if (most > 0) task.max_new_tokens = std::min(task.max_new_tokens, most);
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

/// Everything a run needs, read and checked before its folder exists: what is wrong leaves nothing behind.
struct Prepared {
  at::Device device;
  int threads;
  Catalogue catalogue;
  const PluginReport& provider;  ///< of the strategy
  Suite suite;
  Workload work;
  RunResult head;  ///< what the result says before the first stage
  Params params;   ///< of the strategy
  std::vector<Stage> stages;
  bool causal;  ///< the strategy's stages do not depend on tasks to come

  Prepared(const Flags& flags, const Settings& s)
      : device(open_device(s.device)),
        threads(set_threads(s.threads)),
        catalogue(find_plugins(flags, s)),
        provider(catalogue.provider(s.strategy)),
        suite(with_short_answers(open_suite(s.suite, s.order, s.data), s.max_new_tokens)),
        work(open_workload(suite,
                           {.model = s.model,
                            .device = device,
                            .dtype = s.dtype == "auto" ? std::nullopt : std::optional(dtype_named(s.dtype)),
                            .pad_square = s.pad_square.value_or(suite.pad_square),
                            .prompt_template = s.prompt_template,
                            .adapter = s.adapter,
                            .feature_memory = static_cast<std::uint64_t>(s.feature_memory_mb) << 20,
                            .loader_threads = static_cast<int>(s.loader_threads)})),
        params(s.params, "strategy") {
    head.provenance.data = work.data;
    for (std::size_t j = 0; j < work.tasks.size(); ++j) {
      StreamTask& task = work.tasks[j];
      task.steps = steps_of(task, suite.tasks[j].epochs, s);
      head.tasks.push_back({task.info.name, task.info.test_examples, suite.tasks[j].chance,
                            std::string(task.eval.scorer->name)});
    }
    // Made once, and shown the stream, before anything is on disk: wrong settings stop the run here.
    QuietHost host;
    const StrategyPtr strategy = catalogue.create(s.strategy, params, host);
    StreamInfo stream{.tasks = {}, .seed = s.seed, .backbone = work.model->info()};
    for (const StreamTask& task : work.tasks) stream.tasks.push_back(task.info);
    HookRunner hooks(*strategy, s.strategy);
    hooks.on_stream_begin(stream);
    stages = hooks.plan(stream);
    causal = dynamic_cast<const Causal*>(strategy.get()) != nullptr;
  }
};

/// @param config the settings in effect, as the run's folder keeps them
void describe(Prepared& run, const Settings& s, const std::string& command_line, const std::string& config) {
  RunResult& head = run.head;
  head.suite = run.suite.name;
  head.strategy = s.strategy;
  head.seed = s.seed;
  Provenance& p = head.provenance;
  p.command = command_line;
  p.config = config;
  p.seeds = {{"run", std::to_string(s.seed)}};
  p.build = build_info();
  p.build_tag = MCIT_BUILD_TAG;
  p.plugin_file = run.provider.file.filename().string();
  p.plugin_hash = run.provider.hash;
  p.model = s.model;
  p.model_hash = run.work.model_hash;
  p.device = run.device.str();
  p.dtype = at::toString(run.work.model->dtype());
  p.threads = run.threads;
  p.hardware = hardware();
  p.started = utc_now();
}

void run_command(const Flags& flags, const std::string& command_line) {
  const bool fresh = flags.resume.empty();
  Config config = fresh ? gather(flags) : resumed(flags);
  Settings s = read_settings(config);
  Prepared run(flags, s);
  config.child("strategy").adopt(run.params.resolved());

  if (s.cell_cache) s.loop.cell_cache = user_cache_dir() / "cells";
  s.loop.engine_hash = engine_hash();
  s.loop.strategy_hash =
      Hasher().field(run.provider.hash).field(s.strategy).field(config.child("strategy").resolved()).hex();
  s.loop.stop_after = flags.stop_after;
  s.loop.stages = stages_of(run.suite);
  s.loop.last_stage = flags.until;

  RunDir dir = open_run(flags, s);
  log::add_file(dir.log());
  const std::string settings = fresh ? config.resolved() : read_file(dir.config());
  describe(run, s, command_line, settings);
  if (!flags.begin_with.empty()) begin_with(flags.begin_with, {dir, run.head, run.stages, run.causal});
  if (fresh) write_atomic(dir.config(), settings);  // from here on there is something to resume

  Workload& work = run.work;
  TaskLoop loop({*work.model, work.model_hash, work.tasks, work.probe, work.stores.tower.get(), dir}, s.loop);
  const StrategyPtr strategy = run.catalogue.create(s.strategy, run.params, loop.host());
  log::info("strategy '", s.strategy, "', suite '", run.suite.name, "' (", work.tasks.size(),
            " tasks), seed ", s.seed, ", ", run.device.str(), ", ", run.threads,
            run.threads == 1 ? " thread" : " threads");
  const Stopwatch watch;
  try {
    const RunResult done = loop.run(*strategy, s.strategy, run.head, !fresh || !flags.begin_with.empty());
    write_views(dir, done);
    std::cout << comparison_terminal(compare_runs({{dir.root().string(), done}}),
                                     console::width(console::Stream::out),
                                     console::colours(console::Stream::out));
    log::info(done.complete ? "done in " : "stopped after the stages asked for, ",
              duration_text(watch.seconds()), ": ", dir.root().string());
    if (!done.complete) log::info("go on with: mcit run --resume ", dir.root().string());
  } catch (const Interrupted&) {
    log::warn("interrupted; everything up to here is saved. Go on with: mcit run --resume ",
              dir.root().string());
    throw;
  }
}

}  // namespace

void add_run(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("run", "Stream a suite's tasks through a model with one strategy");
  command->add_option("CONFIG", flags->config, "Run settings as TOML; flags win over the file")
      ->type_name("")
      ->check(CLI::ExistingFile);
  command->add_option("--strategy", flags->strategy, "Name of a strategy (mcit plugins lists them)")
      ->type_name("NAME");
  command->add_option("--suite", flags->suite, "Name of a suite or its TOML file [mini4]")
      ->type_name("NAME|FILE");
  command->add_option("--seed", flags->seed, "Seed of everything random [1]")->type_name("N");
  command->add_option("--out", flags->out, "Folder of the run [runs/SUITE/STRATEGY-SEED]")->type_name("DIR");
  command->add_option("--model", flags->model, "Model folder in Hugging Face form, or mini [mini]")
      ->type_name("DIR|NAME");
  command->add_option("--data,--root", flags->data, "Folder with the suite's files [in MCIT_DATA's folders]")
      ->type_name("DIR");
  command->add_option("--order", flags->order, "Tasks in this order, a subset allowed, e.g. geo,vqa")
      ->delimiter(',')
      ->type_name("TASKS");
  command->add_option("--device", flags->device, "cpu, cuda or cuda:N [cpu]")->type_name("NAME");
  command->add_option("--set", flags->sets, "One setting, e.g. train.lr=1e-3 (repeatable)")
      ->type_name("KEY=VALUE")
      ->take_all();
  command->add_option("--plugin-dir", flags->plugin_dirs, "Folder of strategy plugins (repeatable)")
      ->type_name("DIR");
  command->add_option("--resume", flags->resume, "Go on with the run in this folder")->type_name("DIR");
  command->add_option("--stop-after", flags->stop_after, "Stop after this many stages; --resume goes on")
      ->type_name("N");
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
  command->callback([flags] {
    std::string line;
    std::ifstream raw("/proc/self/cmdline", std::ios::binary);
    std::getline(raw, line, '\n');
    std::replace(line.begin(), line.end(), '\0', ' ');
    while (!line.empty() && line.back() == ' ') line.pop_back();
    run_command(*flags, line);
  });
}

}  // namespace mcit
