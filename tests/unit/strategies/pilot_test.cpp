// Pilot's promises, in double precision: the connector computes what its equations say, the difference loss
// is that of its definition, stages change what answers, and nothing of the client's own leaves it.
#include <cmath>
#include <set>

#include "../../../plugins/pilot/connector_adapters.hpp"
#include "unit/strategies/fake_backbone.hpp"
#include "unit/strategies/plugin_file.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using fake::same_bytes;
using fake::Settings;

namespace {

constexpr std::int64_t kSteps = 6;

struct World : fake::World {
  explicit World(const Settings& more = {}, std::int64_t tasks = 3)
      : fake::World("pilot", "pilot", {{"rank", std::int64_t{2}}, {"width", std::int64_t{5}}}, more, tasks) {}
  Federated& facet() { return *strategy->federated(); }
};

double worst(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

Tensor drawn(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, fake::generator(seed), at::TensorOptions(at::kDouble));
}

/// ψ_i(H) of the tensors named "<prefix>…".
Tensor mlp(const StateDict& s, const std::string& prefix, const Tensor& h) {
  return at::linear(at::gelu(at::linear(h, s.at(prefix + "down.weight"), s.at(prefix + "down.bias"))),
                    s.at(prefix + "up.weight"));
}

std::set<std::string> trained(Strategy& strategy) {
  std::set<std::string> names;
  for (const Parameter& p : strategy.parameters())
    if (p.value.requires_grad()) names.insert(p.name);
  return names;
}

/// A connector of three tasks with values that are not zero, and its tensors by name.
struct Connector {
  explicit Connector(bool own_in_gate = false, double client_scale = 1.0)
      : adapters(std::make_shared<pilot::ConnectorAdapters>(
            pilot::ConnectorOptions{{"a", "b", "c"}, 5, true, client_scale, 0.5, own_in_gate})),
        site(*backbone.sites("connector").front()) {
    adapters->attach(backbone, fake::generator(1));
    const at::NoGradGuard no_grad;
    std::uint64_t seed = 40;
    for (const Parameter& p : adapters->parameters()) {
      p.value.detach().copy_(drawn(p.value.sizes(), ++seed));
      state[p.name] = p.value.detach().clone();
    }
  }
  Tensor output(const Tensor& h) const {
    RouteContext route;
    return fake::site_output(site, h, route);
  }
  Tensor base(const Tensor& h) const { return at::linear(h, site.weight(), site.bias()); }

  fake::FakeBackbone backbone;
  std::shared_ptr<pilot::ConnectorAdapters> adapters;
  Site& site;
  StateDict state;
};

}  // namespace

TEST_CASE("pilot: stage 1 adds the task's and the client's MLP to the connector") {
  const at::NoGradGuard no_grad;
  Connector c;
  const Tensor h = drawn({3, fake::kVision}, 7);
  c.adapters->route({{1, 1, 1}, {}, false, false});
  CHECK(worst(c.output(h), c.base(h) + mlp(c.state, "pilot.task.b.", h) + mlp(c.state, "pilot.client.", h)) <
        1e-12);
  // Pictures of several tasks, one row each; -1: the client's alone.
  c.adapters->route({{2, -1, 0}, {}, false, false});
  const Tensor y = c.output(h), client = c.base(h) + mlp(c.state, "pilot.client.", h);
  CHECK(worst(y[0], (client + mlp(c.state, "pilot.task.c.", h))[0]) < 1e-12);
  CHECK(worst(y[1], client[1]) < 1e-12);
  CHECK(worst(y[2], (client + mlp(c.state, "pilot.task.a.", h))[2]) < 1e-12);

  Connector quarter(false, 0.25);
  quarter.adapters->route({{1, 1, 1}, {}, false, false});
  CHECK(worst(quarter.output(h), quarter.base(h) + mlp(quarter.state, "pilot.task.b.", h) +
                                     0.25 * mlp(quarter.state, "pilot.client.", h)) < 1e-12);
}

