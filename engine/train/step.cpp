#include "train/step.hpp"

#include <ATen/Context.h>

#include <cmath>
#include <mutex>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

void require_finite(double value, const char* what, const Step& step,
                    const std::function<void(const Batch&, double)>& on_nonfinite) {
  if (std::isfinite(value)) return;
  on_nonfinite(step.batch, value);
  throw Error("task " + std::to_string(step.task.index + 1) + " '" + step.task.name + "', step " +
                  std::to_string(step.number),
              std::string("the ") + what + " is not finite",
              "the batch is kept in the run folder; a lower learning rate often helps");
}

}  // namespace

void seed_dropout(std::uint64_t seed, at::Device device) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(seed);
}

StepResult train_step(const Task& task, std::int64_t number, Backbone& backbone, HookRunner& hooks,
                      AdamW& optimizer, const BatchSource& batches, const TrainOptions& options,
                      const std::function<void(const Batch&, double)>& on_nonfinite) {
  StepResult result;
  optimizer.zero_grad();
  Step step{.task = task,
            .number = number,
            .backbone = backbone,
            .batch = {},
            .out = {},
            .trainable = optimizer.parameters()};
  for (step.micro_step = 0; step.micro_step < options.accumulation; ++step.micro_step) {
    step.batch = batches(number * options.accumulation + step.micro_step);
    std::vector<std::int64_t>& route = backbone.route().task;
    route.clear();
    backbone.route().clear();
    for (const ExamplePtr& example : step.batch.examples) route.push_back(example->task);
    const std::vector<std::int64_t> own = route;
    hooks.before_forward(step);
    if (route == own) {  // the strategy leaves routing alone: whatever joined the batch goes to its own task
      route.clear();
      for (const ExamplePtr& example : step.batch.examples) route.push_back(example->task);
    }
    for (std::size_t i = route.size(); i < step.batch.size(); ++i)
      route.push_back(step.batch.examples[i]->task);

    step.out = backbone.forward(step.batch);
    const Tensor loss = hooks.loss(step, answer_loss(step.out));
    const double value = loss.item<double>();
    require_finite(value, "loss", step, on_nonfinite);
    (options.accumulation == 1 ? loss : loss / static_cast<double>(options.accumulation)).backward();
    backbone.route().clear();  // prompts hold the graph of this micro-step

    result.loss += value / static_cast<double>(options.accumulation);
    result.examples += static_cast<std::int64_t>(step.batch.size());
    for (const ExamplePtr& example : step.batch.examples)
      result.tokens += static_cast<std::int64_t>(example->tokens.size());
  }
  hooks.on_gradients(step);
  result.gradient_norm = clip_gradients(optimizer.parameters(), options.clip);
  require_finite(result.gradient_norm, "gradient", step, on_nonfinite);

  const auto warmup = static_cast<std::int64_t>(std::ceil(options.warmup * static_cast<double>(task.steps)));
  result.rate = schedule_factor(options.schedule, number, warmup, task.steps);
  std::map<std::string, double> rates = options.learning_rate;
  for (auto& [group, rate] : rates) rate *= result.rate;
  optimizer.step(rates);
  hooks.after_step(step);
  return result;
}

}  // namespace mcit
