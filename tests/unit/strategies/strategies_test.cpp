// What every strategy promises, then what each one promises by itself. All in float64 on the backbone of
// fake_backbone.hpp.
#include <cstring>
#include <set>

#include "unit/strategies/fake_backbone.hpp"
#include "unit/strategies/plugin_file.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using fake::same_bytes;
using fake::Settings;

namespace {

constexpr std::int64_t kSteps = 6;

struct Case {
  const char* file;
  const char* name;
  Settings settings;
};

/// Every strategy, with settings that make the small runs below exercise it.
std::vector<Case> every_strategy() {
  const Settings lora = {{"rank", std::int64_t{4}}};
  const auto with = [&](Settings more) {
    more.insert(lora.begin(), lora.end());
    return more;
  };
  return {
      {"zero_shot", "zero_shot", {}},
      {"sequential", "sequential", lora},
      {"sequential", "sequential", {{"full", true}}},
      {"bounds", "single", lora},
      {"bounds", "joint", lora},
      {"replay", "replay", with({{"buffer", std::int64_t{7}}, {"replay_batch", std::int64_t{2}}})},
      {"ewc", "ewc", with({{"lambda", 3.0}, {"fisher_batches", std::int64_t{3}}})},
      {"ewc", "ewc",
       with({{"lambda", 3.0}, {"online", true}, {"gamma", 0.5}, {"fisher", std::string("batch_mean")}})},
      {"moe_lora", "moe_lora", with({{"experts", std::int64_t{2}}})},
      {"moe_lora", "moe_lora",
       with({{"experts", std::int64_t{4}}, {"top_k", std::int64_t{2}}, {"balance", 0.01}})},
      {"branch_lora", "branch_lora",
       with({{"experts", std::int64_t{4}}, {"top_k", std::int64_t{2}}, {"min_tunable", std::int64_t{1}}})},
      {"branch_lora", "branch_lora",
       with({{"experts", std::int64_t{2}},
             {"top_k", std::int64_t{1}},
             {"grow_branches", true},
             {"keys", std::string("mean")},
             {"pool", std::string("mean_prompt")}})},
      {"fwd_prompt", "fwd_prompt", {{"pool", std::int64_t{4}}, {"top_k", std::int64_t{2}}}},
      {"mmap",
       "mmap",
       {{"length", std::int64_t{2}}, {"depth", std::int64_t{1}}, {"probe_examples", std::int64_t{8}}}}};
}

struct World : fake::World {
  explicit World(const Case& c, std::int64_t tasks = 3)
      : fake::World(c.file, c.name, c.settings, {}, tasks) {}
};

bool same_state(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, tensor] : a)
    if (!b.contains(name) || !same_bytes(tensor, b.at(name))) return false;
  return true;
}

double mean_loss(World& world, std::int64_t task) {
  const at::NoGradGuard no_grad;
  const Batch batch{world.host.tasks.at(task)};
  world.backbone.route().task.assign(batch.size(), task);
  world.backbone.route().clear();
  world.strategy->select(batch, world.backbone);
  return answer_loss(world.backbone.forward(batch)).item<double>();
}

}  // namespace

TEST_CASE("every strategy but one of prompts leaves the base's outputs bit-identical until it trains") {
  for (const Case& c : every_strategy()) {
    INFO(c.name);
    if (std::string(c.name) == "fwd_prompt") continue;  // prompts are read from the start
    World world(c), bare({"zero_shot", "zero_shot", {}});
    CHECK(same_bytes(world.run.outputs(), bare.run.outputs()));
  }
}

TEST_CASE("every strategy: parameters have unique names and known groups, and are leaves") {
  for (const Case& c : every_strategy()) {
    INFO(c.name);
    World world(c);
    std::set<std::string> names;
    for (const Parameter& p : world.strategy->parameters()) {
      CHECK(names.insert(p.name).second);
      CHECK(std::set<std::string>{"adapter", "connector", "base", "prompt"}.contains(p.group));
      CHECK(p.value.is_leaf());
      CHECK(p.value.requires_grad());
    }
    CHECK(names.empty() == (std::string(c.name) == "zero_shot"));
  }
}

