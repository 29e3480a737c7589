// Fwd-Prompt's promise: no applied update touches the space of earlier tasks, whatever the optimizer does.

#include "mcit/parts/subspace.hpp"
#include "unit/strategies/fake_backbone.hpp"
#include "unit/strategies/plugin_file.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using fake::same_bytes;
using fake::Settings;

namespace {

constexpr std::int64_t kSteps = 5;

struct World : fake::World {
  explicit World(const Settings& more, std::int64_t tasks = 3)
      : fake::World("fwd_prompt", "fwd_prompt",
                    {{"pool", std::int64_t{4}},
                     {"top_k", std::int64_t{2}},
                     {"prompt_length", std::int64_t{2}},
                     {"eps_old", 0.6},
                     {"eps_pre", 0.9}},
                    more, tasks) {}
  Tensor prompts() const { return strategy->parameters().front().value; }
  Tensor basis(const char* name) const { return state().at(name); }
};

/// Adam on everything that the strategy trains, with the strategy's hooks around it, as the engine has it.
class Adam {
 public:
  explicit Adam(World& world) : world_(world) {}

  /// One step of a stage. @return how the prompts moved, [M·L_p, d]
  Tensor step(std::int64_t stage, std::int64_t number) {
    Strategy& strategy = *world_.strategy;
    const Parameters trainable = strategy.parameters();
    for (const Parameter& p : trainable) p.value.mutable_grad().reset();
    const Task task = world_.run.task(stage, kSteps);
    Step step{.task = task,
              .number = number,
              .backbone = world_.backbone,
              .batch = {},
              .out = {},
              .trainable = trainable};
    const std::vector<ExamplePtr> data = world_.run.data(stage);
    for (std::size_t i = 0; i < 6; ++i)
      step.batch.examples.push_back(data[(static_cast<std::size_t>(number) * 6 + i) % data.size()]);
    world_.backbone.route().clear();
    {
      const at::NoGradGuard no_grad;
      strategy.before_forward(step);
    }
    step.out = world_.backbone.forward(step.batch);
    strategy.loss(step, answer_loss(step.out)).backward();
    const at::NoGradGuard no_grad;
    strategy.on_gradients(step);
    const Tensor before = world_.prompts().detach().clone();
    for (const Parameter& p : trainable) {
      if (!p.value.grad().defined()) continue;
      auto& [mean, square] = moments_[p.name];
      if (!mean.defined()) mean = square = at::zeros_like(p.value.detach());
      mean = 0.9 * mean + 0.1 * p.value.grad();
      square = 0.999 * square + 0.001 * p.value.grad().square();
      p.value.detach().sub_(0.05 * mean / (square.sqrt() + 1e-8));
    }
    strategy.after_step(step);
    return (world_.prompts().detach() - before).reshape({-1, fake::kHidden});
  }

 private:
  World& world_;
  std::map<std::string, std::pair<Tensor, Tensor>> moments_;
};

double share_in(const Tensor& rows, const Tensor& basis) {
  return (rows.mm(basis).norm() / rows.norm()).item<double>();
}

}  // namespace

TEST_CASE("no applied update lies in the old space; a projected gradient leaks through Adam") {
  for (const bool update : {true, false}) {
    World world(Settings{{"mode", std::string("residual")},
                         {"project", std::string(update ? "update" : "gradient")}});
    world.run.train(0, kSteps);
    world.run.begin(1, kSteps);
    const Tensor old = world.basis("space.old");
    REQUIRE(old.size(1) > 0);
    REQUIRE(old.size(1) < fake::kHidden);
    Adam adam(world);
    double most = 0.0;
    for (std::int64_t number = 0; number < kSteps; ++number) {
      const Tensor moved = adam.step(1, number);
      REQUIRE(moved.norm().item<double>() > 1e-3);
      most = std::max(most, share_in(moved, old));
    }
    if (update)
      CHECK(most < 1e-9);
    else
      CHECK(most > 0.1);
  }
}

TEST_CASE("every mode moves prompts in its own space") {
  for (const char* mode : {"off", "residual", "pretrained", "both"}) {
    INFO(mode);
    World world(Settings{{"mode", std::string(mode)}});
    world.run.train(0, kSteps);
    world.run.begin(1, kSteps);
    Adam adam(world);
    const Tensor moved = adam.step(1, 0), old = world.basis("space.old"), known = world.basis("space.known");
    const std::string name = mode;
    if (name == "off") CHECK(share_in(moved, old) > 1e-3);
    if (name == "residual" || name == "both") CHECK(share_in(moved, old) < 1e-9);
    if (name == "pretrained") CHECK(std::abs(share_in(moved, known) - 1.0) < 1e-9);
    if (name == "both") {
      const Tensor free = parts::outside_subspace(known, old);
      CHECK(free.size(1) > 0);
      CHECK(std::abs(share_in(moved, free) - 1.0) < 1e-9);
    }
  }
}

