#include "train/step.hpp"

#include <ATen/Context.h>
#include <torch/types.h>

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

/// Adds a micro-step of all processes to the result. @return its loss
double count_in(StepResult& result, double loss, const Batch& batch, std::int64_t accumulation,
                const Group& group) {
  double tokens = 0.0;
  for (const ExamplePtr& example : batch.examples) tokens += static_cast<double>(example->tokens.size());
  const std::vector<double> own = {loss / static_cast<double>(group.size()),
                                   static_cast<double>(batch.size()), tokens};
  const Tensor all = group.sum(at::tensor(own, at::kDouble));
  const auto* sums = all.const_data_ptr<double>();
  result.loss += sums[0] / static_cast<double>(accumulation);
  result.examples += static_cast<std::int64_t>(sums[1]);
  result.tokens += static_cast<std::int64_t>(sums[2]);
  return sums[0];
}

}  // namespace

void seed_dropout(std::uint64_t seed, at::Device device) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(seed);
}

StepResult train_step(const Task& task, std::int64_t number, Backbone& backbone, HookRunner& hooks,
                      AdamW& optimizer, const BatchSource& batches, const TrainOptions& options,
                      const std::function<void(const Batch&, double)>& on_nonfinite, const Group& group) {
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
    const Tensor base = group.weighted(answer_loss(step.out), step.out.targets.size(0));
    const Tensor loss = hooks.loss(step, base);
    require_finite(count_in(result, loss.item<double>(), step.batch, options.accumulation, group), "loss",
                   step, on_nonfinite);
    (options.accumulation == 1 ? loss : loss / static_cast<double>(options.accumulation)).backward();
    backbone.route().clear();  // prompts hold the graph of this micro-step
  }
  group.average_gradients(optimizer.parameters());
  hooks.on_gradients(step);
  result.gradient_norm = clip_gradients(optimizer.parameters(), options.clip);
  require_finite(result.gradient_norm, "gradient", step, on_nonfinite);

  const auto warmup = static_cast<std::int64_t>(std::ceil(options.warmup * static_cast<double>(task.steps)));
  result.rate = schedule_factor(options.schedule, number, warmup, task.steps);
  std::map<std::string, double> rates = options.learning_rate;
  for (auto& [name, rate] : rates) rate *= result.rate;
  optimizer.step(rates);
  hooks.after_step(step);
  return result;
}

}  // namespace mcit
