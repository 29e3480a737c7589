// DISCO's promises, in double precision: what answers is Σ_c w_c s B_c A_c x with w = softmax(cos / 0.05), a
// client trains the one subspace that its data belongs to, and the strategy organises subspaces as the
// server's rule does.
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "../../../plugins/disco/slot_adapter.hpp"
#include "../../../plugins/disco/subspaces.hpp"
#include "unit/fed/bench.hpp"
#include "unit/strategies/fake_backbone.hpp"
#include "unit/strategies/plugin_file.hpp"

#include "torch_catch.hpp"
// After it.
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using namespace mcit;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using fake::same_bytes;
using fake::Settings;

namespace {

constexpr std::int64_t kSteps = 6;

struct World : fake::World {
  explicit World(const Settings& more = {}, std::int64_t tasks = 2)
      : fake::World("disco", "disco", {{"rank", std::int64_t{4}}, {"slots", std::int64_t{2}}, {"alpha", 6.0}},
                    more, tasks) {}
  Federated& facet() { return *strategy->federated(); }
  Batch of_task(std::int64_t task, std::size_t count = 3) const {
    Batch batch;
    const auto& rows = host.tasks.at(task);
    batch.examples.assign(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(count));
    return batch;
  }
};

Tensor drawn(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, fake::generator(seed), at::TensorOptions(at::kDouble));
}

double worst(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

std::string slot_name(const std::string& site, const char* factor) {
  return site + ".lora_" + factor + ".weight";
}

/// What the server would give after a round in which the clients have trained.
StateDict after_round(World& server, const std::vector<Upload>& round) {
  return server.facet().aggregate(round, "");
}

}  // namespace

TEST_CASE("disco: the gated product is the sum of the subspaces' own products") {
  const at::NoGradGuard no_grad;
  const Site site("s", drawn({5, 7}, 1));
  parts::LoraOptions options;
  options.rank = 2;
  const double scale = 1.5;
  const auto activation = std::make_shared<disco::Activation>();
  disco::SlotAdapter adapter(site, options, scale, activation, fake::generator(2));
  std::vector<Tensor> a, b;
  for (std::uint64_t c = 0; c < 3; ++c) {
    a.push_back(drawn({2, 7}, 10 + c));
    b.push_back(drawn({5, 2}, 20 + c));
  }
  adapter.set_subspaces(a, b);
  const Tensor x = drawn({6, 7}, 3);
  RouteContext route;
  route.rows.sequence = at::tensor(std::vector<std::int64_t>{0, 0, 1, 1, 1, 0}, at::kLong);
  activation->weights = at::softmax(drawn({2, 3}, 4), 1);
  const auto output = [&](const Tensor& rows) {
    return at::linear(adapter.mix(at::linear(rows, adapter.down()), {}, route, "s"), adapter.up());
  };
  const auto expected = [&](const Tensor& rows, const Tensor& sequence) {
    Tensor sum = at::zeros({rows.size(0), 5}, at::kDouble);
    for (std::int64_t c = 0; c < 3; ++c) {
      const auto i = static_cast<std::size_t>(c);
      const Tensor w = activation->weights.select(1, c).index_select(0, sequence).unsqueeze(1);
      sum += w * scale * at::linear(at::linear(rows, a[i]), b[i]);
    }
    return sum;
  };
  CHECK(worst(output(x), expected(x, route.rows.sequence)) < 1e-12);
  CHECK(adapter.reads() == Reads::first_row);
  // While tokens are generated, a sequence keeps the weights that it began with, also when others have ended.
  route.rows.decoding = true;
  route.memo["s"] = route.memo.at("s").index_select(0, at::tensor(std::vector<std::int64_t>{1}, at::kLong));
  route.rows.sequence = at::zeros({1}, at::kLong);
  CHECK(worst(output(x.narrow(0, 0, 1)), expected(x.narrow(0, 0, 1), at::ones({1}, at::kLong))) < 1e-12);
  // Without weights the pair that trains answers alone.
  activation->weights = Tensor();
  const Parameters own = adapter.parameters();
  CHECK(adapter.reads() == Reads::own_row);
  CHECK(adapter.down().is_same(own[0].value));
  CHECK(adapter.up().is_same(own[1].value));
}

