#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "app/federation.hpp"
#include "app/workload.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/random.hpp"
#include "core/run_dir.hpp"
#include "core/system.hpp"
#include "core/text.hpp"
#include "mcit/abi.hpp"
#include "mcit/build_tag.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"
#include "model/device.hpp"
#include "plugin/catalogue.hpp"
#include "report/comparison.hpp"
#include "report/heatmap.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string config, strategy, model, data, device, out, resume;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> sets, plugin_dirs;
  std::int64_t stop_after = 0;
};

struct Settings {
  std::string suite, model, device, dtype, strategy, prompt_template, rule_settings;
  std::vector<std::string> order;
  std::filesystem::path data, out;
  std::int64_t threads = 0, loader_threads = 1, feature_memory_mb = 2048;
  bool pad_square = false;
  std::vector<std::filesystem::path> plugin_path;
  std::map<std::string, Params::Value> params;
  FederatedOptions loop;
  fed::FederationSettings federation;
  std::unique_ptr<fed::Aggregator> rule;
};

std::string quoted(const std::string& text) { return Json(text).dump(); }

Config gather(const Flags& flags) {
  if (!flags.resume.empty()) {
    if (!flags.config.empty() || !flags.sets.empty() || !flags.strategy.empty() || !flags.model.empty() ||
        !flags.data.empty() || !flags.device.empty() || !flags.out.empty() || flags.seed)
      throw ConfigError("--resume", "goes on with the settings that the run began with",
                        "leave out everything but --plugin-dir and --stop-after, or start a new run");
    return Config::read(std::filesystem::path(flags.resume) / "config.toml");
  }
  if (flags.config.empty())
    throw ConfigError("federate", "needs a file of settings, or --resume DIR",
                      "try: mcit federate configs/federated/fedavg-mini.toml");
  Config config = Config::read(flags.config);
  const auto set = [&](const std::string& key, const std::string& value) {
    if (!value.empty()) config.set(key + "=" + quoted(value));
  };
  set("strategy.name", flags.strategy);
  set("model", flags.model);
  set("device", flags.device);
  if (!flags.data.empty()) set("data", std::filesystem::absolute(flags.data).string());
  if (!flags.out.empty()) set("out", std::filesystem::absolute(flags.out).string());
  if (flags.seed) config.set("seed=" + std::to_string(*flags.seed));
  for (const std::string& assignment : flags.sets) config.set(assignment);
  return config;
}

void read_federation(const Config& config, Settings& s) {
  FederatedOptions& o = s.loop;
  const Config federation = config.child("federation");
  s.federation = fed::FederationSettings::read(federation, true);
  s.federation.seed = o.seed;
  const Config aggregate = config.child("aggregate");
  s.rule = fed::make_aggregator(aggregate);
  s.rule_settings = aggregate.resolved();
  o.partition = fed::PartitionOptions::read(config.child("partition"));
  o.stream = fed::StreamOptions::read(config.child("stream"));
  o.stream.clients = o.partition.clients;
  o.stream.seed = o.seed;
  const Config wire = config.child("wire");
  o.wire.encoding = fed::encoding_from(wire.choice("encoding", "full", fed::encoding_names()));
  o.wire.fraction = wire.number("fraction", 0.01, 0.0, 1.0);
  o.error_feedback = wire.flag("error_feedback", true);
  const Config privacy = config.child("privacy");
  o.privacy_clip = privacy.number("clip", 0.0, 0.0);
  o.privacy_noise = privacy.number("noise_multiplier", 0.0, 0.0);
  o.privacy_delta = privacy.number("delta", 1e-5, 0.0, 1.0);
  if (o.privacy_noise > 0.0 && o.privacy_clip <= 0.0)
    throw ConfigError(privacy.where("noise_multiplier"), "needs a clip",
                      "noise has the deviation noise_multiplier x clip");
}

