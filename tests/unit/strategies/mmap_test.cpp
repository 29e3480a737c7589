// MmAP: Kronecker prompts, counted parameters, groups that gradients plant, and what an old group's prompts
// may do.
#include <cmath>
#include <set>

#include "../../../plugins/mmap/aligned_prompt.hpp"
#include "../../../plugins/mmap/grouping.hpp"
#include "unit/strategies/fake_backbone.hpp"
#include "unit/strategies/plugin_file.hpp"

#include <catch2/catch_approx.hpp>

#include "torch_catch.hpp"

using namespace mcit;
using fake::same_bytes;
using fake::Settings;
using namespace mcit::mmap;
using Catch::Approx;

namespace {

const BackboneInfo kVitB16{"clip", 12, 512, 49408, 12, 768, 196, 512};
const at::TensorOptions kDouble(at::kDouble);

Params params_of(Settings settings) { return Params(std::move(settings)); }

std::int64_t numbers(const Parameters& parameters) {
  std::int64_t total = 0;
  for (const Parameter& p : parameters) total += p.value.numel();
  return total;
}

struct World : fake::World {
  explicit World(const Settings& more, std::int64_t tasks = 3)
      : fake::World(
            "mmap", "mmap",
            {{"length", std::int64_t{2}}, {"depth", std::int64_t{1}}, {"probe_examples", std::int64_t{8}}},
            more, tasks) {}
};

/// Affinity with 1 inside the given groups and −1 between them, and a little noise.
Affinity planted(const Partition& groups) {
  Affinity out(groups.size(), std::vector<double>(groups.size()));
  for (std::size_t i = 0; i < groups.size(); ++i)
    for (std::size_t j = 0; j < groups.size(); ++j)
      out[i][j] =
          (groups[i] == groups[j] ? 1.0 : -1.0) + 0.1 * std::sin(static_cast<double>(7 * (i + j) + i * j));
  return out;
}

}  // namespace

TEST_CASE("both modalities are tilings of one source") {
  const BackboneInfo info{"clip", 2, 6, 10, 3, 9, 4, 5};
  const PromptShape shape =
      PromptShape::read(params_of({{"length", std::int64_t{4}}, {"source_rows", std::int64_t{2}}}))
          .fitted(info);
  CHECK(shape.source_width == 3);
  CHECK(shape.depth == 2);
  const AlignedPrompt prompt("p", shape, info, kDouble, fake::generator(4));
  const Parameters own = prompt.parameters();
  REQUIRE(own.size() == 6);
  const std::vector<Tensor> text = prompt.text(), image = prompt.image();
  REQUIRE(text.size() == 2);
  CHECK(text[0].sizes() == at::IntArrayRef({4, 6}));
  CHECK(image[0].sizes() == at::IntArrayRef({4, 9}));
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const Tensor &source = own[3 * layer].value, &k_l = own[3 * layer + 1].value,
                 &k_v = own[3 * layer + 2].value;
    for (std::int64_t i = 0; i < 2; ++i) {
      for (std::int64_t j = 0; j < 2; ++j)
        CHECK(text[layer].narrow(0, 2 * i, 2).narrow(1, 3 * j, 3).equal(k_l[i][j] * source));
      for (std::int64_t j = 0; j < 3; ++j)
        CHECK(image[layer].narrow(0, 2 * i, 2).narrow(1, 3 * j, 3).equal(k_v[i][j] * source));
    }
  }
}

TEST_CASE("the gradient of the Kronecker product is its difference quotient") {
  const BackboneInfo info{"clip", 1, 4, 10, 1, 6, 4, 5};
  const PromptShape shape =
      PromptShape::read(params_of({{"length", std::int64_t{4}}, {"source_rows", std::int64_t{2}}}))
          .fitted(info);
  const AlignedPrompt prompt("p", shape, info, kDouble, fake::generator(5));
  const Tensor weight_l = at::randn({4, 4}, fake::generator(6), kDouble),
               weight_v = at::randn({4, 6}, fake::generator(7), kDouble);
  const auto loss = [&] {
    return (at::tanh(prompt.text()[0]) * weight_l).sum() + (at::tanh(prompt.image()[0]) * weight_v).sum();
  };
  loss().backward();
  const at::NoGradGuard no_grad;
  for (const Parameter& p : prompt.parameters()) {
    const Tensor flat = p.value.detach().view({-1}), grad = p.value.grad().view({-1});
    for (std::int64_t i = 0; i < flat.size(0); ++i) {
      constexpr double kStep = 1e-6;
      const double here = flat[i].item<double>();
      flat[i] = here + kStep;
      const double above = loss().item<double>();
      flat[i] = here - kStep;
      const double below = loss().item<double>();
      flat[i] = here;
      CHECK((above - below) / (2 * kStep) == Approx(grad[i].item<double>()).margin(1e-8));
    }
  }
}

