// Of a tiny LLaVA (tests/parity/README.md), what the parity program does not check: adapters written back,
// shared beginnings, restricted answers, gradients of every tensor.
#include <filesystem>

#include "mcit/errors.hpp"
#include "mcit/parts/lora.hpp"
#include "model/mllm.hpp"
#include "model/peft.hpp"
#include "model/safetensors.hpp"
#include "train/optimizer.hpp"
#include "unit/core/temporary.hpp"

#include "torch_catch.hpp"

using namespace mcit;

namespace {

const std::filesystem::path kFixtures = std::filesystem::path(MCIT_SOURCE_DIR) / "tests" / "parity";
constexpr double kTolerance = 3.3e-5;

double worst(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

/// One unpadded row of token ids as an example; labels (not shifted, -100 where masked) are optional.
ExamplePtr example_of(const Tensor& ids, const Tensor& labels = {}) {
  auto out = std::make_shared<Example>();
  out->image = "given";
  out->tokens.assign(ids.const_data_ptr<std::int64_t>(), ids.const_data_ptr<std::int64_t>() + ids.numel());
  out->prompt_length = ids.numel();
  out->labels.assign(out->tokens.size(), -100);
  if (labels.defined())
    for (std::size_t i = 0; i + 1 < out->tokens.size(); ++i)
      out->labels[i] = labels[static_cast<std::int64_t>(i) + 1].item<std::int64_t>();
  return out;
}

}  // namespace

TEST_CASE("llava: a PEFT folder merges into the weights as the reference applies it, and is written back") {
  const at::NoGradGuard no_grad;
  const std::filesystem::path checkpoint = kFixtures / "llava" / "checkpoint",
                              adapter = kFixtures / "llava" / "adapter";
  const StateDict e = read_safetensors(kFixtures / "llava" / "expected.safetensors").tensors;
  const Batch one{{example_of(e.at("input.input_ids")[0])}};
  auto merged = Mllm::load(checkpoint, at::kCPU, std::nullopt, adapter);
  CHECK_FALSE(merged->tower_changed());
  const Tensor features = merged->vision_features(e.at("input.pixel_values"));
  CHECK(worst(merged->all_logits(one, features), e.at("lora.logits")[0]) < 1e-4);

  // The same adapter on sites, written as a folder and merged again.
  auto model = Mllm::load(checkpoint);
  const auto path = [&](const std::string& name) { return module_path(model->config(), name); };
  const StateDict saved = read_safetensors(adapter / "adapter_model.safetensors").tensors;
  Parameters trained;
  const parts::LoraOptions options{.rank = 4, .alpha = 8.0};
  for (Site* site : model->sites("decoder")) {
    if (site->name().ends_with("lm_head")) continue;
    const auto lora =
        std::make_shared<parts::Lora>(*site, options, at::globalContext().defaultGenerator(at::kCPU));
    site->attach("lora", lora);
    for (const Parameter& p : lora->parameters()) {
      const std::string key = "base_model.model." + path(site->name()) + "." + p.name;
      REQUIRE(saved.contains(key));
      p.value.detach().copy_(saved.at(key));
      trained.push_back({site->name() + "." + p.name, p.value});
    }
  }
  for (Parameter& p : model->parameters("connector")) {
    p.value.copy_(saved.at("base_model.model." + path(p.name)));
    trained.push_back(p);
  }
  const test::TemporaryFolder folder;
  write_peft(folder / "adapter", parts::export_peft(model->sites("all"), trained, "base", path));
  const StateDict again = read_safetensors(folder / "adapter" / "adapter_model.safetensors").tensors;
  REQUIRE(again.size() == saved.size());
  for (const auto& [key, tensor] : saved) CHECK(at::equal(again.at(key), tensor));
  auto reread = Mllm::load(checkpoint, at::kCPU, std::nullopt, folder / "adapter");
  CHECK(worst(reread->all_logits(one, features), merged->all_logits(one, features)) == 0.0);

  const auto refused = [&](const std::string& from, const std::string& to) {
    std::string config = test::slurp(folder / "adapter" / "adapter_config.json");
    config.replace(config.find(from), from.size(), to);
    std::filesystem::create_directories(folder / "bad");
    std::filesystem::copy(folder / "adapter", folder / "bad",
                          std::filesystem::copy_options::overwrite_existing);
    test::write(folder / "bad" / "adapter_config.json", config);
    CHECK_THROWS_AS(Mllm::load(checkpoint, at::kCPU, std::nullopt, folder / "bad"), CheckpointError);
  };
  refused("\"LORA\"", "\"LOHA\"");
  refused("\"use_dora\": false", "\"use_dora\": true");
  refused("\"r\": 4", "\"r\": 8");
  refused("\"r\": 4", "\"r\": 0");
}

TEST_CASE("llava: what all prompts begin with is computed once, and changes no answer") {
  const at::NoGradGuard no_grad;
  auto model = Mllm::load(kFixtures / "llava" / "checkpoint");
  const StateDict e = read_safetensors(kFixtures / "llava" / "expected.safetensors").tensors;
  const Tensor features = model->vision_features(e.at("batch_input.pixel_values"));
  const std::vector<std::int64_t> image = example_of(e.at("input.input_ids")[0])->tokens;
  constexpr std::int64_t kShared = 20;
  std::int64_t rows = 0;
  Batch batch;
  for (std::int64_t b = 0; b < 3; ++b) {
    auto example = std::make_shared<Example>();
    for (std::int64_t i = 0; i < kShared; ++i) example->tokens.push_back(5 + i % 9);
    if (b < 2) {  // the last one has no picture
      example->image = std::to_string(b);
      for (const std::int64_t id : image)
        if (id == model->config().image_token_id) example->tokens.push_back(id);
    }
    for (std::int64_t i = 0; i <= 3 * b; ++i) example->tokens.push_back(6 + 5 * b + i);
    example->prompt_length = static_cast<std::int64_t>(example->tokens.size());
    rows += example->prompt_length;
    batch.examples.push_back(std::move(example));
  }
  model->set_images({[&](const std::string& path) { return features.narrow(0, std::stol(path), 1); }, {}});

  struct Counting final : Adapter {
    Counting(std::int64_t in, std::int64_t out, bool pools)
        : a(at::ones({1, in})), b(at::zeros({out, 1})), pooled(pools) {}
    Tensor down() const override { return a; }
    Tensor up() const override { return b; }
    Tensor mix(const Tensor& z, const Tensor&, RouteContext&, const std::string&) const override {
      seen += z.size(0);
      return z;
    }
    Reads reads() const override { return pooled ? Reads::sequence : Reads::own_row; }
    Parameters parameters() const override { return {}; }
    Tensor a, b;
    bool pooled;
    mutable std::int64_t seen = 0;
  };
  Site& site = *model->sites("/language_model.*layers.0.self_attn.q_proj$/").front();

  for (const bool pools : {false, true}) {
    const auto counting = std::make_shared<Counting>(site.in(), site.out(), pools);
    site.attach("counting", counting);
    model->route().task = {0, 1, 2};
    Prefill together = model->prefill(batch, 6);
    CHECK(counting->seen == (pools ? rows : rows - 2 * kShared));  // one that pools needs its whole sequence
    CHECK(together.task == std::vector<std::int64_t>{0, 1, 2});
    const auto answers = model->decode(together, 6, nullptr, OnEnd::keep);
    CHECK(model->decode(together, 6, nullptr, OnEnd::keep) == answers);
    for (std::size_t b = 0; b < batch.size(); ++b) {
      model->route().task = {0};
      Prefill alone = model->prefill(Batch{{batch.examples[b]}}, 6);
      CHECK(worst(together.first_logits[static_cast<std::int64_t>(b)], alone.first_logits[0]) < kTolerance);
      CHECK(model->decode(alone, 6, nullptr, OnEnd::keep)[0] == answers[b]);
    }
    site.detach("counting");
  }
}

TEST_CASE("llava: a restricted answer stays in its set") {
  const at::NoGradGuard no_grad;
  auto model = Mllm::load(kFixtures / "llava" / "checkpoint");
  const StateDict e = read_safetensors(kFixtures / "llava" / "expected.safetensors").tensors;
  const Tensor features = model->vision_features(e.at("input.pixel_values"));
  model->set_images({[&](const std::string&) { return features; }, {}});
  Batch one{{example_of(e.at("input.input_ids")[0])}};
  Prefill prefill = model->prefill(one, 4);
  const std::vector<std::vector<std::int64_t>> allowed = {{17, 18}, {17, 19, 20}, {30}};
  const AnswerTrie trie(allowed, 2);
  const auto answer = model->decode(prefill, 4, &trie)[0];
  CHECK(std::find(allowed.begin(), allowed.end(), answer) != allowed.end());
  const Tensor first = prefill.first_logits[0];
  CHECK((answer[0] == 17) == (first[17].item<float>() > first[30].item<float>()));
}

TEST_CASE("llava: gradients of every tensor, by the float32 loops and by ATen's float64") {
  const StateDict e = read_safetensors(kFixtures / "llava" / "expected.safetensors").tensors;
  const Tensor mask = e.at("batch_input.attention_mask"), ids = e.at("batch_input.input_ids");
  Batch batch;
  for (std::int64_t b = 0; b < 2; ++b) {
    const Tensor row = ids[b].masked_select(mask[b] == 1);
    Tensor labels = row.clone();
    labels.narrow(0, 0, row.numel() - 4 - 2 * b).fill_(-100);  // some rows of each sequence
    batch.examples.push_back(example_of(row, labels));
  }
  const auto gradients = [&](at::ScalarType dtype) {
    auto model = Mllm::load(kFixtures / "llava" / "checkpoint", at::kCPU, dtype);
    model->set_training(true);
    const Parameters all = model->parameters("all");
    for (const Parameter& p : all) Tensor(p.value).set_requires_grad(true);
    const Tensor hidden = model->vision_hidden(e.at("batch_input.pixel_values").to(dtype));
    answer_loss(model->forward_with(batch, hidden.narrow(1, 1, hidden.size(1) - 1))).backward();
    StateDict out;
    for (const Parameter& p : all)
      if (p.value.grad().defined()) out[p.name] = p.value.grad().to(at::kDouble);
    return out;
  };
  const StateDict fast = gradients(at::kFloat), exact = gradients(at::kDouble);
  CHECK(fast.size() == exact.size());
  CHECK(fast.size() > 40);
  for (const auto& [name, gradient] : exact) {
    INFO(name << ", norm " << gradient.norm().item<double>());
    REQUIRE(fast.contains(name));
    CHECK((fast.at(name) - gradient).norm().item<double>() <= 1e-3 * gradient.norm().item<double>() + 1e-6);
  }
}

TEST_CASE("llava: a saved folder reads back to the same bytes") {
  const auto folder =
      std::filesystem::temp_directory_path() / ("mcit_save_test_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  auto model = Mllm::load(kFixtures / "llava" / "checkpoint");
  model->save(folder, at::kHalf, {{"note", "test"}});
  const auto again = Mllm::load(folder);
  const StateDict a = model->tensors(), b = again->tensors();
  REQUIRE(a.size() == b.size());
  for (const auto& [name, tensor] : a) CHECK(at::equal(tensor, b.at(name)));
  CHECK(again->config().vision_feature_layer == -2);
  CHECK(model->tower_hash() == again->tower_hash());
  std::filesystem::remove_all(folder);
}