TEST_CASE("disco: selective activation by hand") {
  // Two similarities 0.05 apart at temperature 0.05: odds of e.
  const Tensor w = disco::selective_activation(at::tensor({0.95, 0.9}, at::kDouble), 0.05);
  CHECK(std::fabs(w[0].item<double>() - std::exp(1.0) / (1.0 + std::exp(1.0))) < 1e-12);
  CHECK(disco::cosine(at::zeros({2}), at::ones({2})) == 0.0);
}

TEST_CASE("disco: subspaces are organised as the server's rule does it") {
  const std::int64_t width = 3;
  for (const double threshold : {0.0, 0.5, 0.9}) {
    INFO(threshold);
    fed::test::Bench bench(
        "rule = \"subspaces\"\nsmallest_share = 0.0\nslots = 3\nthreshold = " + std::to_string(threshold),
        {{"a", fed::test::doubles({2}, {0, 0})}, {"identity", fed::zeros(fed::Dtype::f32, {width})}});
    disco::Subspaces own(threshold, 3);
    for (std::uint64_t round = 0; round < 4; ++round) {
      std::vector<fed::test::Client> clients;
      std::vector<disco::Member> members;
      for (std::uint64_t k = 0; k < 4; ++k) {
        const Tensor identity = drawn({width}, 100 * round + k).to(at::kFloat),
                     value = drawn({2}, 500 * round + k);
        const auto n = static_cast<std::int64_t>(1 + (round + 3 * k) % 5);
        members.push_back({identity, static_cast<double>(n), {{"a", value}}});
        const auto numbers = [](const Tensor& t) {
          const Tensor wide = t.to(at::kDouble).contiguous();
          return std::vector<double>(wide.const_data_ptr<double>(),
                                     wide.const_data_ptr<double>() + wide.numel());
        };
        clients.push_back(
            {"client-" + std::to_string(k), n, {{"a", numbers(value)}, {"identity", numbers(identity)}}});
      }
      bench.take(clients);
      own.organise(members);
      StateDict mine;
      own.save(mine);
      for (const auto& [name, tensor] : mine) {
        INFO(name);
        REQUIRE(bench.state.contains(name));
        const std::vector<double> theirs = fed::values_of(bench.state.at(name));
        REQUIRE(theirs.size() == static_cast<std::size_t>(tensor.numel()));
        for (std::size_t i = 0; i < theirs.size(); ++i)
          CHECK(std::fabs(theirs[i] - tensor[static_cast<std::int64_t>(i)].item<double>()) < 1e-12);
      }
      CHECK_FALSE(bench.state.contains("prototype." + std::to_string(own.all().size())));
    }
  }
}

TEST_CASE("disco: the answer is that of all subspaces, weighted by how near the question is") {
  World world({{"threshold", 0.95}});
  for (std::int64_t stage = 0; stage < 2; ++stage) world.run.train(stage, kSteps);
  const at::NoGradGuard no_grad;
  const StateDict state = world.state();
  REQUIRE(state.contains("prototype.1"));
  CHECK_FALSE(state.contains("prototype.2"));
  Batch batch = world.of_task(0, 2);
  batch.examples.push_back(world.of_task(1).examples[0]);
  RouteContext& route = world.backbone.route();
  route.clear();
  route.task.assign(3, -1);
  CHECK(world.strategy->select(batch, world.backbone).task.empty());
  route.rows = {};
  route.rows.sequence = at::tensor(std::vector<std::int64_t>{0, 1, 2}, at::kLong);

  const Tensor text = world.backbone.text_features(batch).to(at::kDouble);
  std::vector<Tensor> cosines;
  for (const char* c : {"prototype.0", "prototype.1"}) {
    const Tensor p = state.at(c);
    cosines.push_back(at::mv(text / text.norm(2, 1, true), p / p.norm()));
  }
  const Tensor w = at::softmax(at::stack(cosines, 1) / 0.05, 1);
  CHECK(w[0][0].item<double>() > 0.5);
  CHECK(w[2][1].item<double>() > 0.5);
  const Site& site = *world.backbone.sites("up_proj").front();
  const Tensor x = drawn({3, site.in()}, 8);
  Tensor expected = at::linear(x, site.weight());
  for (std::int64_t c = 0; c < 2; ++c) {
    const std::string of = "subspace." + std::to_string(c) + "/";
    const Tensor a = state.at(of + slot_name(site.name(), "A")),
                 b = state.at(of + slot_name(site.name(), "B"));
    CHECK(a.size(0) == 2);  // rank / slots
    CHECK(b.count_nonzero().item<std::int64_t>() > 0);
    expected = expected + w.select(1, c).unsqueeze(1) * (6.0 / 4.0) * at::linear(at::linear(x, a), b);
  }
  CHECK(worst(fake::site_output(site, x, route), expected) < 1e-6);  // the weights are kept in float
}

