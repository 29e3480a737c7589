// Elastic weight consolidation against its formula, written out with one Fisher matrix and one anchor per
// task.
#include <torch/csrc/autograd/autograd.h>

#include "unit/strategies/fake_backbone.hpp"
#include "unit/strategies/plugin_file.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using fake::Settings;

namespace {

constexpr double kLambda = 7.0;
constexpr std::int64_t kSteps = 5;

double worst(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }

/// What one task leaves behind.
struct Anchor {
  std::vector<Tensor> fisher, values;
};

std::vector<Tensor> values_of(const Parameters& parameters) {
  std::vector<Tensor> out;
  for (const Parameter& p : parameters) out.push_back(p.value);
  return out;
}

/// Mean of squared gradients, one for each group of `size` examples, through torch::autograd::grad.
Anchor measure(Backbone& backbone, const Parameters& parameters, const std::vector<ExamplePtr>& examples,
               std::size_t size) {
  Anchor out;
  for (const Parameter& p : parameters) {
    out.fisher.push_back(at::zeros_like(p.value.detach()));
    out.values.push_back(p.value.detach().clone());
  }
  const std::size_t whole = examples.size() / size;
  const auto groups = static_cast<double>(whole);
  for (std::size_t i = 0; i < examples.size(); i += size) {
    const Batch batch{{examples.begin() + static_cast<std::ptrdiff_t>(i),
                       examples.begin() + static_cast<std::ptrdiff_t>(i + size)}};
    const auto grads = torch::autograd::grad({answer_loss(backbone.forward(batch))}, values_of(parameters),
                                             {}, std::nullopt, false, true);
    for (std::size_t k = 0; k < grads.size(); ++k)
      if (grads[k].defined()) out.fisher[k] += grads[k] * grads[k] / groups;
  }
  return out;
}

/// (λ/2) Σ_τ Σ_i F_τ,i (θ_i − θ*_τ,i)², on the graph of the parameters.
Tensor penalty(const Parameters& parameters, const std::vector<Anchor>& anchors) {
  Tensor sum = at::zeros({}, at::kDouble);
  for (const Anchor& anchor : anchors)
    for (std::size_t k = 0; k < parameters.size(); ++k)
      sum = sum + (anchor.fisher[k] * (parameters[k].value - anchor.values[k]).square()).sum();
  return 0.5 * kLambda * sum;
}

struct World {
  explicit World(Settings settings) {
    settings["lambda"] = kLambda;
    settings["rank"] = std::int64_t{4};
    settings["record_every"] = std::int64_t{1};
    strategy = fake::create("ewc", "ewc", host, settings);
    run = std::make_unique<fake::Run>(*strategy, backbone, host, 4);
  }

  /// Gradient that on_gradients() adds to a gradient of ones.
  std::vector<Tensor> pull() {
    const Task task = run->task(3, kSteps);
    Parameters parameters = strategy->parameters();
    for (const Parameter& p : parameters) p.value.mutable_grad() = at::ones_like(p.value.detach());
    Step step{
        .task = task, .number = 0, .backbone = backbone, .batch = {}, .out = {}, .trainable = parameters};
    const at::NoGradGuard no_grad;
    strategy->on_gradients(step);
    std::vector<Tensor> out;
    for (const Parameter& p : parameters) out.push_back(p.value.grad() - 1.0);
    return out;
  }

  fake::FakeBackbone backbone;
  fake::FakeHost host;
  fake::StrategyPtr strategy{nullptr, nullptr};
  std::unique_ptr<fake::Run> run;
};

void check_against_formula(World& world, const std::vector<Anchor>& anchors) {
  const Parameters parameters = world.strategy->parameters();
  world.host.records.clear();
  const std::vector<Tensor> pulled = world.pull();
  const Tensor value = penalty(parameters, anchors);
  std::vector<Tensor> expected;
  if (value.requires_grad())
    expected = torch::autograd::grad({value}, values_of(parameters));
  else
    for (const Parameter& p : parameters)
      expected.push_back(at::zeros_like(p.value.detach()));  // no task yet
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    INFO(parameters[k].name);
    CHECK(worst(pulled[k], expected[k]) < 1e-12 * (1.0 + expected[k].abs().max().item<double>()));
  }
  REQUIRE(world.host.records.size() == 1);
  CHECK(world.host.records[0].first == "ewc_penalty");
  CHECK(std::abs(world.host.records[0].second - value.item<double>()) < 1e-12 * (1.0 + value.item<double>()));
}

}  // namespace

