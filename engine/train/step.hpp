#pragma once
/// The training step: one page, every method's moments in it.

#include <functional>
#include <map>
#include <string>

#include "mcit/strategy.hpp"
#include "train/group.hpp"
#include "train/hooks.hpp"
#include "train/optimizer.hpp"

namespace mcit {

struct TrainOptions {
  std::int64_t steps = 150;       ///< optimizer steps a task
  std::int64_t batch = 32;        ///< examples a micro-step
  std::int64_t accumulation = 1;  ///< micro-steps a step
  std::map<std::string, double> learning_rate = {
      {"adapter", 3e-3}, {"connector", 3e-3}, {"prompt", 3e-3}, {"base", 1e-3}};
  std::string schedule = "cosine";  ///< after warm-up: cosine, linear or constant
  double warmup = 0.03;             ///< share of a task's steps
  double clip = 1.0;                ///< limit of the gradients' joint norm, 0 = none
  AdamWOptions adamw;
};

struct StepResult {
  double loss = 0.0;           ///< what was differentiated, mean over micro-steps
  double gradient_norm = 0.0;  ///< before clipping
  double rate = 0.0;           ///< schedule factor
  std::int64_t examples = 0;   ///< sequences, replay included
  std::int64_t tokens = 0;     ///< rows that went through the decoder
};

/// Micro-batch number `index` of the stage; of several processes, the share of this one.
using BatchSource = std::function<Batch(std::int64_t index)>;

/// Dropout of what follows on this device is a function of the seed, so that a resumed run repeats it.
void seed_dropout(std::uint64_t seed, at::Device device);

/// Of several processes each sees its rows of every batch; what is returned is of all rows.
/// @throws StrategyError from hooks; Error when loss or gradient is not finite, in all processes and after
/// `on_nonfinite` saw the batch.
StepResult train_step(const Task& task, std::int64_t number, Backbone& backbone, HookRunner& hooks,
                      AdamW& optimizer, const BatchSource& batches, const TrainOptions& options,
                      const std::function<void(const Batch&, double)>& on_nonfinite,
                      const Group& group = no_group());

}  // namespace mcit
