// The hook runner and the training step, on the small backbone that the strategies' tests use.
#include "train/step.hpp"

#include <torch/csrc/autograd/autograd.h>

#include <limits>

#include "unit/strategies/fake_backbone.hpp"

#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include "torch_catch.hpp"

namespace mcit::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;
using fake::FakeBackbone;
using fake::FakeBatches;

/// Trains the decoder; every hook calls what the test put under its name.
class Scripted final : public Strategy {
 public:
  std::map<std::string, std::function<void(Step*)>> on;
  std::function<Tensor(Step&, Tensor)> on_loss;
  Parameters trained;

  void on_stream_begin(const StreamInfo&) override { call("on_stream_begin"); }
  std::vector<Stage> plan(const StreamInfo&) const override {
    call("plan");
    return {};
  }
  void attach(Backbone&) override { call("attach"); }
  void before_task(const Task&, Batches&, Backbone&) override { call("before_task"); }
  void before_forward(Step& step) override { call("before_forward", &step); }
  Tensor loss(Step& step, Tensor base) override {
    call("loss", &step);
    return on_loss ? on_loss(step, base) : base;
  }
  void on_gradients(Step& step) override { call("on_gradients", &step); }
  void after_step(Step& step) override { call("after_step", &step); }
  void after_task(const Task&, Batches&, Backbone&) override { call("after_task"); }
  Selection select(const Batch&, Backbone&) override {
    call("select");
    return {{3}};
  }
  Parameters parameters() const override {
    call("parameters");
    return trained;
  }
  StateDict state() const override {
    call("state");
    return {};
  }
  void load_state(const StateDict&) override { call("load_state"); }
  std::int64_t stored_parameters() const override {
    call("stored_parameters");
    return 5;
  }

 private:
  void call(const std::string& hook, Step* step = nullptr) const {
    if (const auto found = on.find(hook); found != on.end()) found->second(step);
  }
};

/// A backbone, a strategy and a runner around it, in stage "geo", the second.
struct World {
  explicit World(std::vector<ExamplePtr> data = fake::make_task(1, 12)) : examples(std::move(data)) {
    strategy.trained = backbone.parameters("decoder");
    for (Parameter& p : strategy.trained) p.value.set_requires_grad(true);
    hooks.at(task, 4);
  }

  /// Every hook once. @return their names
  std::vector<std::string> run_all() {
    Step step{.task = task, .backbone = backbone, .batch = {{examples[0]}}, .out = {}};
    FakeBatches batches(examples);
    hooks.on_stream_begin({});
    hooks.plan({});
    hooks.attach(backbone);
    hooks.before_task(task, batches, backbone);
    hooks.before_forward(step);
    hooks.loss(step, at::ones({}));
    hooks.on_gradients(step);
    hooks.after_step(step);
    hooks.after_task(task, batches, backbone);
    hooks.select({{examples[0]}}, backbone);
    hooks.state();
    hooks.load_state({});
    hooks.parameters();
    hooks.stored_parameters();
    return {"on_stream_begin", "plan",
            "attach",          "before_task",
            "before_forward",  "loss",
            "on_gradients",    "after_step",
            "after_task",      "select",
            "state",           "load_state",
            "parameters",      "stored_parameters"};
  }

  /// Batches of `size` examples in order.
  BatchSource batches(std::size_t size) {
    return [this, size](std::int64_t index) {
      Batch out;
      for (std::size_t i = 0; i < size; ++i)
        out.examples.push_back(examples[(static_cast<std::size_t>(index) * size + i) % examples.size()]);
      return out;
    };
  }

  StepResult step(std::int64_t number, std::size_t batch, const TrainOptions& options) {
    if (!optimizer) optimizer = std::make_unique<AdamW>(strategy.trained, options.adamw);
    return train_step(task, number, backbone, hooks, *optimizer, batches(batch), options,
                      [&](const Batch& seen, double value) {
                        refused.push_back(seen);
                        refused_value = value;
                      });
  }