TEST_CASE("ewc: gradient and value are those of the sum over all earlier tasks") {
  for (const std::size_t size : {std::size_t{1}, std::size_t{4}}) {
    INFO(size);
    World world({{"fisher", std::string(size == 1 ? "per_sample" : "batch_mean")},
                 {"fisher_batches", std::int64_t{3}},
                 {"fisher_batch", std::int64_t{4}}});
    std::vector<Anchor> anchors;
    check_against_formula(world, anchors);  // no task yet: nothing pulls
    for (std::int64_t stage = 0; stage < 3; ++stage) {
      world.run->train(stage, kSteps);
      anchors.push_back(measure(world.backbone, world.strategy->parameters(), world.run->data(stage), size));
      check_against_formula(world, anchors);
    }
    world.run->begin(3, kSteps);
    for (std::int64_t number = 0; number < kSteps; ++number) world.run->step(3, number, kSteps);
    check_against_formula(world, anchors);
    CHECK(penalty(world.strategy->parameters(), anchors).item<double>() > 1e-4);
  }
}

TEST_CASE("ewc: the online form keeps one anchor and decays older Fisher values") {
  constexpr double kGamma = 0.5;
  World world({{"online", true},
               {"gamma", kGamma},
               {"fisher_batches", std::int64_t{3}},
               {"fisher_batch", std::int64_t{4}}});
  Anchor running;
  for (std::int64_t stage = 0; stage < 3; ++stage) {
    world.run->train(stage, kSteps);
    Anchor fresh = measure(world.backbone, world.strategy->parameters(), world.run->data(stage), 1);
    for (std::size_t k = 0; k < fresh.fisher.size(); ++k)
      if (stage > 0) fresh.fisher[k] += kGamma * running.fisher[k];
    running = fresh;
  }
  world.run->begin(3, kSteps);
  for (std::int64_t number = 0; number < kSteps; ++number) world.run->step(3, number, kSteps);
  check_against_formula(world, {running});
}

TEST_CASE("ewc: a parameter without a gradient is pulled as well, and memory does not grow with the tasks") {
  World world({});
  const std::size_t names = world.strategy->state().size();
  world.run->train(0, kSteps);
  world.run->train(1, kSteps);
  CHECK(world.strategy->state().size() == names);
  world.run->begin(2, kSteps);
  world.run->step(2, 0, kSteps);
  const std::vector<Tensor> expected = world.pull();
  const Task task = world.run->task(2, kSteps);
  const Parameters parameters = world.strategy->parameters();
  for (const Parameter& p : parameters) p.value.mutable_grad().reset();
  Step step{
      .task = task, .number = 1, .backbone = world.backbone, .batch = {}, .out = {}, .trainable = parameters};
  const at::NoGradGuard no_grad;
  world.strategy->on_gradients(step);
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    REQUIRE(parameters[k].value.grad().defined());
    CHECK(worst(parameters[k].value.grad(), expected[k]) < 1e-12);
  }
}

TEST_CASE("ewc: the Fisher pass spreads over the stage and leaves no gradient behind") {
  // 12 examples, 2 batches of 2: examples 0, 3, 6 and 9
  World world({{"fisher_batches", std::int64_t{2}}, {"fisher_batch", std::int64_t{2}}});
  world.run->train(0, kSteps);
  const std::vector<ExamplePtr> data = world.run->data(0);
  const Parameters parameters = world.strategy->parameters();
  const Anchor expected = measure(world.backbone, parameters, {data[0], data[3], data[6], data[9]}, 1);
  const StateDict state = world.strategy->state();
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    CHECK(worst(state.at("ewc.fisher." + parameters[k].name), expected.fisher[k]) < 1e-14);
    CHECK_FALSE(parameters[k].value.grad().defined());
  }
}

TEST_CASE("ewc: a stiffer penalty stays nearer to the earlier solution") {
  const auto distance = [](double lambda) {
    fake::FakeBackbone backbone;
    fake::FakeHost host;
    const fake::StrategyPtr strategy =
        fake::create("ewc", "ewc", host, {{"lambda", lambda}, {"rank", std::int64_t{4}}});
    fake::Run run(*strategy, backbone, host, 2);
    run.train(0, 10);
    const StateDict before = strategy->state();
    run.train(1, 10);
    double sum = 0.0;
    for (const Parameter& p : strategy->parameters())
      sum += (before.at("ewc.fisher." + p.name) * (p.value.detach() - before.at(p.name)).square())
                 .sum()
                 .item<double>();
    return sum;
  };
  // Strong, but below the 2 / (rate · F) at which plain gradient descent leaves a valley of curvature F.
  CHECK(distance(10.0) < 0.5 * distance(0.0));
}

TEST_CASE("ewc: settings out of range are refused") {
  fake::FakeHost host;
  const std::vector<Settings> bad = {{{"lambda", -1.0}},
                                     {{"gamma", 1.5}},
                                     {{"fisher_batches", std::int64_t{0}}},
                                     {{"fisher_batch", std::int64_t{0}}},
                                     {{"record_every", std::int64_t{-1}}},
                                     {{"fisher", std::string("exact")}}};
  for (const Settings& settings : bad)
    CHECK_THROWS_AS(fake::create("ewc", "ewc", host, settings), ConfigError);
}
