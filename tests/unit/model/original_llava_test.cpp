// The form of the original LLaVA repository: the same tiny model under its names, the tower in a folder of
// its own, the projector in a file of its own.
#include <nlohmann/json.hpp>

#include "data/encode.hpp"
#include "mcit/errors.hpp"
#include "model/mllm.hpp"
#include "model/safetensors.hpp"
#include "unit/core/temporary.hpp"

#include "torch_catch.hpp"

using namespace mcit;

namespace {

const std::filesystem::path kFixture = std::filesystem::path(MCIT_SOURCE_DIR) / "tests" / "parity" / "llava";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  if (text.starts_with(from)) text.replace(0, from.size(), to);
  return text;
}

/// The fixture's tensors and settings in that form.
struct Original {
  explicit Original(bool projector_apart) {
    StateDict decoder, tower, projector;
    for (const auto& [name, tensor] : read_checkpoint_tensors(kFixture / "checkpoint")) {
      const std::string plain = replaced(name, "language_model.", "");
      if (name.starts_with("vision_tower."))
        tower[replaced(name, "vision_tower.", "")] = tensor;
      else if (name.starts_with("multi_modal_projector.linear_1."))
        projector[replaced(name, "multi_modal_projector.linear_1.", "model.mm_projector.0.")] = tensor;
      else if (name.starts_with("multi_modal_projector.linear_2."))
        projector[replaced(name, "multi_modal_projector.linear_2.", "model.mm_projector.2.")] = tensor;
      else
        decoder[plain] = tensor;
    }
    if (projector_apart)
      write_safetensors(model() / "mm_projector.safetensors", projector);
    else
      decoder.merge(projector);
    write_safetensors(model() / "model.safetensors", decoder);
    write_safetensors(clip() / "model.safetensors", tower);
    const nlohmann::json fixture =
        nlohmann::json::parse(test::slurp(kFixture / "checkpoint" / "config.json"));
    nlohmann::json config = fixture.at("text_config");
    config["model_type"] = "llava_llama";
    config["mm_vision_tower"] = "openai/clip";
    config["mm_projector_type"] = "mlp2x_gelu";
    config["mm_vision_select_layer"] = fixture.at("vision_feature_layer");
    config["mm_vision_select_feature"] = "patch";
    config["image_aspect_ratio"] = "pad";
    test::write(model() / "config.json", config.dump());
    test::write(
        clip() / "config.json",
        nlohmann::json{{"model_type", "clip"}, {"vision_config", fixture.at("vision_config")}}.dump());
  }
  std::filesystem::path model() const { return made("llava"); }
  std::filesystem::path clip() const { return made("clip"); }

 private:
  std::filesystem::path made(const char* name) const {
    std::filesystem::create_directories(folder / name);
    return folder / name;
  }
  test::TemporaryFolder folder;
};

}  // namespace

TEST_CASE("the original repository's names, tower folder and projector file give the same logits") {
  const at::NoGradGuard no_grad;
  const StateDict e = read_safetensors(kFixture / "expected.safetensors").tensors;
  for (const bool apart : {false, true}) {
    const Original original(apart);
    const auto model = Mllm::load(original.model());
    CHECK(model->config().pad_square);
    CHECK(model->config().image_token_id == -1);
    CHECK(std::string(usual_template(model->config())) == "vicuna_v1");

    // The tokenizer has no token for pictures; ids are those of the fixture, whose template is llava's.
    Encoder encoder(Tokenizer::from_file(kFixture / "checkpoint" / "tokenizer.json"),
                    {.prompt_template = "llava",
                     .picture = fixed_picture(model->info().image_tokens),
                     .image_token_id = -1,
                     .max_length = 512});
    const Record record{.id = "a", .image = "a.png", .turns = {{"What is in the image?", ""}}, .golds = {""}};
    const Example example = encoder.test(record, 0, 0, 8);
    const Tensor given = e.at("input.input_ids")[0], ours = at::tensor(example.tokens, at::kLong);
    REQUIRE(ours.sizes() == given.sizes());
    CHECK(at::equal(ours, at::where(given == 431, -1, given)));

    const Tensor features = model->vision_features(e.at("input.pixel_values"));
    const Batch batch{{std::make_shared<const Example>(example)}};
    const Tensor difference = model->all_logits(batch, features) - e.at("logits")[0];
    CHECK(difference.abs().max().item<double>() < 3.3e-5);
  }
}

TEST_CASE("a tower that is nowhere is said with the places that were looked at") {
  const Original original(false);
  std::filesystem::rename(original.clip(), original.clip().parent_path() / "elsewhere");
  try {
    (void)read_mllm_config(original.model());
    FAIL("was read");
  } catch (const CheckpointError& e) {
    const std::string text = e.what();
    CHECK(text.find("mm_vision_tower") != std::string::npos);
    CHECK(text.find("openai/clip") != std::string::npos);
    CHECK(text.find("/vision_tower") != std::string::npos);
  }
}