  FakeBackbone backbone;
  Scripted strategy;
  HookRunner hooks{strategy, "scripted"};
  Task task{1, "geo", {1}, 10};
  std::vector<ExamplePtr> examples;
  std::unique_ptr<AdamW> optimizer;
  std::vector<Batch> refused;
  double refused_value = 0.0;
};

const TrainOptions kPlain = {.steps = 10,
                             .accumulation = 1,
                             .learning_rate = {{"base", 0.1}},
                             .schedule = "constant",
                             .warmup = 0.0,
                             .clip = 0.0,
                             .adamw = {}};

std::vector<Tensor> copies(const Parameters& parameters, bool gradients) {
  std::vector<Tensor> out;
  for (const Parameter& p : parameters)
    out.push_back(gradients ? (p.value.grad().defined() ? p.value.grad().clone() : Tensor())
                            : p.value.detach().clone());
  return out;
}

double worst(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double out = a.size() == b.size() ? 0.0 : 1e9;
  for (std::size_t i = 0; i < a.size() && i < b.size(); ++i) {
    if (a[i].defined() != b[i].defined()) return 1e9;
    if (a[i].defined()) out = std::max(out, (a[i] - b[i]).abs().max().item<double>());
  }
  return out;
}

}  // namespace

TEST_CASE("each hook runs in its grad mode, and the caller's comes back") {
  World w;
  std::map<std::string, bool> grad;
  for (const std::string& hook : w.run_all())
    w.strategy.on[hook] = [&grad, hook](Step*) { grad[hook] = at::GradMode::is_enabled(); };
  for (const bool outside : {true, false}) {
    const at::AutoGradMode mode(outside);
    grad.clear();
    const auto hooks = w.run_all();
    CHECK(at::GradMode::is_enabled() == outside);
    CHECK(grad.size() == hooks.size());
    for (const std::string& hook : hooks) {
      INFO(hook);
      CHECK(grad.at(hook) == (hook == "before_task" || hook == "loss" || hook == "after_task"));
    }
  }
}

TEST_CASE("the listener hears each hook before it runs, and each call is counted") {
  World w;
  std::vector<std::string> heard;
  w.hooks.set_listener([&](const char* hook) { heard.emplace_back(hook); });
  w.strategy.on["attach"] = [&](Step*) { CHECK(heard.back() == "attach"); };
  const auto hooks = w.run_all();
  CHECK(heard == hooks);
  w.strategy.on["loss"] = [](Step*) { throw Error("x", "y"); };
  CHECK_THROWS_AS(w.run_all(), StrategyError);
  for (const std::string& hook : hooks) CHECK(w.hooks.costs().at(hook).calls >= 1);
  CHECK(w.hooks.costs().at("loss").calls == 2);  // also the one that threw
  CHECK(w.hooks.costs().at("on_gradients").calls == 1);
  CHECK(w.hooks.select({{std::make_shared<Example>()}}, w.backbone).task == std::vector<std::int64_t>{3});
  CHECK_THROWS_AS(w.hooks.select({}, w.backbone), StrategyError);  // one task for no example
  CHECK(w.hooks.stored_parameters() == 5);
}

TEST_CASE("an exception in a hook names strategy, hook, task and step") {
  World w;
  for (const std::string& hook : w.run_all()) {
    INFO(hook);
    World other;
    other.strategy.on[hook] = [](Step*) { throw std::runtime_error("boom"); };
    CHECK_THROWS_MATCHES(other.run_all(), StrategyError,
                         Message("'scripted' in " + hook + ", task 2 'geo', step 4: boom"));
    CHECK(at::GradMode::is_enabled());
  }
}

TEST_CASE("the place of a failure says only what is known") {
  World w;
  w.strategy.on["attach"] = [](Step*) { throw Error("site q_proj", "is taken"); };
  w.hooks.at(w.task, -1);
  CHECK_THROWS_MATCHES(w.hooks.attach(w.backbone), StrategyError,
                       Message("'scripted' in attach, task 2 'geo': site q_proj: is taken"));
  HookRunner early(w.strategy, "early");
  CHECK_THROWS_MATCHES(early.attach(w.backbone), StrategyError,
                       Message("'early' in attach: site q_proj: is taken"));
}