TEST_CASE("every strategy: stopping in the middle of a stage and loading the state changes nothing") {
  for (const Case& c : every_strategy()) {
    INFO(c.name);
    World whole(c), first(c), second(c);
    const auto stages = static_cast<std::int64_t>(whole.run.stages().size());
    const std::int64_t last = stages - 1, middle = 3;
    for (std::int64_t stage = 0; stage < stages; ++stage) whole.run.train(stage, kSteps);

    for (std::int64_t stage = 0; stage < last; ++stage) first.run.train(stage, kSteps);
    first.run.begin(last, kSteps);
    for (std::int64_t step = 0; step < middle; ++step) first.run.step(last, step, kSteps);
    const StateDict state = first.strategy->state();

    second.host.trained = last;  // a resumed engine knows which tasks are over
    second.strategy->load_state(state);
    const Parameters was = first.strategy->parameters(), is = second.strategy->parameters();
    REQUIRE(is.size() == was.size());
    for (std::size_t i = 0; i < is.size(); ++i)  // as the engine does
      Tensor(is[i].value).set_requires_grad(was[i].value.requires_grad());
    CHECK(same_state(second.strategy->state(), state));
    CHECK(same_bytes(second.run.outputs(), first.run.outputs()));
    for (std::int64_t step = middle; step < kSteps; ++step) second.run.step(last, step, kSteps);
    second.run.end(last, kSteps);
    CHECK(same_state(second.strategy->state(), whole.strategy->state()));
    CHECK(same_bytes(second.run.outputs(), whole.run.outputs()));
  }
}

TEST_CASE("every strategy refuses a state with a missing or an unexpected tensor, and names it") {
  const auto message = [](Strategy& strategy, const StateDict& state) -> std::string {
    try {
      strategy.load_state(state);
    } catch (const CheckpointError& e) {
      return e.what();
    }
    return "accepted";
  };
  for (const Case& c : every_strategy()) {
    INFO(c.name);
    World world(c);
    const StateDict state = world.strategy->state();
    for (const auto& [name, tensor] : state) {
      StateDict missing = state;
      missing.erase(name);
      CHECK(message(*world.strategy, missing).starts_with(name + ": "));
    }
    StateDict extra = state;
    extra["stranger"] = at::zeros({1});
    CHECK(message(*world.strategy, extra).starts_with("stranger: "));
  }
}

TEST_CASE("every strategy refuses a setting that it does not know") {
  fake::FakeHost host;
  for (const Case& c : every_strategy()) {
    INFO(c.name);
    Settings settings = c.settings;
    settings["rnak"] = std::int64_t{4};
    CHECK_THROWS_AS(fake::create(c.file, c.name, host, settings), ConfigError);
  }
}

TEST_CASE("every trained strategy lowers the loss of its last task") {
  for (const Case& c : every_strategy()) {
    INFO(c.name);
    World world(c, 2);
    const double before = mean_loss(world, 1);
    for (std::size_t stage = 0; stage < world.run.stages().size(); ++stage)
      world.run.train(static_cast<std::int64_t>(stage), 20);
    if (world.strategy->parameters().empty())
      CHECK(mean_loss(world, 1) == before);
    else
      CHECK(mean_loss(world, 1) < before - (std::string(c.name) == "fwd_prompt" ? 0.005 : 0.02));
  }
}

TEST_CASE("zero_shot keeps nothing") {
  World world({"zero_shot", "zero_shot", {}});
  CHECK(world.strategy->parameters().empty());
  CHECK(world.strategy->state().empty());
  CHECK(world.strategy->stored_parameters() == 0);
  CHECK(world.run.stages().size() == 3);
}

TEST_CASE("sequential counts what it stores") {
  // LoRA of rank 4 on the four decoder linears (8 <-> 12): 4 · 4 · (8 + 12); connector 4 -> 8 with bias.
  World lora({"sequential", "sequential", {{"rank", std::int64_t{4}}}});
  CHECK(lora.strategy->stored_parameters() == 4 * 4 * 20 + fake::kVision * 8 + 8);
  World bare({"sequential", "sequential", {{"rank", std::int64_t{4}}, {"train_connector", false}}});
  CHECK(bare.strategy->stored_parameters() == 4 * 4 * 20);
  // all base tensors: embedding and head 11 x 8, four linears 8 x 12, the connector
  World full({"sequential", "sequential", {{"full", true}}});
  CHECK(full.strategy->stored_parameters() == 2 * 11 * 8 + 4 * 8 * 12 + fake::kVision * 8 + 8);
}

