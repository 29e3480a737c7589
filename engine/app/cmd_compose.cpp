// mcit compose: a decoder, a vision tower and a projector from three places, as CoIN starts from them.

#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string decoder, tower, projector, out;
  std::int64_t layer = -2;
  bool crop = false;
};

void compose(const Flags& flags) {
  const fs::path decoder = fs::canonical(find_model(flags.decoder)),
                 tower = fs::canonical(find_model(flags.tower)), projector = fs::canonical(flags.projector);
  const MllmConfig text = read_mllm_config(decoder);
  if (text.family != Family::text || text.text.model_type != "llama")
    throw ConfigError("--decoder", "'" + decoder.string() + "' is no LLaMA-shaped language model");
  (void)read_safetensors(projector);  // says what is wrong with it before anything is written
  Json config = read_json(decoder / "config.json");
  config["model_type"] = "llava";
  config["mm_vision_tower"] = tower.string();
  config["mm_projector_type"] = "mlp2x_gelu";
  config["mm_vision_select_layer"] = flags.layer;
  config["mm_vision_select_feature"] = "patch";
  config["image_aspect_ratio"] = flags.crop ? "square" : "pad";
  write_folder(flags.out, [&](const fs::path& folder) {
    write_json(folder / "config.json", config);
    fs::create_symlink(projector, folder / "mm_projector.safetensors");
    for (const auto& entry : fs::directory_iterator(decoder)) {
      const std::string name = entry.path().filename().string();
      const bool weights =
          name.starts_with("model") && (name.ends_with(".safetensors") || name.ends_with(".json"));
      if (weights || name.starts_with("tokenizer") || name == "generation_config.json")
        fs::create_symlink(fs::absolute(entry.path()), folder / name);
    }
    // The parts must fit: the same constructors that will load the model, on names and shapes alone.
    const MllmConfig whole = read_mllm_config(folder);
    Weights weights = Weights::for_inspection(read_mllm_tensors(folder, whole));
    (void)Mllm(whole, weights);
    if (!weights.problems().empty())
      throw CheckpointError(weights.problems().front().tensor, weights.problems().front().what);
  });
  log::info(flags.out, ": a model folder of links; --model ", flags.out, " runs it");
}

}  // namespace

void add_compose(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "compose", "Make a LLaVA folder of a language model, a CLIP tower and a pre-trained projector");
  command->add_option("--decoder", flags->decoder, "Folder of a LLaMA-shaped model, such as Vicuna")
      ->required()
      ->type_name("DIR");
  command->add_option("--tower", flags->tower, "Folder of a CLIP model")->required()->type_name("DIR");
  command
      ->add_option("--projector", flags->projector,
                   "mm_projector.0 and .2 of the original LLaVA, as safetensors")
      ->required()
      ->check(CLI::ExistingFile)
      ->type_name("FILE");
  command->add_option("--out", flags->out, "Folder to write; links, no copies")->required()->type_name("DIR");
  command->add_option("--layer", flags->layer, "Hidden state of the tower that is read")
      ->capture_default_str();
  command->add_flag("--crop", flags->crop,
                    "Cut the centre out of pictures instead of padding them to squares");
  command->footer(
      "Example:\n  mcit compose --decoder vicuna-7b-v1.5 --tower clip-vit-large-patch14-336 \\\n"
      "    --projector mm_projector.safetensors --out llava-start");
  command->callback([flags] { compose(*flags); });
}

}  // namespace mcit
