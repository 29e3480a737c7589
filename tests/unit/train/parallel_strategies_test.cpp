// Every strategy that says mcit::DataParallel, trained by one process and by two on the same batches: the
// same loss of every step and the same state after every stage. The two have different numbers of supervised
// rows in each batch.
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "train/step.hpp"
#include "unit/strategies/plugin_file.hpp"
#include "unit/train/pair.hpp"

#include <catch2/generators/catch_generators_range.hpp>
#include "torch_catch.hpp"

namespace mcit::test {
namespace {

using fake::FakeBackbone;
using fake::Settings;

constexpr std::int64_t kTasks = 3, kSteps = 4, kBatch = 4;

const TrainOptions kOptions = {
    .steps = kSteps,
    .batch = kBatch,
    .accumulation = 2,
    .learning_rate = {{"adapter", 0.02}, {"connector", 0.02}, {"prompt", 0.02}, {"base", 0.02}},
    .schedule = "cosine",
    .warmup = 0.25,
    .clip = 0.5,
    .adamw = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-3, .weight_decay = 0.01}};

struct Trained {
  std::vector<StepResult> steps;
  std::vector<StateDict> states;  ///< after each stage
};

/// The stream as the task loop drives it, on the small backbone.
class Stream {
 public:
  Stream(const std::string& file, const std::string& name, const Settings& settings, const Group& group)
      : group_(group), strategy_(fake::create(file, name, host_, settings)), hooks_(*strategy_, name) {
    join_group(*strategy_, name, group);
    StreamInfo stream{.tasks = {}, .seed = 3, .backbone = backbone_.info()};
    for (std::int64_t t = 0; t < kTasks; ++t) {
      host_.tasks[t] = fake::make_task(t, 12);
      stream.tasks.push_back({"task" + std::to_string(t), 12, 12, {}});
    }
    hooks_.on_stream_begin(stream);
    stages_ = hooks_.plan(stream);
    hooks_.attach(backbone_);
  }

  Trained run() {
    Trained out;
    for (std::size_t i = 0; i < stages_.size(); ++i) {
      std::vector<ExamplePtr> examples;
      for (const std::int64_t t : stages_[i].tasks)
        examples.insert(examples.end(), host_.tasks[t].begin(), host_.tasks[t].end());
      const Task task{static_cast<std::int64_t>(i), stages_[i].name, stages_[i].tasks, kSteps};
      fake::FakeBatches before(examples), after(examples);
      hooks_.before_task(task, before, backbone_);
      AdamW optimizer(hooks_.parameters(), kOptions.adamw);
      const BatchSource batches = [&](std::int64_t index) {
        std::vector<ExamplePtr> rows;
        for (std::int64_t k = 0; k < kBatch; ++k)
          rows.push_back(examples[static_cast<std::size_t>(index * kBatch + k) * 5 % examples.size()]);
        return Batch{group_.share(rows)};
      };
      for (std::int64_t number = 0; number < kSteps && !optimizer.parameters().empty(); ++number)
        out.steps.push_back(train_step(
            task, number, backbone_, hooks_, optimizer, batches, kOptions, [](const Batch&, double) {},
            group_));
      for (const std::int64_t t : stages_[i].tasks) host_.trained = std::max(host_.trained, t + 1);
      hooks_.after_task(task, after, backbone_);
      StateDict copy;
      for (const auto& [key, tensor] : hooks_.state()) copy[key] = tensor.detach().clone();
      out.states.push_back(std::move(copy));
    }
    return out;
  }

