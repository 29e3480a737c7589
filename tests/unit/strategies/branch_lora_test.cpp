// BranchLoRA's promises: what is frozen keeps its bytes, its special case is HydraLoRA, its keys point where
// the closed form says, and a state brings its branches and routers along.
#include <set>

#include "unit/strategies/fake_backbone.hpp"
#include "unit/strategies/plugin_file.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using fake::same_bytes;
using fake::Settings;

namespace {

constexpr std::int64_t kSteps = 6;

struct World : fake::World {
  explicit World(const Settings& more, std::int64_t tasks = 3)
      : fake::World("branch_lora", "branch_lora",
                    {{"rank", std::int64_t{8}}, {"experts", std::int64_t{4}}, {"top_k", std::int64_t{2}}},
                    more, tasks) {}
};

double worst(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

std::set<std::string> trained(Strategy& strategy) {
  std::set<std::string> names;
  for (const Parameter& p : strategy.parameters())
    if (p.value.requires_grad()) names.insert(p.name);
  return names;
}

const std::string kUp = "language_model.model.layers.0.mlp.up_proj.";

}  // namespace

TEST_CASE("branches that a task used most are frozen: their bytes stay, and nothing trains them") {
  World world(Settings{});
  world.run.train(0, kSteps);
  const Tensor frozen = world.state().at("branch.frozen");
  CHECK(frozen.sum(1).eq(2).all().item<bool>());  // the top 2 of 4 at every site
  const StateDict before = world.state();
  world.run.begin(1, kSteps);
  const std::set<std::string> names = trained(*world.strategy);
  for (std::int64_t j = 0; j < 4; ++j)
    CHECK(names.contains(kUp + "lora_B." + std::to_string(j) + ".weight") ==
          (frozen[0][j].item<std::int64_t>() == 0));
  CHECK(names.contains(kUp + "lora_A.weight"));
  CHECK(names.contains(kUp + "lora_router.1.weight"));
  CHECK_FALSE(names.contains(kUp + "lora_router.0.weight"));
  CHECK(names.contains("task_key.image.1"));
  CHECK_FALSE(names.contains("task_key.image.0"));
  for (std::int64_t step = 0; step < kSteps; ++step) world.run.step(1, step, kSteps);
  world.run.end(1, kSteps);
  const StateDict after = world.state();
  std::int64_t moved = 0;
  for (std::int64_t j = 0; j < 4; ++j) {
    const std::string name = kUp + "lora_B." + std::to_string(j) + ".weight";
    if (frozen[0][j].item<std::int64_t>() != 0)
      CHECK(same_bytes(before.at(name), after.at(name)));
    else
      moved += same_bytes(before.at(name), after.at(name)) ? 0 : 1;
  }
  CHECK(moved > 0);
  CHECK(same_bytes(before.at(kUp + "lora_router.0.weight"), after.at(kUp + "lora_router.0.weight")));
  CHECK(same_bytes(before.at("task_key.image.0"), after.at("task_key.image.0")));
  CHECK_FALSE(same_bytes(before.at(kUp + "lora_A.weight"), after.at(kUp + "lora_A.weight")));
}

TEST_CASE("the most active branches are those that the task's own router gave most weight") {
  World texts(Settings{{"probe_examples", std::int64_t{12}}});
  for (auto& [task, examples] : texts.host.tasks)  // a picture's first row is not the embedding's
    std::erase_if(examples, [](const ExamplePtr& e) { return !e->image.empty(); });
  texts.run.train(0, kSteps);
  const at::NoGradGuard no_grad;
  const Tensor embedding = texts.backbone.parameters("/embed_tokens/").front().value;
  const Tensor router = texts.state().at(kUp + "lora_router.0.weight");
  Tensor activity = at::zeros({4}, at::kDouble);
  for (const ExamplePtr& example : texts.host.tasks.at(0)) {
    const Tensor x = 2.0 * embedding[example->tokens[0]];  // the first row's mean so far is itself
    const auto [values, chosen] = at::topk(at::mv(router, x), 2);
    activity.index_add_(0, chosen, at::softmax(values, 0));
  }
  const Tensor top = std::get<1>(at::topk(activity, 2)), frozen = texts.state().at("branch.frozen")[0];
  for (std::int64_t i = 0; i < 2; ++i) CHECK(frozen[top[i].item<std::int64_t>()].item<std::int64_t>() == 1);
}

TEST_CASE("all branches, one router, nothing frozen: HydraLoRA") {
  World world(Settings{{"top_k", std::int64_t{0}},
                       {"task_routers", false},
                       {"freeze", false},
                       {"pool", std::string("per_token")}});
  world.run.train(0, kSteps);
  const std::set<std::string> names = trained(*world.strategy);
  CHECK(names.contains(kUp + "lora_router.weight"));
  for (const std::string& name : names) CHECK_FALSE(name.starts_with("task_key"));
  const StateDict s = world.state();
  CHECK(s.at("branch.frozen").sum().item<std::int64_t>() == 0);
  // Tian et al. 2024: y = W x + s Σ_j softmax(R x)_j B_j A x, with one A
  const at::NoGradGuard no_grad;
  Site& site = *world.backbone.sites("/layers.0.mlp.up_proj/").front();
  const Tensor x = at::randn({5, site.in()}, fake::generator(3), at::TensorOptions(at::kDouble));
  const Tensor gate = at::softmax(at::linear(x, s.at(kUp + "lora_router.weight")), -1);
  Tensor y = at::linear(x, site.weight());
  for (std::int64_t j = 0; j < 4; ++j)
    y = y + 2.0 * gate.select(1, j).unsqueeze(1) *
                at::linear(at::linear(x, s.at(kUp + "lora_A.weight")),
                           s.at(kUp + "lora_B." + std::to_string(j) + ".weight"));
  RouteContext route;
  CHECK(worst(fake::site_output(site, x, route), y) < 1e-12);
}

TEST_CASE("learned keys point where the mean of the unit features does") {
  World learned(Settings{}), mean(Settings{{"keys", std::string("mean")}});
  for (std::int64_t stage = 0; stage < 3; ++stage) {
    learned.run.train(stage, 400);
    mean.run.train(stage, 2);
  }
  const StateDict a = learned.state(), b = mean.state();
  for (const char* kind : {"image", "text"})
    for (std::int64_t t = 0; t < 3; ++t) {
      const Tensor key = a.at("task_key." + std::string(kind) + "." + std::to_string(t)).to(at::kDouble),
                   sum = b.at("task_key." + std::string(kind) + "_sum")[t];
      CHECK(((key / key.norm()) * (sum / sum.norm())).sum().item<double>() > 0.999);
    }
}

TEST_CASE(
    "the selector finds the task of separable features, asks only among tasks met, and obeys an oracle") {
  for (const char* keys : {"learned", "mean"}) {
    World world(Settings{{"keys", std::string(keys)}});
    world.run.train(0, 40);
    world.run.train(1, 40);
    Batch batch;
    for (const std::int64_t task : {0, 1, 2})
      for (std::size_t i = 0; i < 4; ++i) batch.examples.push_back(world.host.tasks.at(task)[i]);
    std::vector<std::int64_t>& route = world.backbone.route().task;
    route.assign(12, -1);
    const Selection selection = world.strategy->select(batch, world.backbone);
    CHECK(route == selection.task);
    for (std::size_t i = 0; i < 8; ++i) CHECK(selection.task[i] == static_cast<std::int64_t>(i / 4));
    for (std::size_t i = 8; i < 12; ++i) CHECK(selection.task[i] < 2);
    route.assign(12, -1);
    route[0] = 1;
    CHECK(world.strategy->select(batch, world.backbone).task[0] == 1);
  }
}

TEST_CASE("branches grow where too few are left, and a state brings them and the routers along") {
  const Settings grow = {{"grow_branches", true}};
  World world(grow), fresh(grow);
  for (std::int64_t stage = 0; stage < 3; ++stage) {
    world.run.begin(stage, kSteps);
    for (std::int64_t step = 0; step < kSteps; ++step) world.run.step(stage, step, kSteps);
    world.run.end(stage, kSteps);
  }
  const StateDict state = world.state();
  const Tensor layout = state.at("branch.layout");
  CHECK(layout.select(1, 0).min().item<std::int64_t>() >= 4);
  CHECK((layout.select(1, 1) == 4).all().item<bool>());
  CHECK((layout.select(1, 3) == layout.select(1, 0)).all().item<bool>());
  for (std::int64_t site = 0; site < layout.size(0); ++site)
    CHECK(state.at("branch.frozen")[site].sum().item<std::int64_t>() <= layout[site][0].item<std::int64_t>());
  fresh.host.trained = 3;
  fresh.strategy->load_state(state);
  const StateDict again = fresh.state();
  REQUIRE(again.size() == state.size());
  for (const auto& [name, tensor] : state) CHECK(same_bytes(tensor, again.at(name)));
  CHECK(same_bytes(fresh.run.outputs(), world.run.outputs()));
}

TEST_CASE("with grow_branches two branches are tunable in every task, without it the last ones stay so") {
  World grown(Settings{{"grow_branches", true}, {"min_tunable", std::int64_t{0}}}, 4), held(Settings{}, 4);
  for (std::int64_t stage = 0; stage < 4; ++stage)
    for (World* world : {&grown, &held}) {
      world->run.begin(stage, kSteps);
      std::int64_t tunable = 0;
      for (const std::string& name : trained(*world->strategy))
        tunable += name.starts_with(kUp + "lora_B.") ? 1 : 0;
      CHECK(tunable >= 2);
      for (std::int64_t step = 0; step < kSteps; ++step) world->run.step(stage, step, kSteps);
      world->run.end(stage, kSteps);
    }
}

TEST_CASE("A can be frozen after some tasks") {
  World world(Settings{{"freeze_A_after", std::int64_t{1}}});
  world.run.train(0, kSteps);
  const Tensor a = world.state().at(kUp + "lora_A.weight");
  world.run.train(1, kSteps);
  CHECK(same_bytes(world.state().at(kUp + "lora_A.weight"), a));
}

TEST_CASE("wrong settings of BranchLoRA are errors before anything trains") {
  const auto make = [](const Settings& more, std::int64_t tasks = 3) { const World world(more, tasks); };
  CHECK_NOTHROW(make({}));
  CHECK_THROWS_AS(make({{"rank", std::int64_t{6}}}), ConfigError);
  CHECK_THROWS_AS(make({{"top_k", std::int64_t{5}}}), ConfigError);
  CHECK_THROWS_AS(make({{"freeze_k", std::int64_t{0}}}), ConfigError);
  CHECK_THROWS_AS(make({{"key_lambda", -1.0}}), ConfigError);
  CHECK_THROWS_AS(make({{"min_tunable", std::int64_t{0}}}),
                  ConfigError);  // 2 + 2 of 4 frozen before the third
  CHECK_NOTHROW(make({{"min_tunable", std::int64_t{0}}}, 2));
  CHECK_NOTHROW(make({{"min_tunable", std::int64_t{0}}, {"grow_branches", true}}));
  CHECK_NOTHROW(make({{"min_tunable", std::int64_t{0}}, {"freeze", false}}));
}

TEST_CASE("a state of other branches is refused, and nothing changes") {
  World four(Settings{}), two(Settings{{"experts", std::int64_t{2}}});
  four.run.train(0, kSteps);
  const StateDict before = two.state();
  CHECK_THROWS_AS(two.strategy->load_state(four.state()), CheckpointError);
  World three(Settings{}, 2);
  CHECK_THROWS_AS(three.strategy->load_state(four.state()), CheckpointError);
}