TEST_CASE("whatever a hook throws becomes a StrategyError") {
  World w;
  w.strategy.on["attach"] = [](Step*) { throw 5; };
  CHECK_THROWS_MATCHES(w.hooks.attach(w.backbone), StrategyError,
                       Message("'scripted' in attach, task 2 'geo', step 4: threw something that is no "
                               "std::exception"));
  w.strategy.on["attach"] = [](Step*) { throw StrategyError("inner", "reason"); };
  CHECK_THROWS_MATCHES(w.hooks.attach(w.backbone), StrategyError,
                       MessageMatches(ContainsSubstring("inner: reason")));
  w.strategy.on["attach"] = [](Step*) { at::ones({2}).view({3}); };  // LibTorch's own, without its frames
  CHECK_THROWS_MATCHES(
      w.hooks.attach(w.backbone), StrategyError,
      MessageMatches(ContainsSubstring("shape '[3]' is invalid") && !ContainsSubstring("frame #")));
}

TEST_CASE("a step is AdamW on the gradient of the batch's mean answer loss") {
  World w, by_hand;
  Batch batch = by_hand.batches(4)(2);
  const Tensor loss = answer_loss(by_hand.backbone.forward(batch));
  std::vector<Tensor> values;
  for (const Parameter& p : by_hand.strategy.trained) values.push_back(p.value);
  const auto gradients = torch::autograd::grad({loss}, values, {}, std::nullopt, false, true);
  double sum = 0.0;
  for (const Tensor& g : gradients)
    if (g.defined()) sum += g.square().sum().item<double>();
  std::vector<Tensor> seen;
  w.strategy.on["on_gradients"] = [&](Step* step) {
    seen = copies({step->trainable.begin(), step->trainable.end()}, true);
    CHECK(step->number == 2);
    CHECK(step->batch.size() == 4);
    CHECK(step->trainable.size() == values.size());
  };
  std::vector<Tensor> after;
  w.strategy.on["after_step"] = [&](Step*) { after = copies(w.strategy.trained, false); };
  const std::vector<Tensor> before = copies(w.strategy.trained, false);
  const StepResult result = w.step(2, 4, kPlain);
  CHECK(std::abs(result.loss - loss.item<double>()) < 1e-12);
  CHECK(std::abs(result.gradient_norm - std::sqrt(sum)) < 1e-12);
  CHECK(result.rate == 1.0);
  CHECK(result.examples == 4);
  CHECK(result.tokens == 4 + 5 + 4 + 5);
  CHECK(worst(seen, {gradients.begin(), gradients.end()}) < 1e-12);
  // Adam's first step is the rate times g / (|g| + eps).
  std::vector<Tensor> expected;
  for (std::size_t i = 0; i < before.size(); ++i)
    expected.push_back(gradients[i].defined() ? before[i] - 0.1 * gradients[i] / (gradients[i].abs() + 1e-8)
                                              : before[i]);
  CHECK(worst(after, expected) < 1e-9);
  CHECK(worst(before, expected) > 0.05);
}

TEST_CASE("accumulation over micro-batches of equal weight equals one batch") {
  // Two examples that follow each other have three labelled rows together: the mean of means is the mean.
  World whole, parts;
  std::vector<Tensor> one, three;
  std::vector<std::int64_t> micro;
  whole.strategy.on["on_gradients"] = [&](Step* step) {
    one = copies({step->trainable.begin(), step->trainable.end()}, true);
  };
  parts.strategy.on["on_gradients"] = [&](Step* step) {
    three = copies({step->trainable.begin(), step->trainable.end()}, true);
  };
  parts.strategy.on["before_forward"] = [&](Step* step) { micro.push_back(step->micro_step); };
  TrainOptions accumulated = kPlain;
  accumulated.accumulation = 3;
  for (std::int64_t number = 0; number < 3; ++number) {
    const StepResult a = whole.step(number, 6, kPlain), b = parts.step(number, 2, accumulated);
    CHECK(std::abs(a.loss - b.loss) < 1e-9);
    CHECK(std::abs(a.gradient_norm - b.gradient_norm) < 1e-9);
    CHECK(a.examples == b.examples);
    CHECK(a.tokens == b.tokens);
    CHECK(worst(one, three) < 1e-9);
    CHECK(worst(copies(whole.strategy.trained, false), copies(parts.strategy.trained, false)) < 1e-6);
  }
  CHECK(micro == std::vector<std::int64_t>{0, 1, 2, 0, 1, 2, 0, 1, 2});
}