TEST_CASE("the first task of mode both trains in the pre-trained space") {
  World world(Settings{});
  world.run.begin(0, kSteps);
  const Tensor known = world.basis("space.known");
  REQUIRE(known.size(1) > 0);
  CHECK(world.basis("space.old").size(1) == 0);
  Adam adam(world);
  CHECK(std::abs(share_in(adam.step(0, 0), known) - 1.0) < 1e-9);
}

TEST_CASE("with plain gradient descent and every direction known, both is residual") {
  World both(Settings{{"eps_pre", 1.0}, {"mode", std::string("both")}}),
      residual(Settings{{"mode", std::string("residual")}});
  for (std::int64_t stage = 0; stage < 3; ++stage) {
    both.run.train(stage, kSteps);
    residual.run.train(stage, kSteps);
  }
  REQUIRE(both.basis("space.known").size(1) == fake::kHidden);
  CHECK((both.prompts() - residual.prompts()).abs().max().item<double>() < 1e-9);
}

TEST_CASE("Q_pre is the core of the probe's embeddings, Q_old only grows, and ranks and spectra are kept") {
  World world(Settings{});
  std::int64_t rank = 0;
  for (std::int64_t stage = 0; stage < 3; ++stage) {
    world.run.train(stage, kSteps);
    const Tensor old = world.basis("space.old");
    CHECK(old.size(1) >= rank);
    rank = old.size(1);
  }
  parts::SecondMoment moment(fake::kHidden);
  moment.add(world.backbone.input_embeddings(Batch{world.host.probe_data}));
  const Tensor expected = parts::core_subspace(moment.mean(), 0.9), known = world.basis("space.known");
  CHECK((known.mm(known.t()) - expected.mm(expected.t())).abs().max().item<double>() < 1e-10);
  std::set<std::string> recorded;
  for (const auto& [name, value] : world.host.records) recorded.insert(name);
  CHECK(recorded.contains("rank_pre"));
  CHECK(recorded.contains("rank_old"));
  REQUIRE(world.host.tables.contains("energy_task"));
  CHECK_NOTHROW(check_table("energy_task", world.host.tables.at("energy_task")));
  CHECK(world.host.tables.contains("energy_pretrained"));
}

TEST_CASE("keys move outside of the features of earlier tasks, unless told otherwise") {
  for (const bool project : {true, false}) {
    World world(Settings{{"project_keys", project}, {"key_lambda", 1.0}, {"eps_keys", 0.5}});
    world.run.train(0, kSteps);
    world.run.begin(1, kSteps);
    const Tensor before = world.strategy->state().at("pool.text_keys");
    Adam adam(world);
    adam.step(1, 0);
    const Tensor moved = world.strategy->state().at("pool.text_keys") - before;
    REQUIRE(moved.norm().item<double>() > 1e-4);
    const Tensor old = project ? world.basis("space.text_keys") : Tensor();
    if (project)
      CHECK(share_in(moved.to(at::kDouble), old) < 1e-6);
    else
      CHECK(world.basis("space.text_keys").size(1) == 0);
  }
}

TEST_CASE("a state brings its spaces along") {
  World whole(Settings{}), again(Settings{});
  for (std::int64_t stage = 0; stage < 2; ++stage) whole.run.train(stage, kSteps);
  const StateDict state = whole.strategy->state();
  again.host.trained = 2;
  again.strategy->load_state(state);
  whole.run.train(2, kSteps);
  again.run.train(2, kSteps);
  for (const auto& [name, tensor] : whole.strategy->state())
    CHECK(same_bytes(tensor, again.strategy->state().at(name)));
  StateDict wrong = state;
  wrong["space.old"] = at::zeros({fake::kHidden + 1, 2}, at::kDouble);
  CHECK_THROWS_AS(again.strategy->load_state(wrong), CheckpointError);
}

TEST_CASE("wrong settings of Fwd-Prompt are errors before anything trains") {
  fake::FakeHost host;
  for (const auto& [key, value] : Settings{{"pool", std::int64_t{1}},
                                           {"mode", std::string("none")},
                                           {"eps_pre", 0.0},
                                           {"eps_old", 1.5},
                                           {"blend", 2.0},
                                           {"min_rank", std::int64_t{0}},
                                           {"key_lambda", -1.0}})
    CHECK_THROWS_AS(fake::create("fwd_prompt", "fwd_prompt", host, {{key, value}}), ConfigError);
}