TEST_CASE("pilot: CT-MoA adds the other known tasks' MLPs by the router's softmax") {
  const at::NoGradGuard no_grad;
  for (const bool own_in_gate : {false, true}) {
    Connector c(own_in_gate);
    const Tensor h = drawn({2, fake::kVision}, 8);
    const Tensor scores = at::linear(h, c.state.at("pilot.router.weight"));
    const Tensor rest = c.base(h) + mlp(c.state, "pilot.task.a.", h) + mlp(c.state, "pilot.client.", h);
    const auto part = [&](const Tensor& gate, std::int64_t column, const char* task) {
      return gate.narrow(1, column, 1) * mlp(c.state, std::string("pilot.task.") + task + ".", h);
    };
    // All known: g over b and c (or a, b, c); a's own output is there once, whatever its share.
    c.adapters->route({{0, 0}, {true, true, true}, true, false});
    const Tensor g =
        own_in_gate ? at::softmax(scores, 1).narrow(1, 1, 2) : at::softmax(scores.narrow(1, 1, 2), 1);
    CHECK(worst(c.output(h), rest + part(g, 0, "b") + part(g, 1, "c")) < 1e-12);
    // b is not known: all of the others' weight goes to c.
    c.adapters->route({{0, 0}, {true, false, true}, true, false});
    const Tensor few =
        own_in_gate
            ? at::softmax(scores.index_select(1, at::tensor(std::vector<std::int64_t>{0, 2}, at::kLong)), 1)
                  .narrow(1, 1, 1)
            : at::ones({2, 1}, at::kDouble);
    CHECK(worst(c.output(h), rest + part(few, 0, "c")) < 1e-12);
    // Nobody else: stage 1's output.
    c.adapters->route({{0, 0}, {true, false, false}, true, false});
    CHECK(worst(c.output(h), rest) < 1e-12);
    // For pictures of a alone: a row of c has its own MLP and no other.
    c.adapters->route({{0, 2}, {true, true, true}, true, false, {true, false, false}});
    const Tensor y = c.output(h),
                 plain = rest - mlp(c.state, "pilot.task.a.", h) + mlp(c.state, "pilot.task.c.", h);
    CHECK(worst(y[0], (rest + part(g, 0, "b") + part(g, 1, "c"))[0]) < 1e-12);
    CHECK(worst(y[1], plain[1]) < 1e-12);
  }
}

TEST_CASE("pilot: the difference loss by hand") {
  // X centred: (-1, 0), (1, 0), rows of unit length. Y the same: X'Y = diag(2, 0), 4 / 2 rows.
  const Tensor x = at::tensor({0.0, 3.0, 2.0, 3.0}, at::kDouble).view({2, 2});
  CHECK(std::fabs(pilot::difference_loss(x, x).item<double>() - 2.0) < 1e-10);
  // Four rows whose signs are orthogonal: X'Y = 0.
  const Tensor p = at::tensor({1.0, 1.0, -1.0, -1.0}, at::kDouble).view({4, 1});
  const Tensor q = at::tensor({1.0, -1.0, 1.0, -1.0}, at::kDouble).view({4, 1});
  CHECK(pilot::difference_loss(p, q).item<double>() < 1e-20);
  CHECK(std::fabs(pilot::difference_loss(p, p).item<double>() - 4.0) < 1e-10);  // 4² / 4
  CHECK(pilot::difference_loss(at::zeros({4, 1}, at::kDouble), p).item<double>() == 0.0);
  // Rows of length 1 over sqrt(1 + 3): a half each, a quarter the product, a sixteenth the square.
  CHECK(std::fabs(pilot::difference_loss(p, p, std::sqrt(3.0)).item<double>() - 4.0 / 16.0) < 1e-10);
}

TEST_CASE("pilot: the loss has the difference of what the passes since route() gave") {
  Connector c;
  const Tensor h = drawn({4, fake::kVision}, 9);
  c.adapters->route({{2, 2, 2, 2}, {}, false, true});
  c.output(h.narrow(0, 0, 1));  // in two passes, as pictures may come
  c.output(h.narrow(0, 1, 3));
  const Tensor expected =
      pilot::difference_loss(mlp(c.state, "pilot.task.c.", h), mlp(c.state, "pilot.client.", h), 0.5);
  CHECK(worst(c.adapters->difference(), expected) < 1e-12);
  c.adapters->route({{2}, {}, false, false});
  c.output(h);
  CHECK_FALSE(c.adapters->difference().defined());
}

TEST_CASE("pilot: only this task's MLP trains, the others keep their bytes, the router moves in stage 2") {
  World world;
  world.run.train(0, kSteps);
  const StateDict first = world.state();
  CHECK(first.at("pilot.task.task0.up.weight").count_nonzero().item<std::int64_t>() > 0);
  CHECK(first.at("pilot.router.weight").count_nonzero().item<std::int64_t>() == 0);  // no other task yet
  world.run.train(1, kSteps);
  world.run.begin(2, kSteps);
  const std::set<std::string> names = trained(*world.strategy);
  CHECK(names.contains("pilot.task.task2.up.weight"));
  CHECK(names.contains("pilot.client.up.weight"));
  CHECK_FALSE(names.contains("pilot.task.task0.up.weight"));
  const StateDict before = world.state();
  for (std::int64_t step = 0; step < kSteps / 2; ++step) world.run.step(2, step, kSteps);
  const StateDict half = world.state();
  CHECK(same_bytes(before.at("pilot.router.weight"), half.at("pilot.router.weight")));  // stage 1
  CHECK(half.at("pilot.gated").equal(at::tensor({1, 1, 0}, at::kLong)));
  for (std::int64_t step = kSteps / 2; step < kSteps; ++step) world.run.step(2, step, kSteps);
  const StateDict after = world.state();
  CHECK_FALSE(same_bytes(half.at("pilot.router.weight"), after.at("pilot.router.weight")));
  CHECK(after.at("pilot.gated").equal(at::ones({3}, at::kLong)));
  for (const char* name : {"pilot.task.task0.up.weight", "pilot.task.task1.down.weight"})
    CHECK(same_bytes(before.at(name), after.at(name)));
}