 private:
  const Group& group_;
  FakeBackbone backbone_;
  fake::FakeHost host_;
  fake::StrategyPtr strategy_;
  HookRunner hooks_;
  std::vector<Stage> stages_;
};

struct Case {
  const char *file, *strategy;
  Settings settings;
};

/// Without moe_lora's balance: this backbone runs each sequence by itself, which that loss cannot look
/// through.
const std::vector<Case> kCases = {
    {"sequential", "sequential", {{"rank", std::int64_t{4}}}},
    {"bounds", "single", {{"rank", std::int64_t{4}}}},
    {"bounds", "joint", {{"rank", std::int64_t{4}}}},
    {"replay",
     "replay",
     {{"rank", std::int64_t{4}}, {"buffer", std::int64_t{9}}, {"replay_batch", std::int64_t{5}}}},
    {"ewc", "ewc", {{"rank", std::int64_t{4}}, {"lambda", 30.0}}},
    {"moe_lora", "moe_lora", {{"rank", std::int64_t{8}}, {"experts", std::int64_t{4}}}},
    {"moe_lora",
     "moe_lora",
     {{"rank", std::int64_t{8}},
      {"experts", std::int64_t{4}},
      {"top_k", std::int64_t{2}},
      {"pool", std::string("first")}}},
    {"branch_lora", "branch_lora", {{"rank", std::int64_t{8}}, {"experts", std::int64_t{4}}}},
    {"fwd_prompt",
     "fwd_prompt",
     {{"pool", std::int64_t{6}}, {"prompt_length", std::int64_t{2}}, {"top_k", std::int64_t{2}}}},
    {"prompt_tuning", "coop", {{"length", std::int64_t{3}}, {"bare", false}}},
    {"prompt_tuning", "maple", {{"length", std::int64_t{2}}, {"bare", false}, {"depth", std::int64_t{1}}}},
    {"mmap", "mmap", {{"length", std::int64_t{2}}}},
    {"mmap", "mmap", {{"length", std::int64_t{2}}, {"setting", std::string("multi_task")}}},
    {"pilot", "pilot", {{"difference_weight", 0.0}, {"inference", std::string("own")}}},
    {"zero_shot", "zero_shot", {}},
};

}  // namespace

TEST_CASE("two processes train every strategy as one does") {
  const Case& c = kCases[GENERATE(range(std::size_t{0}, kCases.size()))];
  DYNAMIC_SECTION(c.strategy << " of " << c.file) {
    const Trained one = Stream(c.file, c.strategy, c.settings, no_group()).run();
    std::array<Trained, 2> two;
    const auto thrown = in_two([&](std::unique_ptr<Group>& group) {
      two[static_cast<std::size_t>(group->rank())] = Stream(c.file, c.strategy, c.settings, *group).run();
    });
    CHECK(thrown[0].empty());
    CHECK(thrown[1].empty());
    for (const Trained& found : two) {
      REQUIRE(found.steps.size() == one.steps.size());
      REQUIRE(found.states.size() == one.states.size());
      for (std::size_t i = 0; i < one.steps.size(); ++i) {
        INFO("step " << i);
        CHECK(std::abs(found.steps[i].loss - one.steps[i].loss) < 1e-6);
        CHECK(std::abs(found.steps[i].gradient_norm - one.steps[i].gradient_norm) < 1e-6);
        CHECK(found.steps[i].examples == one.steps[i].examples);
        CHECK(found.steps[i].tokens == one.steps[i].tokens);
      }
      for (std::size_t stage = 0; stage < one.states.size(); ++stage) {
        REQUIRE(found.states[stage].size() == one.states[stage].size());
        for (const auto& [name, tensor] : one.states[stage]) {
          INFO(name << " after stage " << stage);
          REQUIRE(found.states[stage].contains(name));
          const Tensor& other = found.states[stage].at(name);
          REQUIRE(other.sizes() == tensor.sizes());
          if (tensor.numel() == 0) continue;
          CHECK((other.to(at::kDouble) - tensor.to(at::kDouble)).abs().max().item<double>() < 1e-5);
        }
      }
    }
    // They are of one mind to the last bit.
    for (std::size_t stage = 0; stage < one.states.size() && stage < two[0].states.size(); ++stage)
      for (const auto& [name, tensor] : two[0].states[stage])
        CHECK(fake::same_bytes(tensor, two[1].states[stage].at(name)));
  }
}

TEST_CASE("a setting that two processes cannot train with is refused by name") {
  const auto thrown = in_two([&](std::unique_ptr<Group>& group) {
    Stream("pilot", "pilot", {{"difference_weight", 0.1}, {"inference", std::string("own")}}, *group);
  });
  for (const std::string& text : thrown) {
    CHECK(text.find("strategy 'pilot'") != std::string::npos);
    CHECK(text.find("difference_weight = 0") != std::string::npos);
  }
}

}  // namespace mcit::test
