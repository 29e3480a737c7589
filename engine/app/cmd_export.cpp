// mcit export: what a run has learned, for other programs.

#include <CLI/CLI.hpp>
#include <iostream>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/log.hpp"
#include "mcit/errors.hpp"
#include "metrics/result.hpp"
#include "model/peft.hpp"
#include "plugin/catalogue.hpp"
#include "train/hooks.hpp"
#include "train/snapshot.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string run, out;
  std::vector<std::string> plugin_dirs;
};

void export_run(const Flags& flags) {
  const at::NoGradGuard no_grad;
  const std::filesystem::path run = flags.run;
  if (std::filesystem::exists(flags.out))
    throw ConfigError("--out", "'" + flags.out + "' is already there", "name a new folder");
  const Config config = Config::read(run / "config.toml");
  const std::optional<Snapshot> snapshot = read_newest_snapshot(run / "snapshots");
  if (!snapshot)
    throw CheckpointError((run / "snapshots").string(), "holds no snapshot",
                          "the run has not begun to train");
  const std::string model = config.name_or_path("model", "mini"),
                    name = config.child("strategy").text("name", "sequential");
  OpenModel open = open_model(find_model(model), at::kCPU, false, config.path("adapter", ""));

  const Catalogue catalogue(plugin_folders({flags.plugin_dirs.begin(), flags.plugin_dirs.end()},
                                           config.child("plugins").paths("path")));
  std::map<std::string, Params::Value> settings = config.child("strategy").params();
  settings.erase("name");
  QuietHost host;
  const StrategyPtr strategy = catalogue.create(name, Params(settings, "strategy"), host);
  HookRunner hooks(*strategy, name);
  StreamInfo stream{.tasks = {}, .seed = 1, .backbone = open.model->info()};
  for (const TaskResult& task : read_result(run / "result.json").tasks)
    stream.tasks.push_back({task.name, 0, 0, {}});
  hooks.on_stream_begin(stream);
  hooks.attach(*open.model);
  hooks.load_state(snapshot->strategy);
  write_peft(flags.out, parts::export_peft(open.model->sites("all"), hooks.parameters(), model, module_path));
  log::info(flags.out, ": a PEFT adapter, as stage ", snapshot->stage + 1,
            " left it; mcit run --set adapter=", flags.out, " and peft read it");
}

}  // namespace

void add_export(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("export", "Write a run's LoRA as an adapter folder of PEFT");
  command->add_option("RUN", flags->run, "A run's folder")
      ->required()
      ->check(CLI::ExistingDirectory)
      ->type_name("");
  command->add_option("--out", flags->out, "Folder to write; must not exist yet")
      ->required()
      ->type_name("DIR");
  command->add_option("--plugin-dir", flags->plugin_dirs, "Folder of strategy plugins (repeatable)")
      ->type_name("DIR");
  command->footer(
      "For strategies whose adapters are LoRA. Tensors that were trained in full, such as the connector's, "
      "go to\n"
      "modules_to_save. Module names are those of transformers 4.52 and later.\n"
      "Example:\n  mcit export runs/seq --out adapters/seq");
  command->callback([flags] { export_run(*flags); });
}

}  // namespace mcit
