// Pre-training gives a folder in LLaVA's shapes, and goes on where it broke off.
#include "train/pretrain.hpp"

#include "unit/core/temporary.hpp"

#include "torch_catch.hpp"

namespace mcit::test {
namespace {

MllmConfig tiny() {
  MllmConfig c;
  c.vision.image_size = 16;
  c.vision.patch_size = 8;
  c.vision.hidden_size = 16;
  c.vision.intermediate_size = 32;
  c.vision.num_attention_heads = 2;
  c.vision.num_hidden_layers = 2;
  c.vision.hidden_act = "gelu";
  c.vision_feature_layer = -2;
  c.text.vocab_size = 12;
  c.text.hidden_size = 8;
  c.text.intermediate_size = 16;
  c.text.num_hidden_layers = 2;
  c.text.num_attention_heads = c.text.num_key_value_heads = 2;
  c.text.head_dim = 4;
  c.text.tie_word_embeddings = true;
  c.image_token_id = 3;
  return c;
}

/// Picture and answer follow from the number alone.
PretrainSample sample(std::uint64_t index) {
  PretrainSample out;
  out.example.image = "drawn";
  out.example.tokens = {1, 3, 3, 3, 3, 5, static_cast<std::int64_t>(6 + index % 5), 2};
  out.example.labels = {-100, -100, -100, -100, -100, out.example.tokens[6], 2, -100};
  out.pixels = at::full({3, 16, 16}, 0.1 * static_cast<double>(index % 7), at::kFloat);
  out.patches = {0, 1, 2, static_cast<std::int64_t>(index % 3)};
  return out;
}

StateDict copies(Mllm& model) {
  StateDict out;
  for (const auto& [name, tensor] : model.tensors()) out[name] = tensor.detach().clone();
  return out;
}

PretrainOptions options() {
  PretrainOptions o;
  o.steps = 6;
  o.batch = 3;
  o.warmup = 2;
  o.patch_labels = 3;
  o.token_weight = 0.5;
  o.patch_words = {{0, 0}, {6, 6}, {7, 8}};
  o.save_every = 2;
  return o;
}

}  // namespace

TEST_CASE("a fresh base has the shapes of LLaVA, whose connector is as wide as the decoder") {
  // transformers, modeling_llava.py: linear_1 is [text hidden, vision hidden], linear_2 [text hidden, text
  // hidden]
  const StateDict state = initial_llava(tiny(), 1);
  CHECK(state.at("multi_modal_projector.linear_1.weight").sizes() == at::IntArrayRef({8, 16}));
  CHECK(state.at("multi_modal_projector.linear_2.weight").sizes() == at::IntArrayRef({8, 8}));
  CHECK(state.at("vision_tower.vision_model.embeddings.patch_embedding.weight").sizes() ==
        at::IntArrayRef({16, 3, 8, 8}));
  CHECK_NOTHROW(Mllm(tiny(), state));
  CHECK(initial_llava(tiny(), 1)
            .at("language_model.model.embed_tokens.weight")
            .equal(state.at("language_model.model.embed_tokens.weight")));
  CHECK_FALSE(initial_llava(tiny(), 2)
                  .at("language_model.model.embed_tokens.weight")
                  .equal(state.at("language_model.model.embed_tokens.weight")));
}

TEST_CASE("a pre-training that broke off goes on from its snapshot to the same weights") {
  const TemporaryFolder folder;
  PretrainReport whole_report, report;
  Mllm whole(tiny(), initial_llava(tiny(), 1));
  REQUIRE(pretrain_language(whole, sample, options(), folder / "whole.safetensors", whole_report));

  Mllm broken(tiny(), initial_llava(tiny(), 1));
  const PretrainSource breaks = [](std::uint64_t index) {
    if (index >= 3 * 5) throw std::runtime_error("no light");
    return sample(index);
  };
  CHECK_THROWS(pretrain_language(broken, breaks, options(), folder / "broken.safetensors", report));
  Mllm taken_up(tiny(), initial_llava(tiny(), 1));
  std::uint64_t first = UINT64_MAX;
  const PretrainSource watched = [&](std::uint64_t index) {
    first = std::min(first, index);
    return sample(index);
  };
  REQUIRE(pretrain_language(taken_up, watched, options(), folder / "broken.safetensors", report));
  CHECK(first == 3 * 4);  // steps 0 to 3 are in the snapshot
  const StateDict expected = copies(whole);
  std::size_t moved = 0;
  const StateDict initial = initial_llava(tiny(), 1);
  for (const auto& [name, tensor] : copies(taken_up)) {
    INFO(name);
    CHECK(tensor.equal(expected.at(name)));
    moved += tensor.equal(initial.at(name)) ? 0 : 1;
  }
  CHECK(moved > 30);
}

TEST_CASE("patches learn their word in the decoder's own embedding, and stay where they are") {
  const TemporaryFolder folder;
  PretrainOptions o = options();
  o.steps = 60;
  o.batch = 8;
  const auto answered = [&](double weight) {
    o.token_weight = weight;
    Mllm model(tiny(), initial_llava(tiny(), 1));
    PretrainReport report;
    REQUIRE(pretrain_language(model, sample, o, folder / (std::to_string(weight) + ".safetensors"), report));
    const at::NoGradGuard no_grad;
    std::vector<Tensor> pixels;
    for (std::uint64_t i = 0; i < 7; ++i) pixels.push_back(sample(i).pixels);
    // The second patch shows label 1, whose word is 6, in every picture.
    const Tensor tokens =
        model.visual_tokens(model.vision_features(at::stack(pixels)), {}).view({7, 4, -1}).select(1, 1);
    return (at::linear(tokens, model.embedding()).argmax(-1) == 6).to(at::kFloat).mean().item<float>();
  };
  CHECK(answered(2.0) > 0.9F);
  CHECK(answered(0.0) < 0.5F);
}

}  // namespace mcit::test