TEST_CASE("what the strategy's loss() returns is what is differentiated") {
  World plain, scaled;
  std::vector<Tensor> g, h;
  plain.strategy.on["on_gradients"] = [&](Step*) { g = copies(plain.strategy.trained, true); };
  scaled.strategy.on["on_gradients"] = [&](Step*) { h = copies(scaled.strategy.trained, true); };
  const Parameter* penalised = nullptr;
  for (const Parameter& p : scaled.strategy.trained)
    if (p.name.ends_with("lm_head.weight")) penalised = &p;
  REQUIRE(penalised != nullptr);
  double base_seen = 0.0;
  scaled.strategy.on_loss = [&](Step& step, const Tensor& base) {
    base_seen = base.item<double>();
    CHECK(step.out.logits.size(0) == 3);
    CHECK(std::abs(answer_loss(step.out).item<double>() - base_seen) < 1e-15);
    return 2.0 * base + 0.25 * penalised->value.square().sum();
  };
  const double penalty = 0.25 * penalised->value.detach().square().sum().item<double>();
  const Tensor head = penalised->value.detach().clone();
  const double a = plain.step(0, 2, kPlain).loss, b = scaled.step(0, 2, kPlain).loss;
  CHECK(std::abs(base_seen - a) < 1e-12);
  CHECK(std::abs(b - (2.0 * a + penalty)) < 1e-12);
  for (std::size_t i = 0; i < g.size(); ++i) {
    if (!g[i].defined()) continue;
    const bool head_too = &scaled.strategy.trained[i] == penalised;
    const Tensor expected = head_too ? 2.0 * g[i] + 0.5 * head : 2.0 * g[i];
    CHECK((h[i] - expected).abs().max().item<double>() < 1e-12);
  }
}

TEST_CASE("gradients changed in on_gradients are clipped and applied") {
  World w;
  TrainOptions clipped = kPlain;
  clipped.clip = 0.5;
  w.strategy.on["on_gradients"] = [&](Step* step) {
    for (const Parameter& p : step->trainable) p.value.mutable_grad() = at::ones_like(p.value.detach());
  };
  double count = 0.0;
  for (const Parameter& p : w.strategy.trained) count += static_cast<double>(p.value.numel());
  std::vector<Tensor> used;
  w.strategy.on["after_step"] = [&](Step*) { used = copies(w.strategy.trained, true); };
  CHECK(std::abs(w.step(0, 2, clipped).gradient_norm - std::sqrt(count)) < 1e-9);
  for (const Tensor& g : used)
    CHECK((g - 0.5 / (std::sqrt(count) + 1e-6)).abs().max().item<double>() < 1e-12);
}

TEST_CASE("warm-up and decay set the rate of each step") {
  World w;
  TrainOptions options = kPlain;
  options.schedule = "linear";
  options.warmup = 0.15;  // of ten steps: ceil(1.5), as Trainer's get_warmup_steps
  CHECK(w.step(0, 2, options).rate == 0.0);
  CHECK(w.step(1, 2, options).rate == 0.5);
  CHECK(w.step(2, 2, options).rate == 1.0);
  CHECK(w.step(9, 2, options).rate == 0.125);
  World still;
  const auto before = copies(still.strategy.trained, false);
  still.step(0, 2, options);
  CHECK(worst(copies(still.strategy.trained, false), before) == 0.0);
}