Settings read_settings(Config& config) {
  if (!config.child("federation").has("run")) config.set("federation.run=\"embedded\"");
  Settings s;
  s.suite = config.name_or_path("suite", "mini4");
  s.model = config.name_or_path("model", "mini");
  s.device = config.text("device", "cpu");
  s.dtype = config.choice("dtype", "auto", {"auto", "float32", "bfloat16", "float16"});
  s.order = config.texts("order", {});
  s.data = config.path("data", "");
  s.out = config.path("out", "");
  s.loop.seed = static_cast<std::uint64_t>(config.integer("seed", 1, 0));
  s.threads = config.integer("threads", 0, 0, 1024);
  const Config strategy = config.child("strategy");
  s.strategy = strategy.text("name", "sequential");
  s.params = strategy.params();
  s.params.erase("name");
  const Config train = config.child("train");
  s.loop.train.steps = 20;  // of a client in a round
  s.loop.train = read_train_options(train, s.loop.train);
  s.loop.proximal = train.number("proximal", 0.0, 0.0);
  const Config eval = config.child("eval");
  s.loop.eval_batch = eval.integer("batch", s.loop.eval_batch, 1, 1 << 16);
  s.loop.evaluate_base = eval.flag("base", true);
  s.loop.eval_every = eval.integer("every", 0, 0);
  const Config loader = config.child("loader");
  s.loader_threads = loader.integer("threads", 1, 1, 256);
  s.feature_memory_mb = loader.integer("feature_memory_mb", s.feature_memory_mb, 0);
  s.pad_square = loader.flag("pad_square", false);
  s.prompt_template = loader.text("template", "");
  s.plugin_path = config.child("plugins").paths("path");
  read_federation(config, s);
  config.finish();
  return s;
}

RunDir open_run(const Flags& flags, const Settings& s) {
  if (!flags.resume.empty()) return RunDir::open(flags.resume);
  if (!s.out.empty()) return RunDir::create(s.out);
  const std::string suite =
      s.suite.ends_with(".toml") ? std::filesystem::path(s.suite).stem().string() : s.suite;
  return RunDir::create(std::filesystem::path("runs") / suite /
                        ("federated-" + s.rule->name().substr(0, s.rule->name().find('/')) + "-" +
                         s.strategy + "-" + std::to_string(s.loop.seed)));
}

RunResult head_of(const Settings& s, const Suite& suite, const Workload& work, const PluginReport& provider,
                  const std::string& config, int threads, const std::string& command_line) {
  RunResult head;
  head.suite = suite.name;
  head.strategy = s.strategy;
  head.seed = s.loop.seed;
  for (std::size_t j = 0; j < work.tasks.size(); ++j)
    head.tasks.push_back({work.tasks[j].info.name, work.tasks[j].info.test_examples, suite.tasks[j].chance});
  Provenance& p = head.provenance;
  p.command = command_line;
  p.config = config;
  p.seeds = {{"run", std::to_string(s.loop.seed)}};
  p.build = build_info();
  p.build_tag = MCIT_BUILD_TAG;
  p.plugin_file = provider.file.filename().string();
  p.plugin_hash = provider.hash;
  p.model = s.model;
  p.model_hash = work.model_hash;
  p.data = work.data;
  p.device = work.model->device().str();
  p.dtype = at::toString(work.model->dtype());
  p.threads = threads;
  p.hardware = hardware();
  p.started = utc_now();
  return head;
}

void show(const RunDir& dir, const RunResult& done) {
  write_atomic(dir.matrix_csv(), matrix_to_csv(done.matrix, done.stage_names()));
  write_atomic(dir.matrix_svg(), heatmap_svg(done.matrix, done.strategy + " on " + done.suite + ", federated",
                                             done.stage_names()));
  std::cout << comparison_terminal(compare_runs({{dir.root().string(), done}}),
                                   console::width(console::Stream::out),
                                   console::colours(console::Stream::out));
  const FederatedMetrics m = federated_metrics(*done.federated);
  std::cout << "federated: " << done.federated->rule << ", " << m.rounds << " rounds, "
            << fixed(m.bytes_up / 1e6, 2) << " MB up and " << fixed(m.bytes_down / 1e6, 2)
            << " MB down a round";
  if (m.local_accuracy)
    std::cout << "; clients: mean " << fixed(m.local_accuracy->mean, 2) << ", worst "
              << fixed(m.local_accuracy->worst, 2) << " (" << m.local_accuracy->worst_client
              << "), deviation " << fixed(m.local_accuracy->deviation, 2);
  std::cout << "\n";
  if (!done.federated->privacy.empty()) std::cout << "privacy " << done.federated->privacy << "\n";
}

