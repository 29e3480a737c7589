#include <CLI/CLI.hpp>
#include <chrono>
#include <iostream>
#include <optional>

#include "app/commands.hpp"
#include "app/federate_settings.hpp"
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

/// Everything that the rounds are made with.
struct Federation : RunParts {
  FederatedClients clients;

  Federation(const RunFlags& flags, FederateSettings& s, const Launch& launch, const Group& group)
      : RunParts(flags, s, launch, open_suite(s)),
        clients({*work.model, work.tasks, work.probe, work.stores.tower.get(), group},
                options_of(s, flags, group)) {
    s.federation.rounds = clients.streams().rounds();
    QuietHost host;  // made once before anything is on disk: wrong settings stop the run here
    join_group(*catalogue.create(s.strategy, params, host), s.strategy, group);
  }

 private:
  ClientOptions options_of(FederateSettings& s, const RunFlags& flags, const Group& group) const {
    check_batch(s.loop.client.train.batch, group);
    s.loop.stop_after = flags.stop_after;
    return s.loop.client;
  }
};

struct Flags : RunFlags {
  std::string ledger;  ///< of a federation elsewhere, to score
};

void federate_command(const Flags& flags, const std::string& command_line) {
  const Launch launch = Launch::from_environment();
  const std::unique_ptr<Group> group = join_launch(launch);
  if (!flags.ledger.empty() && !flags.resume.empty())
    throw ConfigError("--ledger", "is scored into a new folder", "leave --resume out");
  if (!flags.ledger.empty() && !group->alone())
    throw ConfigError("--ledger", "is scored by one process", "leave torchrun out");
  Config config;
  std::optional<FederateSettings> settings;
  std::optional<Federation> all;
  group->together([&] {
    config = gather(flags);
    settings.emplace(read_federate_settings(config));
    all.emplace(flags, *settings, launch, *group);
    config.child("strategy").adopt(all->params.resolved());
  });
  FederateSettings& s = *settings;
  group->set_timeout(std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * s.peer_timeout)));
  std::optional<Mirror> mirror;
  std::optional<RunDir> dir;
  group->together([&] {  // a mirror is taken before the first process changes anything
    if (!group->first()) mirror.emplace(flags.resume);
    dir.emplace(group->first() ? open_run(flags, s) : RunDir::beside(mirror->root()));
    if (group->first()) log::add_file(dir->log());
    if (flags.resume.empty()) write_atomic(dir->config(), config.resolved());
  });
  log::info("rows of each client:\n", all->clients.histogram());
  const StrategyPtr strategy = all->catalogue.create(s.strategy, all->params, all->clients.host());
  join_group(*strategy, s.strategy, *group);
  fed::RoundEngine engine(
      std::move(s.federation), std::move(s.rule), s.rule_settings,
      flags.ledger.empty() ? dir->root() / "ledger" : std::filesystem::path(flags.ledger));
  const RunResult head = head_of(s, all->suite, all->work, all->provider, all->threads, command_line,
                                 read_file(dir->config()), *group);
  FederatedLoop loop(all->clients, s.loop);
  const Stopwatch watch;
  const std::string root = dir->root().string();
  try {
    const RunResult done = flags.ledger.empty() ? loop.run(*strategy, s.strategy, head, engine, *dir)
                                                : loop.score(*strategy, s.strategy, head, engine, *dir);
    if (!group->first()) return;
    show(*dir, done);
    if (!flags.ledger.empty()) return log::info("scored in ", duration_text(watch.seconds()), ": ", root);
    log::info(done.complete ? "done in " : "stopped after the rounds asked for, ",
              duration_text(watch.seconds()), ": ", root);
    if (!done.complete) log::info("go on with: mcit federate --resume ", root);
  } catch (const Interrupted&) {
    if (flags.ledger.empty())
      log::warn("interrupted; the rounds up to here are saved. Go on with: mcit federate --resume ", root);
    throw;
  }
}

}  // namespace

void add_federate(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("federate", "Train one model over clients that keep their rows");
  add_run_flags(*command, *flags, "Folder of the run",
                "One setting, e.g. aggregate.rule=fedadam (repeatable)",
                "Stop after this many rounds; --resume goes on");
  command
      ->add_option("--ledger", flags->ledger,
                   "Train nothing: score what a server has committed in this folder")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory);
  command->footer(
      "Clients take turns in one process on one frozen model and hold their adapters alone. Every round is "
      "on\n"
      "disk when it is done: a run that was killed goes on with --resume to the same bits.\n\n"
      "Examples:\n  mcit federate configs/federated/fedavg-mini.toml --out runs/fed\n"
      "  mcit federate configs/federated/fedavg-mini.toml --set aggregate.rule=lora --set "
      "partition.alpha=0.1\n"
      "  mcit federate --resume runs/fed\n"
      "  mcit federate fed.toml --ledger server/ledger --out runs/scored");
  command->callback([flags] { federate_command(*flags, typed_command()); });
}

}  // namespace mcit