TEST_CASE("parameters of ViT-B/16 are counted as docs/methods/mmap.md has them") {
  const PromptShape shape = PromptShape::read(params_of({})).fitted(kVitB16);
  CHECK(shape.source_width == 256);
  const AlignedPrompt prompt("p", shape, kVitB16, at::TensorOptions(at::kFloat), fake::generator(1));
  CHECK(numbers(prompt.parameters()) == 24636);
  CHECK(100.0 * 5 * 24636 / 149620737 == Approx(0.0823).margin(1e-4));
  CHECK(100.0 * 6 * 24636 / 149620737 == Approx(0.0988).margin(1e-4));
}

TEST_CASE("the best partition is the planted one") {
  CHECK(best_partition({{1.0}}, 0.2) == Partition{0});
  CHECK(best_partition({{1.0, -0.5}, {-0.5, 1.0}}, 0.2) == Partition{0, 1});
  for (const Partition& groups :
       {Partition{0, 1, 0, 2, 1, 2}, Partition{0, 0, 0, 0, 0, 0}, Partition{0, 0, 1, 1, 1, 0, 2, 2},
        Partition{0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2}})
    CHECK(best_partition(planted(groups), 0.2) == groups);
  // Pairs above the threshold attract, below it they repel: 0.9 within, 0.5 across.
  Affinity close = planted({0, 0, 1, 1});
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 4; ++j) close[i][j] = (i < 2) == (j < 2) ? 0.9 : 0.5;
  CHECK(partition_score(close, {0, 0, 1, 1}, 0.2) == Approx(2 * 0.7));
  CHECK(partition_score(close, {0, 0, 0, 0}, 0.2) == Approx(2 * 0.7 + 4 * 0.3));
  CHECK(partition_score(close, {0, 1, 2, 3}, 0.2) == 0.0);
  CHECK(best_partition(close, 0.2) == Partition{0, 0, 0, 0});
  CHECK(best_partition(close, 0.6) == Partition{0, 0, 1, 1});
  CHECK(best_partition(close, 0.95) == Partition{0, 1, 2, 3});
}

TEST_CASE("grouping recovers three planted clusters of gradients, by either measure") {
  // Task t pulls the parameters towards a point of its cluster: gradients agree within, disagree between.
  const Partition clusters{0, 1, 2, 0, 2, 1};
  const Tensor points = at::randn({3, 12}, fake::generator(8), kDouble);
  std::vector<std::vector<ExamplePtr>> tasks;
  for (std::size_t t = 0; t < clusters.size(); ++t) {
    tasks.emplace_back();
    for (std::int64_t i = 0; i < 20; ++i) {
      auto example = std::make_shared<Example>();
      example->task = static_cast<std::int64_t>(t);
      example->index = i;
      tasks.back().push_back(std::move(example));
    }
  }
  for (const auto measure : {GroupingOptions::Measure::cosine, GroupingOptions::Measure::lookahead}) {
    const Tensor theta = at::zeros({12}, kDouble).set_requires_grad(true);
    GroupingOptions options;
    options.measure = measure;
    options.rate = 0.05;
    const Affinity affinity = measure_affinity(
        {{"theta", theta, "prompt"}}, tasks, options, fake::generator(9), [&](const Batch& batch) {
          Tensor sum = at::zeros({}, kDouble);
          for (const ExamplePtr& e : batch.examples) {
            const auto seed = static_cast<std::uint64_t>(100 * e->task + e->index);
            const Tensor own = points[clusters[static_cast<std::size_t>(e->task)]] +
                               0.5 * at::randn({12}, fake::generator(seed), kDouble);
            sum = sum + (theta - own).square().sum();
          }
          return sum / static_cast<double>(batch.size());
        });
    CHECK(best_partition(affinity, measure == GroupingOptions::Measure::cosine ? 0.2 : 0.0) == clusters);
    CHECK_FALSE(theta.grad().defined());
    for (std::size_t i = 0; i < clusters.size(); ++i)
      for (std::size_t j = 0; j < clusters.size(); ++j) CHECK(affinity[i][j] == Approx(affinity[j][i]));
  }
}