TEST_CASE("disco: data like that of a subspace goes on training it, other data begins at the template") {
  World world({{"threshold", 0.95}}, 3);
  const StateDict blank = world.state();
  world.run.train(0, kSteps);
  const StateDict one = world.state();
  const std::string name = slot_name(world.backbone.sites("up_proj").front()->name(), "B");
  world.run.begin(1, kSteps);
  CHECK(same_bytes(world.state().at(name), blank.at("template/" + name)));
  world.run.begin(0, kSteps);
  CHECK(same_bytes(world.state().at(name), one.at("subspace.0/" + name)));
  CHECK_FALSE(same_bytes(world.state().at(name), blank.at("template/" + name)));
}

TEST_CASE("disco: a client sends one slot, what all share and its identity, and takes all subspaces") {
  World server, first({{"threshold", 0.95}}), second({{"threshold", 0.95}});
  const StateDict before = first.facet().upload();
  CHECK(before.at("identity").count_nonzero().item<std::int64_t>() == 0);
  for (World* world : {&first, &second}) world->run.begin(world == &first ? 0 : 1, kSteps);
  for (std::int64_t step = 0; step < kSteps; ++step) {
    first.run.step(0, step, kSteps);
    second.run.step(1, step, kSteps);
  }
  const StateDict sent = first.facet().upload();
  std::int64_t slots = 0;
  for (const auto& [name, tensor] : sent) {
    INFO(name);
    CHECK(before.contains(name));
    CHECK((name == "identity" || name.starts_with("language_model.") ||
           name.starts_with("multi_modal_projector.")));
    slots += name.ends_with("lora_A.weight") ? tensor.size(0) : 0;
  }
  CHECK(slots == 4 * 2);  // four sites, one slot each
  CHECK(sent.size() == 4 * 2 + 2 + 1);

  World host({{"threshold", 0.95}});
  const StateDict given = after_round(host, {{"a", 3, sent}, {"b", 5, second.facet().upload()}});
  CHECK(given.contains("subspace.1/" + slot_name(first.backbone.sites("up_proj").front()->name(), "A")));
  CHECK_FALSE(given.contains("identity"));
  const Tensor shared =
      sent.at("multi_modal_projector.linear_1.weight").to(at::kDouble) * 3.0 +
      second.facet().upload().at("multi_modal_projector.linear_1.weight").to(at::kDouble) * 5.0;
  CHECK(worst(given.at("multi_modal_projector.linear_1.weight"), shared / 8.0) < 1e-12);
  // Each client goes on with its own subspace, and both answer alike.
  const StateDict own = second.facet().upload();
  first.facet().download(given);
  second.facet().download(given);
  for (const auto& [name, tensor] : own)
    if (name.ends_with("lora_A.weight") || name.ends_with("lora_B.weight"))
      CHECK(worst(second.facet().upload().at(name), tensor) < 1e-12);
  CHECK(same_bytes(first.run.outputs(), second.run.outputs()));
}

TEST_CASE("disco: what it cannot work with is named") {
  CHECK_THROWS_MATCHES(World({{"slots", std::int64_t{3}}}), ConfigError,
                       MessageMatches(ContainsSubstring("strategy.slots: must divide the rank")));
  CHECK_THROWS_MATCHES(World({{"identity", std::string("image")}}), ConfigError,
                       MessageMatches(ContainsSubstring("strategy.activation")));
  World world;
  StateDict averaged = world.facet().upload();
  CHECK_THROWS_MATCHES(world.facet().download(averaged), ConfigError,
                       MessageMatches(ContainsSubstring("rule = \"subspaces\"")));
  World other({{"rank", std::int64_t{8}}, {"slots", std::int64_t{4}}});
  StateDict given = other.state();
  given.erase("identity");
  for (const auto& [name, tensor] : world.facet().upload()) given.erase(name);
  CHECK_THROWS_MATCHES(world.facet().download(given), CheckpointError,
                       MessageMatches(ContainsSubstring("slots")));
}