void federate_command(const Flags& flags, const std::string& command_line) {
  Config config = gather(flags);
  Settings s = read_settings(config);
  const at::Device device = open_device(s.device);
  const int threads = set_threads(s.threads);
  Catalogue catalogue(plugin_folders(
      std::vector<std::filesystem::path>(flags.plugin_dirs.begin(), flags.plugin_dirs.end()), s.plugin_path));
  catalogue.announce();
  const PluginReport& provider = catalogue.provider(s.strategy);
  const Suite suite = open_suite(s.suite, s.order, s.data);
  Workload work =
      open_workload(suite, {.model = s.model,
                            .device = device,
                            .dtype = s.dtype == "auto" ? std::nullopt : std::optional(dtype_named(s.dtype)),
                            .pad_square = s.pad_square,
                            .prompt_template = s.prompt_template,
                            .adapter = {},
                            .feature_memory = static_cast<std::uint64_t>(s.feature_memory_mb) << 20,
                            .loader_threads = static_cast<int>(s.loader_threads)});
  s.loop.stream.tasks = static_cast<std::int64_t>(work.tasks.size());
  s.loop.stop_after = flags.stop_after;
  s.federation.rounds = fed::ClientStreams(s.loop.stream).rounds();
  const Params params(s.params, "strategy");
  {
    QuietHost host;  // made once before anything is on disk: wrong settings stop the run here
    catalogue.create(s.strategy, params, host);
  }
  config.child("strategy").adopt(params.resolved());

  FederatedLoop loop({*work.model, work.tasks, work.probe, work.stores.tower.get()}, s.loop);
  RunDir dir = open_run(flags, s);
  log::add_file(dir.log());
  if (flags.resume.empty()) write_atomic(dir.config(), config.resolved());
  log::info("rows of each client:\n", loop.histogram());
  const StrategyPtr strategy = catalogue.create(s.strategy, params, loop.host());
  fed::RoundEngine engine(std::move(s.federation), std::move(s.rule), s.rule_settings, dir.root() / "ledger");
  const RunResult head = head_of(s, suite, work, provider, read_file(dir.config()), threads, command_line);
  const Stopwatch watch;
  try {
    const RunResult done = loop.run(*strategy, s.strategy, head, engine, dir);
    show(dir, done);
    log::info(done.complete ? "done in " : "stopped after the rounds asked for, ",
              duration_text(watch.seconds()), ": ", dir.root().string());
    if (!done.complete) log::info("go on with: mcit federate --resume ", dir.root().string());
  } catch (const Interrupted&) {
    log::warn("interrupted; the rounds up to here are saved. Go on with: mcit federate --resume ",
              dir.root().string());
    throw;
  }
}

}  // namespace

void add_federate(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("federate", "Train one model over clients that keep their rows");
  command->add_option("CONFIG", flags->config, "Settings as TOML; flags win over the file")
      ->type_name("")
      ->check(CLI::ExistingFile);
  command->add_option("--strategy", flags->strategy, "Name of a strategy (mcit plugins lists them)")
      ->type_name("NAME");
  command->add_option("--seed", flags->seed, "Seed of everything random [1]")->type_name("N");
  command->add_option("--out", flags->out, "Folder of the run")->type_name("DIR");
  command->add_option("--model", flags->model, "Model folder in Hugging Face form, or mini [mini]")
      ->type_name("DIR|NAME");
  command->add_option("--data", flags->data, "Folder that the suite's files start from")->type_name("DIR");
  command->add_option("--device", flags->device, "cpu, cuda or cuda:N [cpu]")->type_name("NAME");
  command->add_option("--set", flags->sets, "One setting, e.g. aggregate.rule=fedadam (repeatable)")
      ->type_name("KEY=VALUE")
      ->take_all();
  command->add_option("--plugin-dir", flags->plugin_dirs, "Folder of strategy plugins (repeatable)")
      ->type_name("DIR");
  command->add_option("--resume", flags->resume, "Go on with the run in this folder")->type_name("DIR");
  command->add_option("--stop-after", flags->stop_after, "Stop after this many rounds; --resume goes on")
      ->type_name("N");
  command->footer(
      "Clients take turns in one process on one frozen model and hold their adapters alone. Every round is "
      "on\n"
      "disk when it is done: a run that was killed goes on with --resume to the same bits.\n\n"
      "Examples:\n  mcit federate configs/federated/fedavg-mini.toml --out runs/fed\n"
      "  mcit federate configs/federated/fedavg-mini.toml --set aggregate.rule=lora --set "
      "partition.alpha=0.1\n"
      "  mcit federate --resume runs/fed");
  command->callback([flags] {
    std::string line;
    std::ifstream raw("/proc/self/cmdline", std::ios::binary);
    std::getline(raw, line, '\n');
    std::replace(line.begin(), line.end(), '\0', ' ');
    while (!line.empty() && line.back() == ' ') line.pop_back();
    federate_command(*flags, line);
  });
}

}  // namespace mcit