TEST_CASE("a row reads its group's prompts and its own, and gradients go nowhere else") {
  World world({{"setting", std::string("multi_task")}, {"grouping", std::string("each")}});
  REQUIRE(world.run.stages().size() == 1);
  world.run.begin(0, 6);
  const Parameters all = world.strategy->parameters();
  CHECK(all.size() == 3U * 2U * 3U);  // three tasks, shared and specific, a triple each
  const std::vector<ExamplePtr> data = world.run.data(0);
  Task task = world.run.task(0, 6);
  Step step{.task = task, .backbone = world.backbone, .batch = {}, .out = {}, .trainable = {}};
  for (const ExamplePtr& e : data)
    if (e->task == 1 && step.batch.size() < 4) step.batch.examples.push_back(e);
  world.backbone.route().task.assign(step.batch.size(), 1);
  world.strategy->before_forward(step);
  CHECK(world.backbone.route().text.length() == 4);  // side by side
  CHECK(world.backbone.route().text.layers[0].size(0) == 1);
  CHECK(world.backbone.route().vision.layers[0].sizes() == at::IntArrayRef({1, 4, fake::kVision}));
  answer_loss(world.backbone.forward(step.batch)).backward();
  for (const Parameter& p : all) {
    const bool own = p.name.find("mmap.group.1.") == 0 || p.name.find("mmap.task.1.") == 0;
    CHECK((p.value.grad().defined() && p.value.grad().abs().max().item<double>() > 0.0) == own);
  }
}

TEST_CASE("prompts that are added keep their length") {
  World world({{"combine", std::string("add")}, {"setting", std::string("multi_task")}});
  world.run.train(0);
  Batch batch{{world.host.tasks.at(0).front(), world.host.tasks.at(2).front()}};
  world.backbone.route().clear();
  world.backbone.route().task.assign(2, -1);
  world.strategy->select(batch, world.backbone);
  CHECK(world.backbone.route().text.length() == 2);
  const StateDict s = world.state();
  const auto text = [&](const std::string& name) {
    return at::kron(s.at(name + ".text_scale.0"), s.at(name + ".source.0"));
  };
  const std::string group = "mmap.group." + std::to_string(s.at("mmap.groups")[2].item<std::int64_t>());
  CHECK(at::allclose(world.backbone.route().text.layers[0][1], text(group) + text("mmap.task.2"), 1e-12,
                     1e-12));
}

TEST_CASE("in a stream, a task joins the group that its gradient is near, and opens one where none is") {
  for (const auto& [threshold, groups] : {std::pair{-1.0, 1}, std::pair{1.0, 3}}) {
    World world({{"group_threshold", threshold}});
    for (std::int64_t t = 0; t < 3; ++t) world.run.train(t);
    CHECK(world.state().at("mmap.groups").max().item<std::int64_t>() + 1 == groups);
    CHECK(world.state().at("mmap.centroids").size(0) == groups);
    CHECK(world.host.tables.at("groups").columns.size() == static_cast<std::size_t>(groups));
  }
}

