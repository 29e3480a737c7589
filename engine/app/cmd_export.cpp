// mcit export: what a run has learned, for other programs.

#include <CLI/CLI.hpp>
#include <iostream>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "mcit/errors.hpp"
#include "metrics/result.hpp"
#include "model/peft.hpp"
#include "model/safetensors.hpp"
#include "plugin/catalogue.hpp"
#include "train/hooks.hpp"
#include "train/snapshot.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string run, out, dtype = "float32";
  std::vector<std::string> plugin_dirs;
  bool merge = false;
};

/// What a model folder has besides config.json and weights.
void copy_companions(const std::filesystem::path& from, const std::filesystem::path& to) {
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "preprocessor_config.json", "processor_config.json", "generation_config.json",
                           "chat_template.jinja", "chat_template.json", "qformer_tokenizer", "clip"})
    if (std::filesystem::exists(from / name))
      std::filesystem::copy(from / name, to / name, std::filesystem::copy_options::recursive);
}

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
  if (read_suite(find_suite(config.name_or_path("suite", "mini4"), {share_dir()}), {}, {share_dir()}).kind ==
      "classify")
    throw ConfigError(flags.run, "is a run of classes by CLIP alone", "PEFT folders are for language models");
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
  const auto paths = [&](const std::string& module) { return module_path(open.model->config(), module); };
  const parts::PeftAdapter adapter =
      parts::export_peft(open.model->sites("all"), hooks.parameters(), model, paths);
  write_folder(flags.out, [&](const std::filesystem::path& folder) {
    write_peft(folder, adapter);
    if (!flags.merge) return;
    const std::filesystem::path base = find_model(model);
    if (!open.model->config().tower.empty())
      throw ConfigError(
          "--merge", "the model is in the original LLaVA repository's form, which transformers does not read",
          "export the adapter alone, or start from a folder in Hugging Face form");
    const at::ScalarType dtype = dtype_named(flags.dtype);
    StateDict tensors = open.model->tensors();
    merge_peft(tensors, open.model->config(), folder);
    write_model_file(folder, tensors, dtype, {}, mllm_config_json(open.model->config(), dtype_name(dtype)));
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      std::filesystem::remove(folder / file);
    copy_companions(base, folder);
  });
  log::info(flags.out, flags.merge ? ": a model folder, with what stage " : ": a PEFT adapter, as stage ",
            snapshot->stage + 1,
            flags.merge ? " had learned in its weights"
                        : " left it; mcit run --set adapter=" + flags.out + " and peft read it");
}

}  // namespace

void add_export(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("export", "Write a run's LoRA as an adapter folder of PEFT, or as a whole model");
  command->add_option("RUN", flags->run, "A run's folder")
      ->required()
      ->check(CLI::ExistingDirectory)
      ->type_name("");
  command->add_option("--out", flags->out, "Folder to write; must not exist yet")
      ->required()
      ->type_name("DIR");
  command->add_flag("--merge", flags->merge,
                    "Write a whole model folder with the LoRA folded into the weights");
  command->add_option("--dtype", flags->dtype, "Of the folded weights")
      ->capture_default_str()
      ->check(CLI::IsMember({"float32", "float16", "bfloat16"}));
  command->add_option("--plugin-dir", flags->plugin_dirs, "Folder of strategy plugins (repeatable)")
      ->type_name("DIR");
  command->footer(
      "For strategies whose adapters are LoRA. Tensors that were trained in full, such as the connector's, "
      "go to\n"
      "modules_to_save. Module names are those of transformers 4.52 and later.\n"
      "Examples:\n  mcit export runs/seq --out adapters/seq\n  mcit export runs/seq --merge --out "
      "models/seq");
  command->callback([flags] { export_run(*flags); });
}

}  // namespace mcit