TEST_CASE("a loss that is not finite hands over the batch and ends the step before any update") {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    World w;
    const auto before = copies(w.strategy.trained, false);
    w.strategy.on["before_forward"] = [&](Step* step) { step->batch.examples.push_back(w.examples[7]); };
    w.strategy.on_loss = [&](Step&, const Tensor& base) { return base * bad; };
    CHECK_THROWS_MATCHES(w.step(3, 2, kPlain), Error,
                         MessageMatches(ContainsSubstring("task 2 'geo', step 3: the loss is not finite")));
    REQUIRE(w.refused.size() == 1);
    REQUIRE(w.refused[0].size() == 3);  // as the model saw it
    CHECK(w.refused[0].examples[2] == w.examples[7]);
    CHECK_FALSE(std::isfinite(w.refused_value));
    CHECK(worst(copies(w.strategy.trained, false), before) == 0.0);
  }
}

TEST_CASE("a gradient that is not finite ends the step before any update, clipped or not") {
  for (const double limit : {0.0, 1.0}) {
    World w;
    TrainOptions options = kPlain;
    options.clip = limit;
    const auto before = copies(w.strategy.trained, false);
    w.strategy.on["on_gradients"] = [](Step* step) {
      for (const Parameter& p : step->trainable)
        if (p.value.grad().defined()) p.value.grad().mul_(std::numeric_limits<double>::quiet_NaN());
    };
    CHECK_THROWS_MATCHES(w.step(3, 2, options), Error,
                         MessageMatches(ContainsSubstring("step 3: the gradient is not finite")));
    CHECK(w.refused.size() == 1);
    CHECK(worst(copies(w.strategy.trained, false), before) == 0.0);
  }
}

TEST_CASE("an example added in before_forward is routed to its own task") {
  const auto replayed = fake::make_task(0, 2), other = fake::make_task(4, 1);
  const auto routes = [&](const std::function<void(Step&)>& change) {
    World w;
    std::vector<std::int64_t> begin, seen;
    w.strategy.on["before_forward"] = [&](Step* step) {
      begin = step->backbone.route().task;
      change(*step);
    };
    w.strategy.on["loss"] = [&](Step* step) { seen = step->backbone.route().task; };
    const StepResult result = w.step(0, 2, kPlain);
    CHECK(begin == std::vector<std::int64_t>{1, 1});
    CHECK(result.examples == static_cast<std::int64_t>(seen.size()));
    return seen;
  };
  using Tasks = std::vector<std::int64_t>;
  CHECK(routes([](Step&) {}) == Tasks{1, 1});
  CHECK(routes([&](Step& step) {
          step.batch.examples.push_back(replayed[0]);
          step.batch.examples.push_back(other[0]);
        }) == Tasks{1, 1, 0, 4});
  CHECK(routes([&](Step& step) {  // what a strategy says stays
          step.batch.examples.push_back(replayed[0]);
          step.backbone.route().task = {7, 8};
        }) == Tasks{7, 8, 0});
}

TEST_CASE("an example put in front or in another's place is routed to its own task too") {
  const auto replayed = fake::make_task(0, 2);
  for (const bool in_front : {true, false}) {
    INFO((in_front ? "in front" : "in place of the first"));
    World w;
    std::vector<std::int64_t> seen;
    w.strategy.on["before_forward"] = [&](Step* step) {
      auto& examples = step->batch.examples;
      if (in_front)
        examples.insert(examples.begin(), replayed[0]);
      else
        examples[0] = replayed[0];
    };
    w.strategy.on["loss"] = [&](Step* step) { seen = step->backbone.route().task; };
    w.step(0, 2, kPlain);
    CHECK(seen == (in_front ? std::vector<std::int64_t>{0, 1, 1} : std::vector<std::int64_t>{0, 1}));
  }
}

TEST_CASE("a failing hook inside a step is named with it") {
  World w;
  w.hooks.at(w.task, 6);
  w.strategy.on["on_gradients"] = [](Step*) { throw std::runtime_error("no basis yet"); };
  CHECK_THROWS_MATCHES(w.step(6, 2, kPlain), StrategyError,
                       Message("'scripted' in on_gradients, task 2 'geo', step 6: no basis yet"));
}

}  // namespace mcit::test