TEST_CASE("prompts of an old group stay, average, or move off their tasks' inputs") {
  const auto trained = [](World& world, std::int64_t stage) {
    std::map<std::string, Tensor> out;
    world.run.begin(stage, 6);
    for (std::int64_t number = 0; number < 6; ++number) world.run.step(stage, number, 6);
    for (const auto& [name, tensor] : world.state()) out[name] = tensor.clone();
    return out;
  };
  const char* kSource = "mmap.group.0.source.0";
  SECTION("frozen") {
    World world({{"grouping", std::string("one")}});
    world.run.train(0);
    const StateDict before = world.state();
    world.run.train(1);
    for (const auto& [name, tensor] : before)
      if (name.find("mmap.group.0.") == 0 || name.find("mmap.task.0.") == 0 ||
          name.find("mmap.initial.") == 0)
        CHECK(same_bytes(tensor, world.state().at(name)));
    CHECK_FALSE(same_bytes(world.state().at("mmap.task.1.source.0"), before.at("mmap.task.0.source.0")));
  }
  SECTION("ema") {
    World world({{"grouping", std::string("one")}, {"shared_update", std::string("ema")}, {"ema", 0.75}});
    world.run.train(0);
    const Tensor before = world.state().at(kSource);
    const StateDict after = trained(world, 1);
    CHECK(same_bytes(after.at("mmap.before.source.0"), before));
    world.run.end(1, 6);
    CHECK((after.at(kSource) - before).abs().max().item<double>() > 1e-6);
    CHECK(at::allclose(world.state().at(kSource), 0.75 * before + 0.25 * after.at(kSource), 1e-12, 1e-14));
    CHECK_FALSE(world.state().contains("mmap.before.source.0"));
  }
  SECTION("projected") {
    World world(
        {{"grouping", std::string("one")}, {"shared_update", std::string("projected")}, {"eps_old", 0.5}});
    world.run.train(0);
    const StateDict before = world.state();
    const Tensor space = before.at("mmap.space.0");
    REQUIRE(space.size(0) == 4);  // gcd of both widths
    REQUIRE((space.size(1) > 0 && space.size(1) < 4));
    world.run.train(1);
    const Tensor moved = world.state().at(kSource) - before.at(kSource);
    CHECK(moved.norm().item<double>() > 1e-6);
    CHECK(moved.mm(space).norm().item<double>() < 1e-9 * moved.norm().item<double>());
    CHECK(world.state().at("mmap.space.0").size(1) >= space.size(1));
    CHECK(same_bytes(world.state().at("mmap.group.0.text_scale.0"), before.at("mmap.group.0.text_scale.0")));
  }
}

TEST_CASE("an mmap that is put together from its state goes on alike") {
  for (const char* update : {"frozen", "ema", "projected"}) {
    const Settings settings{{"grouping", std::string("one")}, {"shared_update", std::string(update)}};
    World first(settings);
    first.run.train(0);
    first.run.begin(1, 6);
    for (std::int64_t number = 0; number < 3; ++number) first.run.step(1, number, 6);
    World second(settings);
    second.strategy->load_state(first.state());
    std::set<std::string> trainable;
    for (const Parameter& p : first.strategy->parameters())
      if (p.value.requires_grad()) trainable.insert(p.name);
    for (const Parameter& p : second.strategy->parameters())
      Tensor(p.value).set_requires_grad(trainable.contains(p.name));
    for (std::int64_t number = 3; number < 6; ++number) {
      first.run.step(1, number, 6);
      second.run.step(1, number, 6);
    }
    first.run.end(1, 6);
    second.host.trained = first.host.trained;
    second.run.end(1, 6);
    const StateDict a = first.state(), b = second.state();
    REQUIRE(a.size() == b.size());
    for (const auto& [name, tensor] : a) CHECK(same_bytes(tensor, b.at(name)));
  }
}

TEST_CASE("sizes that do not fit are named before training") {
  fake::FakeHost host;
  const auto wrong = [&](Settings settings) { fake::create("mmap", "mmap", host, std::move(settings)); };
  CHECK_THROWS_AS(wrong({{"length", std::int64_t{3}}, {"source_rows", std::int64_t{2}}}), ConfigError);
  CHECK_THROWS_AS(wrong({{"shared", false}, {"specific", false}}), ConfigError);
  CHECK_THROWS_AS(wrong({{"group_threshold", 1.5}}), ConfigError);
  CHECK_THROWS_AS(wrong({{"ema", 1.0}}), ConfigError);
  const auto strategy = fake::create("mmap", "mmap", host, {{"source_width", std::int64_t{96}}});
  StreamInfo stream;
  stream.backbone = kVitB16;
  CHECK_THROWS_AS(strategy->on_stream_begin(stream), ConfigError);  // 96 divides 768 and not 512
  const auto deep = fake::create("mmap", "mmap", host, {{"depth", std::int64_t{13}}});
  CHECK_THROWS_AS(deep->on_stream_begin(stream), ConfigError);
}