TEST_CASE("single starts every stage from its first bytes, also after a resume") {
  const Case c{"bounds", "single", {{"rank", std::int64_t{4}}}};
  World world(c), fresh(c), resumed(c);
  const StateDict initial = world.strategy->state();
  world.run.train(0, kSteps);
  CHECK_FALSE(same_state(world.strategy->state(), initial));
  resumed.host.trained = 1;
  resumed.strategy->load_state(world.strategy->state());
  world.run.begin(1, kSteps);
  CHECK(same_state(world.strategy->state(), initial));
  resumed.run.begin(1, kSteps);
  CHECK(same_state(resumed.strategy->state(), initial));

  // What it learns on task 1 is what sequential learns when task 1 is all there is.
  world.run.train(1, kSteps);
  fresh.run.train(1, kSteps);
  CHECK(same_bytes(world.run.outputs(), fresh.run.outputs()));
}

TEST_CASE("joint trains one stage that holds every task") {
  World world({"bounds", "joint", {{"rank", std::int64_t{4}}}});
  REQUIRE(world.run.stages().size() == 1);
  CHECK(world.run.stages()[0].tasks == std::vector<std::int64_t>{0, 1, 2});
}

TEST_CASE("replay adds earlier tasks' examples to every micro-step, its own each time") {
  const Case c{"replay",
               "replay",
               {{"rank", std::int64_t{4}}, {"buffer", std::int64_t{9}}, {"replay_batch", std::int64_t{4}}}};
  World world(c), plain({"sequential", "sequential", {{"rank", std::int64_t{4}}}});
  world.run.train(0, kSteps);
  plain.run.train(0, kSteps);
  CHECK(same_bytes(world.run.outputs(), plain.run.outputs()));  // nothing to replay yet

  world.run.train(1, kSteps);
  world.run.begin(2, kSteps);
  std::set<std::vector<std::int64_t>> draws;
  std::set<std::int64_t> tasks;
  for (std::int64_t number = 0; number < kSteps; ++number) {
    for (const Batch& batch : world.run.step(2, number, kSteps)) {
      REQUIRE(batch.size() == 3 + 4);
      std::vector<std::int64_t> draw;
      for (std::size_t i = 0; i < batch.size(); ++i) {
        const Example& example = *batch.examples[i];
        if (i < 3)
          CHECK(example.task == 2);
        else
          CHECK(example.task < 2);
        if (i >= 3) {
          draw.push_back(example.task * 100 + example.index);
          tasks.insert(example.task);
        }
      }
      CHECK(std::set<std::int64_t>(draw.begin(), draw.end()).size() == 4);
      draws.insert(draw);
    }
  }
  CHECK(draws.size() == 2 * kSteps);  // no micro-step repeats another's draw
  CHECK(tasks == std::set<std::int64_t>{0, 1});
}

TEST_CASE("replay's buffer holds each example of the stream at most once") {
  World world({"replay", "replay", {{"rank", std::int64_t{4}}, {"buffer", std::int64_t{100}}}});
  for (std::int64_t stage = 0; stage < 3; ++stage) world.run.train(stage, kSteps);
  const Tensor items = world.strategy->state().at("replay.items");
  CHECK(items.size(0) == 3 * 12);
  CHECK(std::get<0>(at::unique_dim(items, 0)).size(0) == 3 * 12);
  CHECK(world.host.lookups == 0);
  fake::FakeHost host;
  CHECK_THROWS_AS(fake::create("replay", "replay", host, {{"buffer", std::int64_t{0}}}), ConfigError);
  CHECK_THROWS_AS(fake::create("replay", "replay", host, {{"replay_batch", std::int64_t{0}}}), ConfigError);
}

TEST_CASE("moe_lora trains experts and routers of every decoder linear") {
  World world({"moe_lora", "moe_lora", {{"experts", std::int64_t{4}}, {"rank", std::int64_t{8}}}});
  const StateDict before = world.strategy->state();
  for (std::int64_t stage = 0; stage < 3; ++stage) world.run.train(stage, kSteps);
  const StateDict after = world.strategy->state();
  REQUIRE(after.size() == 4 * 3 + 2);
  for (const auto& [name, tensor] : after) {
    INFO(name);
    CHECK_FALSE(same_bytes(tensor, before.at(name)));
  }
  // rank·(in + out) + experts·in at each site, and the connector
  CHECK(world.strategy->stored_parameters() == 4 * 8 * 20 + 2 * 4 * 8 + 2 * 4 * 12 + fake::kVision * 8 + 8);
  fake::FakeHost host;
  for (const auto& [key, value] :
       Settings{{"experts", std::int64_t{3}}, {"top_k", std::int64_t{5}}, {"balance", -1.0}}) {
    Settings wrong = {{"experts", std::int64_t{4}}, {"rank", std::int64_t{8}}};
    wrong[key] = value;
    CHECK_THROWS_AS(fake::create("moe_lora", "moe_lora", host, wrong), ConfigError);
  }
}