TEST_CASE("pilot: in stage 2 the task's MLP can be held") {
  World world(Settings{{"stage_2_trains", std::string("gate")}});
  for (const std::int64_t stage : {0, 1}) world.run.train(stage, kSteps);
  world.run.begin(2, kSteps);
  for (std::int64_t step = 0; step < kSteps / 2; ++step) world.run.step(2, step, kSteps);
  const StateDict half = world.state();
  for (std::int64_t step = kSteps / 2; step < kSteps; ++step) world.run.step(2, step, kSteps);
  const StateDict after = world.state();
  for (const char* part : {"down.weight", "down.bias", "up.weight"}) {
    const std::string name = std::string("pilot.task.task2.") + part;
    INFO(name);
    CHECK(half.at(name).count_nonzero().item<std::int64_t>() > 0);
    CHECK(same_bytes(half.at(name), after.at(name)));
  }
  for (const char* name : {"pilot.router.weight", "pilot.client.up.weight"})
    CHECK_FALSE(same_bytes(half.at(name), after.at(name)));
}

TEST_CASE("pilot: what leaves a client is LoRA and its task's MLP and key; what it keeps is never replaced") {
  World world;
  const StateDict all = world.facet().upload();
  world.run.train(1, kSteps);
  const StateDict sent = world.facet().upload();
  const StateDict state = world.state();
  std::int64_t tensors = 0;
  for (const auto& [name, tensor] : sent) {
    INFO(name);
    CHECK((name.starts_with("language_model.") || name.starts_with("pilot.task.task1.")));
    CHECK(all.contains(name));
    CHECK(same_bytes(tensor, state.at(name)));
    ++tensors;
  }
  CHECK(tensors == 4 * 2 + 3 + 1);  // A and B at four sites; U, c, V; the key
  CHECK_FALSE(all.contains("pilot.client.up.weight"));
  CHECK_FALSE(all.contains("pilot.router.weight"));

  World other;
  other.run.train(0, kSteps);
  const StateDict own = other.state();
  other.facet().download(sent);
  const StateDict mixed = other.state();
  for (const auto& [name, tensor] : mixed)
    CHECK(same_bytes(tensor, sent.contains(name) ? sent.at(name) : own.at(name)));
  CHECK_THROWS_AS(other.facet().download({{"pilot.client.up.weight", own.at("pilot.client.up.weight")}}),
                  CheckpointError);
}

TEST_CASE("pilot: the facet's mean is over those that sent a tensor") {
  World world;
  const Tensor one = at::ones({2}, at::kDouble);
  const std::vector<Upload> round{{"a", 1, {{"x", one * 2.0}, {"l", one}}},
                                  {"b", 3, {{"x", one * 6.0}, {"l", one}}},
                                  {"c", 4, {{"l", one * 3.0}}}};
  const StateDict next = world.facet().aggregate(round, "a");
  CHECK(worst(next.at("x"), one * 5.0) == 0.0);  // (1 2 + 3 6) / 4
  CHECK(worst(next.at("l"), one * 2.0) == 0.0);  // (1 + 3 + 12) / 8
}

TEST_CASE("pilot: without client adapter, difference loss or CT-MoA") {
  World plain(Settings{{"client_adapter", false}, {"ct_moa", false}});
  for (std::int64_t stage = 0; stage < 3; ++stage) plain.run.train(stage, kSteps);
  const StateDict s = plain.state();
  CHECK_FALSE(s.contains("pilot.client.up.weight"));
  CHECK(s.at("pilot.router.weight").count_nonzero().item<std::int64_t>() == 0);
  // Without a client's MLP there is nothing to differ from: the weight changes nothing.
  World none(Settings{{"client_adapter", false}, {"ct_moa", false}, {"difference_weight", 0.0}});
  for (std::int64_t stage = 0; stage < 3; ++stage) none.run.train(stage, kSteps);
  for (const auto& [name, tensor] : none.state()) CHECK(same_bytes(tensor, s.at(name)));
  // With one, it does.
  World with(Settings{{"difference_weight", 1.0}}), without(Settings{{"difference_weight", 0.0}});
  with.run.train(0, kSteps);
  without.run.train(0, kSteps);
  CHECK_FALSE(
      same_bytes(with.state().at("pilot.client.up.weight"), without.state().at("pilot.client.up.weight")));
}

TEST_CASE("pilot: settings that make no sense are named") {
  CHECK_THROWS_AS(World(Settings{{"difference_weight", -1.0}}), ConfigError);
  CHECK_THROWS_AS(World(Settings{{"client_scale", 0.0}}), ConfigError);
  CHECK_THROWS_AS(World(Settings{{"stage_1_rounds", std::int64_t{0}}, {"stage_2_rounds", std::int64_t{0}}}),
                  ConfigError);
  CHECK_THROWS_AS(World(Settings{{"schedule", std::string("both")}}), ConfigError);
}
