// Prompts against their definition: vectors in place of tokens, in decoder and vision tower.
#include <filesystem>

#include "mcit/errors.hpp"
#include "model/mllm.hpp"
#include "model/safetensors.hpp"

#include "torch_catch.hpp"

using namespace mcit;

namespace {

const std::filesystem::path kFixture = std::filesystem::path(MCIT_SOURCE_DIR) / "tests" / "parity" / "llava";

double worst(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

ExamplePtr example_of(std::vector<std::int64_t> tokens, std::int64_t prompt_length,
                      const std::string& image = "") {
  auto example = std::make_shared<Example>();
  example->image = image;
  example->labels.assign(tokens.size(), -100);
  for (std::size_t i = static_cast<std::size_t>(prompt_length) - 1; i + 1 < tokens.size(); ++i)
    example->labels[i] = tokens[i + 1];
  example->tokens = std::move(tokens);
  example->prompt_length = prompt_length;
  return example;
}

/// Two texts of different length.
Batch texts(const std::vector<std::int64_t>& inserted, Prompts::Place place) {
  Batch batch;
  for (const std::int64_t length : {4, 6}) {
    std::vector<std::int64_t> tokens = {1};
    for (std::int64_t i = 0; i < length; ++i) tokens.push_back(5 + 3 * i);
    const auto at = tokens.begin() + (place == Prompts::Place::before_text ? 0 : 1);
    tokens.insert(at, inserted.begin(), inserted.end());
    batch.examples.push_back(example_of(tokens, length - 1 + static_cast<std::int64_t>(inserted.size())));
  }
  return batch;
}

}  // namespace

TEST_CASE("prompts that equal embeddings of tokens do what these tokens do") {
  const at::NoGradGuard no_grad;
  auto model = Mllm::load(kFixture / "checkpoint");
  const std::vector<std::int64_t> words = {11, 17};
  for (const Prompts::Place place : {Prompts::Place::before_text, Prompts::Place::after_first}) {
    const Tensor values =
        model->embedding().index_select(0, at::tensor(words, at::kLong)).unsqueeze(0).expand({2, 2, -1});
    const Batch written = texts(words, place), shorter = texts({}, place);
    model->route().text = {};
    model->route().task = {0, 0};
    const Tensor expected = model->all_logits(written, {});
    const Forward forward = model->forward_with(written, {});
    Prefill prefill = model->prefill(written, 5);
    const auto answers = model->decode(prefill, 5, nullptr, OnEnd::keep);

    model->route().text = {{values}, place};
    CHECK(worst(model->all_logits(shorter, {}), expected) < 1e-6);
    const Forward prompted = model->forward_with(shorter, {});
    CHECK(worst(prompted.logits, forward.logits) < 1e-6);
    CHECK(prompted.targets.equal(forward.targets));
    CHECK(prompted.sequence.equal(forward.sequence));
    Prefill with = model->prefill(shorter, 5);
    CHECK(worst(with.first_logits, prefill.first_logits) < 1e-6);
    CHECK(model->decode(with, 5, nullptr, OnEnd::keep) == answers);
    const Tensor entering = model->input_embeddings(shorter);  // prompts excluded
    CHECK(entering.size(0) == 5 + 7);
    CHECK(worst(entering[1], model->embedding()[shorter.examples[0]->tokens[1]]) == 0.0);
  }
}

TEST_CASE("deep prompts replace what a block made of the rows before") {
  auto model = Mllm::load(kFixture / "checkpoint");
  const std::int64_t d = model->info().hidden;
  const Batch batch = texts({}, Prompts::Place::after_first);
  const auto leaf = [&](double scale) { return (at::randn({2, 3, d}) * scale).set_requires_grad(true); };
  const Tensor first = leaf(0.5), second = leaf(0.5);
  model->route().text = {{first, second}};
  const Forward deep = model->forward_with(batch, {});
  answer_loss(deep).backward();
  CHECK(first.grad().abs().max().item<double>() > 0.0);  // block 0's keys and values
  CHECK(second.grad().abs().max().item<double>() > 0.0);
  // Rows of block 0 differ with other first prompts; what block 1 reads at them does not.
  model->route().text = {{first}};
  CHECK(worst(model->forward_with(batch, {}).logits, deep.logits) > 1e-6);
  // With one block's own output put back, nothing changes: undefined entries leave the rows alone.
  model->route().text = {{first, Tensor()}};
  const Tensor plain = model->forward_with(batch, {}).logits;
  model->route().text = {{first}};
  CHECK(worst(model->forward_with(batch, {}).logits, plain) == 0.0);
}

TEST_CASE("prompts of the tower stand behind the class token and leave the number of features") {
  auto model = Mllm::load(kFixture / "checkpoint");
  const StateDict e = read_safetensors(kFixture / "expected.safetensors").tensors;
  const Tensor pixels = e.at("batch_input.pixel_values"), plain = model->vision_features(pixels);
  const std::int64_t width = model->info().vision_hidden;
  const Tensor prompts = (at::randn({2, 3, width}) * 0.5).set_requires_grad(true);
  const Tensor changed = model->vision_features(pixels, {{prompts}});
  CHECK(changed.sizes() == plain.sizes());
  CHECK(worst(changed, plain) > 1e-6);
  changed.sum().backward();
  CHECK(prompts.grad().abs().max().item<double>() > 0.0);
  // each picture reads its own prompts only
  const at::NoGradGuard no_grad;
  const Tensor alone = model->vision_features(pixels.narrow(0, 1, 1), {{prompts.detach().narrow(0, 1, 1)}});
  CHECK(worst(alone[0], changed[1]) < 1e-5);
}

TEST_CASE("a batch with pictures and texts takes vision prompts by sequence, and no stored feature is used") {
  auto model = Mllm::load(kFixture / "checkpoint");
  const StateDict e = read_safetensors(kFixture / "expected.safetensors").tensors;
  const Tensor pixels = e.at("input.pixel_values")[0];
  std::int64_t stored = 0;
  const Tensor features = model->vision_features(pixels.unsqueeze(0)).detach();
  model->set_images({[&](const std::string&) {
                       ++stored;
                       return features;
                     },
                     [&](const std::string&) { return pixels.unsqueeze(0); }});
  const Tensor ids = e.at("input.input_ids")[0];
  std::vector<std::int64_t> tokens(ids.const_data_ptr<std::int64_t>(),
                                   ids.const_data_ptr<std::int64_t>() + ids.size(0));
  const auto length = static_cast<std::int64_t>(tokens.size());
  Batch batch{{example_of({1, 5, 6, 7}, 3), example_of(tokens, length - 1, "picture")}};
  const Tensor before = model->forward(batch).logits;
  CHECK(stored == 1);
  const Tensor prompts = at::zeros({2, 2, model->info().vision_hidden}).set_requires_grad(true);
  model->route().vision = {{prompts}};
  CHECK(model->tower_changed());
  const Forward out = model->forward(batch);
  CHECK(stored == 1);
  CHECK(worst(out.logits, before) > 1e-7);
  answer_loss(out).backward();
  CHECK(prompts.grad()[0].abs().max().item<double>() == 0.0);  // the text has no picture
  CHECK(prompts.grad()[1].abs().max().item<double>() > 0.0);
  model->route().vision = {};
  CHECK_FALSE(model->tower_changed());
  CHECK(worst(model->forward(batch).logits, before) == 0.0);
}

TEST_CASE("prompts of a wrong shape are named") {
  auto model = Mllm::load(kFixture / "checkpoint");
  const Batch batch = texts({}, Prompts::Place::after_first);
  const std::int64_t d = model->info().hidden;
  for (const Tensor& wrong : {at::zeros({1, 3, d}), at::zeros({2, 3, d + 1})}) {
    model->route().text = {{wrong}};
    CHECK_THROWS_AS(model->forward_with(batch, {}), Error);
  }
  model->route().text = {
      std::vector<Tensor>(static_cast<std::size_t>(model->info().layers) + 1, at::zeros({2, 3, d}))};
  CHECK_THROWS_AS(model->forward_with(batch, {}), Error);
}
