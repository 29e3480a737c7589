// Sets of adapters, strict state, the reservoir, and export to PEFT.
#include <array>
#include <set>

#include "mcit/errors.hpp"
#include "mcit/parts/expert_mixture.hpp"
#include "mcit/parts/learner.hpp"
#include "mcit/parts/peft.hpp"
#include "mcit/parts/reservoir.hpp"
#include "unit/strategies/fake_backbone.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using namespace mcit::parts;

namespace {

AdapterPtr small_lora(const Site& site) {
  return std::make_shared<Lora>(site, LoraOptions{.rank = 2, .alpha = 4.0}, fake::generator(9));
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const CheckpointError& e) {
    return e.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::vector<std::int64_t> kept(const Reservoir& reservoir) {
  StateDict state;
  reservoir.save(state, "r");
  const Tensor index = state.at("r.items").select(1, 1).contiguous();
  return {index.const_data_ptr<std::int64_t>(), index.const_data_ptr<std::int64_t>() + index.numel()};
}

std::vector<ExamplePtr> numbered(std::int64_t count) {
  std::vector<ExamplePtr> out;
  for (std::int64_t i = 0; i < count; ++i) {
    auto example = std::make_shared<Example>();
    example->index = i;
    out.push_back(std::move(example));
  }
  return out;
}

Reservoir filled(std::int64_t capacity, std::uint64_t seed, const std::vector<ExamplePtr>& examples) {
  Reservoir reservoir(capacity, seed);
  for (const ExamplePtr& example : examples) reservoir.add(example);
  return reservoir;
}

std::vector<std::int64_t> indices(const std::vector<ExamplePtr>& examples) {
  std::vector<std::int64_t> out;
  for (const ExamplePtr& example : examples) out.push_back(example->index);
  return out;
}

}  // namespace

TEST_CASE("a copy for a state shares the bytes until one side writes") {
  const at::NoGradGuard no_grad;
  const Tensor parameter = at::ones({6}).set_requires_grad(true);
  {
    const Tensor before = state_copy(parameter), same = state_copy(parameter);
    CHECK(before.const_data_ptr() == parameter.const_data_ptr());
    CHECK_FALSE(before.requires_grad());
    parameter.detach().add_(1.0);
    CHECK(before.equal(at::ones({6})));
    CHECK(same.equal(at::ones({6})));
    CHECK(parameter.equal(at::full({6}, 2.0)));
  }
  Tensor after = state_copy(parameter);
  after.mul_(3.0);
  CHECK(parameter.equal(at::full({6}, 2.0)));
  CHECK(after.equal(at::full({6}, 6.0)));
  // A part, a transposed tensor and bytes of somebody else are copied at once.
  const Tensor matrix = at::arange(6, at::kFloat).view({2, 3});
  std::array<float, 2> elsewhere = {4.0F, 5.0F};
  for (const Tensor& other : {matrix[1], matrix.t(), at::from_blob(elsewhere.data(), {2})}) {
    const Tensor copy = state_copy(other);
    CHECK(copy.const_data_ptr() != other.const_data_ptr());
    CHECK(copy.is_contiguous());
    CHECK(copy.equal(other));
  }
}

TEST_CASE("a set names, freezes and silences its adapters") {
  fake::FakeBackbone backbone;
  AdapterSet set;
  set.attach(backbone, "up_proj", "lora", small_lora);
  const Parameters parameters = set.parameters();
  REQUIRE(parameters.size() == 4);
  CHECK(parameters[0].name == "language_model.model.layers.0.mlp.up_proj.lora_A.weight");
  CHECK(parameters[3].name == "language_model.model.layers.1.mlp.up_proj.lora_B.weight");
  CHECK(parameters[0].group == "adapter");
  set.set_trainable(false);
  for (const Parameter& p : set.parameters()) CHECK_FALSE(p.value.requires_grad());
  set.set_trainable(true);
  for (const Parameter& p : set.parameters()) CHECK(p.value.requires_grad());

  const Site* site = backbone.sites("up_proj")[0];
  CHECK(site->active().size() == 1);
  set.set_active(false);
  CHECK(site->active().empty());
  set.set_active(true);
  CHECK(site->active().size() == 1);
  CHECK_THROWS_AS(set.attach(backbone, "decoder", "second", small_lora),
                  Error);  // its names would not be unique
}

TEST_CASE("base tensors are thawed once, in the backbone's groups") {
  fake::FakeBackbone backbone;
  BaseTensors base;
  base.attach(backbone, "connector");
  base.attach(backbone, "all");
  REQUIRE(base.parameters().size() == 8);  // embedding, head, four decoder linears, connector weight and bias
  std::set<std::string> names;
  for (const Parameter& p : base.parameters()) {
    names.insert(p.name);
    CHECK(p.value.requires_grad());
    CHECK(p.group == (p.name.starts_with("multi_modal_projector") ? "connector" : "base"));
  }
  CHECK(names.size() == 8);
  base.set_trainable(false);
  for (const Parameter& p : backbone.parameters("all")) CHECK_FALSE(p.value.requires_grad());
}

TEST_CASE("a learner's settings choose what trains") {
  const auto groups = [](std::map<std::string, Params::Value> values) {
    const Params params(std::move(values));
    Learner learner = Learner::lora(params);
    params.finish();
    fake::FakeBackbone backbone;
    learner.attach(backbone, fake::generator(1));
    std::map<std::string, int> count;
    for (const Parameter& p : learner.parameters()) count[p.group] += p.value.requires_grad() ? 1 : 0;
    return count;
  };
  using Count = std::map<std::string, int>;
  CHECK(groups({}) == Count{{"adapter", 8}, {"connector", 2}});
  CHECK(groups({{"train_connector", false}}) == Count{{"adapter", 8}});
  CHECK(groups({{"targets", std::string("down_proj")}}) == Count{{"adapter", 4}, {"connector", 2}});
  CHECK(groups({{"full", true}}) == Count{{"base", 6}, {"connector", 2}});
  CHECK(groups({{"full", true}, {"train_connector", false}}) == Count{{"base", 6}});
  CHECK_THROWS_AS(groups({{"full", true}, {"rank", std::int64_t{4}}}), ConfigError);  // would have no effect
  CHECK_THROWS_AS(groups({{"targets", std::string("q_proj")}}), ConfigError);
}

TEST_CASE("state is a copy, and loads all or nothing") {
  const Params params;
  fake::FakeBackbone backbone;
  Learner learner = Learner::lora(params);
  learner.attach(backbone, fake::generator(1));
  const StateDict state = learner.state();
  REQUIRE(state.size() == 10);
  const std::string first = state.begin()->first, last = state.rbegin()->first;
  const auto spoil = [&] {
    for (const Parameter& p : learner.parameters()) p.value.detach().add_(1.0);
  };
  spoil();
  learner.load_state(state);
  for (const auto& [name, tensor] : learner.state()) CHECK(at::equal(tensor, state.at(name)));

  spoil();
  const StateDict spoilt = learner.state();
  StateDict missing = state, extra = state, reshaped = state, integer = state;
  missing.erase(last);
  extra["language_model.lora_C"] = at::zeros({1});
  reshaped[last] = at::zeros({3, 3});
  integer[last] = state.at(last).to(at::kLong);
  CHECK(contains(message_of([&] { learner.load_state(missing); }), last + ": is missing"));
  CHECK(contains(message_of([&] { learner.load_state(extra); }),
                 "language_model.lora_C: in the state, but nothing here takes it"));
  CHECK(contains(message_of([&] { learner.load_state(reshaped); }), last + ": has shape [3, 3]"));
  CHECK(contains(message_of([&] { learner.load_state(integer); }), last + ": is of type"));
  for (const auto& [name, tensor] : learner.state()) CHECK(at::equal(tensor, spoilt.at(name)));
  CHECK(state.contains(first));
}

TEST_CASE("the reservoir's content is the definition's") {
  // Expected numbers: the class transcribed into Python (64-bit arithmetic by masking), seed 7, capacity 4,
  // 20 examples.
  Reservoir reservoir = filled(4, 7, numbered(20));
  CHECK(kept(reservoir) == std::vector<std::int64_t>{14, 15, 17, 16});
  CHECK(reservoir.seen() == 20);
  fake::FakeHost host;
  CHECK(indices(reservoir.draw(3, {1, 2, 0}, host)) == std::vector<std::int64_t>{14, 17, 15});
  CHECK(host.lookups == 0);
}

TEST_CASE("the reservoir is uniform") {
  const std::vector<ExamplePtr> examples = numbered(100);
  std::vector<double> times(100, 0.0);
  for (std::uint64_t seed = 0; seed < 2000; ++seed)
    for (const std::int64_t index : kept(filled(10, seed, examples)))
      times[static_cast<std::size_t>(index)] += 1.0;
  // Each example is kept with probability 1/10; 99 degrees of freedom, whose 99.9 % quantile is 148.2
  // (chi-square table).
  double chi_square = 0.0;
  for (const double n : times) chi_square += (n - 200.0) * (n - 200.0) / (200.0 * 0.9);
  CHECK(chi_square < 148.2);

  // Every kept example is drawn as often: 5 of 10, 9 degrees of freedom, 99.9 % quantile 27.88.
  Reservoir reservoir = filled(10, 1, examples);
  fake::FakeHost host;
  std::map<std::int64_t, double> drawn;
  for (std::int64_t step = 0; step < 2000; ++step) {
    const std::vector<std::int64_t> some = indices(reservoir.draw(5, {0, step, 0}, host));
    CHECK(std::set<std::int64_t>(some.begin(), some.end()).size() == 5);
    for (const std::int64_t index : some) drawn[index] += 1.0;
  }
  chi_square = 0.0;
  for (const auto& [index, n] : drawn) chi_square += (n - 1000.0) * (n - 1000.0) / (1000.0 * 0.5);
  CHECK(drawn.size() == 10);
  CHECK(chi_square < 27.88);
}

TEST_CASE("a draw depends on its key and is never longer than the content") {
  const std::vector<ExamplePtr> examples = numbered(50);
  Reservoir reservoir = filled(20, 3, examples);
  fake::FakeHost host;
  const auto draw = [&](std::int64_t step, std::int64_t micro) {
    return indices(reservoir.draw(6, {1, step, micro}, host));
  };
  CHECK(draw(4, 0) == draw(4, 0));
  CHECK(draw(4, 0) != draw(4, 1));
  CHECK(draw(4, 0) != draw(5, 0));
  CHECK(reservoir.draw(100, {0}, host).size() == 20);
  CHECK(Reservoir(5, 1).draw(3, {0}, host).empty());
  CHECK_THROWS_AS(Reservoir(0, 1), ConfigError);
}

TEST_CASE("a restored reservoir goes on as if nothing had happened") {
  fake::FakeHost host;
  host.tasks[0] = numbered(60);
  host.trained = 1;
  Reservoir whole = filled(8, 3, host.tasks[0]);
  Reservoir half = filled(8, 3, {host.tasks[0].begin(), host.tasks[0].begin() + 30});
  StateDict state;
  half.save(state, "replay");
  Reservoir restored(8, 99);  // the state's seed counts
  StateReader reader(state);
  restored.load(reader, "replay");
  CHECK(restored.size() == 0);  // nothing before commit
  reader.commit();
  CHECK(indices(restored.draw(8, {5}, host)) == indices(half.draw(8, {5}, host)));
  CHECK(host.lookups == 8);
  for (std::size_t i = 30; i < 60; ++i) restored.add(host.tasks[0][i]);
  CHECK(kept(restored) == kept(whole));
  CHECK(indices(restored.draw(8, {6}, host)) == indices(whole.draw(8, {6}, host)));
}

TEST_CASE("a damaged or foreign reservoir state is refused") {
  const std::vector<ExamplePtr> examples = numbered(30);
  StateDict good;
  filled(8, 3, examples).save(good, "r");
  const auto refused = [](const StateDict& state, std::int64_t capacity) {
    Reservoir reservoir(capacity, 1);
    StateReader reader(state);
    return contains(message_of([&] { reservoir.load(reader, "r"); }), "r.");
  };
  CHECK_FALSE(refused(good, 8));
  CHECK(refused(good, 9));
  StateDict pairs = good, negative = good, counters = good, real = good, missing = good;
  pairs["r.items"] = at::zeros({8, 3}, at::kLong);
  negative["r.items"] = at::full({8, 2}, -1, at::kLong);
  counters["r.counters"] = at::zeros({3}, at::kLong);
  real["r.items"] = at::zeros({8, 2});
  missing.erase("r.counters");
  for (const StateDict& bad : {pairs, negative, counters, real, missing}) CHECK(refused(bad, 8));
}

TEST_CASE("export writes PEFT's names and settings") {
  fake::FakeBackbone backbone;
  AdapterSet set;
  set.attach(backbone, "/layers\\.0\\.mlp\\.down_proj/", "lora", small_lora);
  BaseTensors connector;
  connector.attach(backbone, "connector");
  const std::vector<Site*> sites = backbone.sites("all");
  const PeftAdapter plain = export_peft(sites, set.parameters(), "base \"x\"");
  REQUIRE(plain.tensors.size() == 2);
  const std::string site = "language_model.model.layers.0.mlp.down_proj";
  CHECK(
      at::equal(plain.tensors.at("base_model.model." + site + ".lora_A.weight"), set.parameters()[0].value));
  CHECK(plain.tensors.at("base_model.model." + site + ".lora_B.weight").sizes() ==
        at::IntArrayRef({fake::kHidden, 2}));
  // Keys and value types as PEFT 0.21 writes them in adapter_config.json.
  CHECK(plain.config == R"({
  "peft_type": "LORA",
  "task_type": null,
  "base_model_name_or_path": "base \"x\"",
  "inference_mode": true,
  "r": 2,
  "lora_alpha": 4,
  "lora_dropout": 0,
  "use_rslora": false,
  "use_dora": false,
  "bias": "none",
  "fan_in_fan_out": false,
  "init_lora_weights": true,
  "target_modules": [
    "language_model.model.layers.0.mlp.down_proj"
  ],
  "modules_to_save": null
}
)");
  Parameters trained = set.parameters();
  trained.insert(trained.end(), connector.parameters().begin(), connector.parameters().end());
  const PeftAdapter renamed =
      export_peft(sites, trained, "b", [](const std::string& name) { return "model." + name; });
  CHECK(renamed.tensors.contains("base_model.model.model." + site + ".lora_A.weight"));
  CHECK(renamed.tensors.contains("base_model.model.model.multi_modal_projector.linear_1.bias"));
  CHECK(
      contains(renamed.config, "\"modules_to_save\": [\n    \"model.multi_modal_projector.linear_1\"\n  ]"));

  fake::FakeBackbone bare, mixed;
  CHECK_THROWS_AS(export_peft(bare.sites("all"), {}, "b"), Error);
  AdapterSet mixtures;
  mixtures.attach(mixed, "up_proj", "moe", [](const Site& s) -> AdapterPtr {
    return std::make_shared<ExpertMixture>(s, MixtureOptions{.experts = 2}, LoraOptions{.rank = 4},
                                           fake::generator(1));
  });
  CHECK_THROWS_AS(export_peft(mixed.sites("all"), {}, "b"), Error);
  set.attach(backbone, "/layers\\.1\\.mlp\\.down_proj/", "lora", [](const Site& s) -> AdapterPtr {
    return std::make_shared<Lora>(s, LoraOptions{.rank = 4}, fake::generator(1));
  });
  CHECK_THROWS_AS(export_peft(sites, {}, "b"), Error);
}
