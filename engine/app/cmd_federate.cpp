#include <CLI/CLI.hpp>
#include <iostream>

#include "app/commands.hpp"
#include "app/federation_settings.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/run_dir.hpp"
#include "core/system.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"
#include "model/device.hpp"
#include "report/comparison.hpp"
#include "report/heatmap.hpp"

namespace mcit {
namespace {

Config gather(const RunFlags& flags) {
  if (!flags.resume.empty()) {
    if (flags.settings_given())
      throw ConfigError("--resume", "goes on with the settings that the run began with",
                        "leave out everything but --plugin-dir and --stop-after, or start a new run");
    return Config::read(std::filesystem::path(flags.resume) / "config.toml");
  }
  if (flags.config.empty())
    throw ConfigError("federate", "needs a file of settings, or --resume DIR",
                      "try: mcit federate configs/federated/fedavg-mini.toml");
  return with_flags(Config::read(flags.config), flags);
}

RunDir open_run(const RunFlags& flags, const FederateSettings& s) {
  if (!flags.resume.empty()) return RunDir::open(flags.resume);
  if (!s.out.empty()) return RunDir::create(s.out);
  return RunDir::create(std::filesystem::path("runs") / s.suite_name() /
                        ("federated-" + s.rule->name().substr(0, s.rule->name().find('/')) + "-" +
                         s.strategy + "-" + std::to_string(s.seed)));
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

void federate_command(const RunFlags& flags, const std::string& command_line) {
  Config config = gather(flags);
  FederateSettings s = read_federate_settings(config);
  const at::Device device = open_device(s.device);
  const int threads = set_threads(s.threads);
  const Catalogue catalogue = find_plugins(flags, s);
  const PluginReport& provider = catalogue.provider(s.strategy);
  const Suite suite = open_suite(s.suite, s.order, s.data);
  Workload work = open_workload(suite, s.workload(suite, device));
  s.loop.client.stream.tasks = static_cast<std::int64_t>(work.tasks.size());
  s.loop.stop_after = flags.stop_after;
  const Params params(s.params, "strategy");
  {
    QuietHost host;  // made once before anything is on disk: wrong settings stop the run here
    catalogue.create(s.strategy, params, host);
  }
  config.child("strategy").adopt(params.resolved());

  FederatedClients clients({*work.model, work.tasks, work.probe, work.stores.tower.get()}, s.loop.client);
  s.federation.rounds = clients.streams().rounds();
  RunDir dir = open_run(flags, s);
  log::add_file(dir.log());
  if (flags.resume.empty()) write_atomic(dir.config(), config.resolved());
  log::info("rows of each client:\n", clients.histogram());
  const StrategyPtr strategy = catalogue.create(s.strategy, params, clients.host());
  fed::RoundEngine engine(std::move(s.federation), std::move(s.rule), s.rule_settings, dir.root() / "ledger");
  const RunResult head = head_of(s, suite, work, provider, threads, command_line, read_file(dir.config()));
  FederatedLoop loop(clients, s.loop);
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
  auto flags = std::make_shared<RunFlags>();
  CLI::App* command = app.add_subcommand("federate", "Train one model over clients that keep their rows");
  add_run_flags(*command, *flags, "Folder of the run",
                "One setting, e.g. aggregate.rule=fedadam (repeatable)",
                "Stop after this many rounds; --resume goes on");
  command->footer(
      "Clients take turns in one process on one frozen model and hold their adapters alone. Every round is "
      "on\n"
      "disk when it is done: a run that was killed goes on with --resume to the same bits.\n\n"
      "Examples:\n  mcit federate configs/federated/fedavg-mini.toml --out runs/fed\n"
      "  mcit federate configs/federated/fedavg-mini.toml --set aggregate.rule=lora --set "
      "partition.alpha=0.1\n"
      "  mcit federate --resume runs/fed");
  command->callback([flags] { federate_command(*flags, typed_command()); });
}

}  // namespace mcit
