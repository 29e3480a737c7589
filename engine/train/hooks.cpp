#include "train/hooks.hpp"

#include <ATen/core/grad_mode.h>

#include <stdexcept>

#include "core/system.hpp"
#include "mcit/errors.hpp"

namespace mcit {

void HookRunner::fail(const char* hook, const char* cause) const {
  std::string where = "'" + name_ + "' in " + hook;
  if (stage_ >= 0) where += ", task " + std::to_string(stage_ + 1) + " '" + stage_name_ + "'";
  if (step_ >= 0) where += ", step " + std::to_string(step_);
  throw StrategyError(where, cause);
}

template <class F>
auto HookRunner::run(const char* hook, bool grad, F&& body) {
  struct Timer {  // also counts a hook that throws
    HookCost& cost;
    Stopwatch watch;
    ~Timer() {
      ++cost.calls;
      cost.seconds += watch.seconds();
    }
  };
  if (listener_) listener_(hook);
  const at::AutoGradMode mode(grad);
  const Timer timer{costs_[hook], {}};
  try {
    return body();
  } catch (const std::exception& e) {
    fail(hook, cause_of(e).c_str());
  } catch (...) {
    fail(hook, "threw something that is no std::exception");
  }
}

void HookRunner::on_stream_begin(const StreamInfo& stream) {
  run("on_stream_begin", false, [&] { strategy_.on_stream_begin(stream); });
}
std::vector<Stage> HookRunner::plan(const StreamInfo& stream) {
  return run("plan", false, [&] {
    std::vector<Stage> stages = strategy_.plan(stream);
    check_plan(stages, stream);
    return stages;
  });
}
void HookRunner::attach(Backbone& backbone) {
  run("attach", false, [&] { strategy_.attach(backbone); });
}
void HookRunner::before_task(const Task& task, Batches& batches, Backbone& backbone) {
  run("before_task", true, [&] { strategy_.before_task(task, batches, backbone); });
}
void HookRunner::before_forward(Step& step) {
  run("before_forward", false, [&] { strategy_.before_forward(step); });
}
Tensor HookRunner::loss(Step& step, Tensor base) {
  return run("loss", true, [&] {
    const bool trained = base.requires_grad();
    Tensor loss = strategy_.loss(step, std::move(base));
    if (!loss.defined() || loss.numel() != 1) throw std::runtime_error("the loss is no single number");
    if (trained && !loss.requires_grad())
      throw std::runtime_error("the loss does not depend on anything that is trained");
    return loss;
  });
}
void HookRunner::on_gradients(Step& step) {
  run("on_gradients", false, [&] { strategy_.on_gradients(step); });
}
void HookRunner::after_step(Step& step) {
  run("after_step", false, [&] { strategy_.after_step(step); });
}
void HookRunner::after_task(const Task& task, Batches& batches, Backbone& backbone) {
  run("after_task", true, [&] { strategy_.after_task(task, batches, backbone); });
}
Selection HookRunner::select(const Batch& batch, Backbone& backbone) {
  return run("select", false, [&] {
    Selection selection = strategy_.select(batch, backbone);
    if (!selection.task.empty() && selection.task.size() != batch.size())
      throw std::runtime_error("chose " + std::to_string(selection.task.size()) + " tasks for " +
                               std::to_string(batch.size()) + " examples");
    return selection;
  });
}
StateDict HookRunner::state() {
  return run("state", false, [&] { return strategy_.state(); });
}
void HookRunner::load_state(const StateDict& state) {
  run("load_state", false, [&] { strategy_.load_state(state); });
}
Parameters HookRunner::parameters() {
  return run("parameters", false, [&] { return strategy_.parameters(); });
}
std::int64_t HookRunner::stored_parameters() {
  return run("stored_parameters", false, [&] { return strategy_.stored_parameters(); });
}

}  // namespace mcit
