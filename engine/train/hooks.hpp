#pragma once
/// Runs a strategy's hooks: sets grad mode, measures time, seeds the strategy's randomness, and says where a
/// hook failed.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "mcit/strategy.hpp"

namespace mcit {

struct HookCost {
  std::int64_t calls = 0;
  double seconds = 0.0;
};

class HookRunner {
 public:
  HookRunner(Strategy& strategy, std::string name) : strategy_(strategy), name_(std::move(name)) {}

  void on_stream_begin(const StreamInfo& stream);
  std::vector<Stage> plan(const StreamInfo& stream);
  void attach(Backbone& backbone);
  void before_task(const Task& task, Batches& batches, Backbone& backbone);
  void before_forward(Step& step);
  Tensor loss(Step& step, Tensor base);
  void on_gradients(Step& step);
  void after_step(Step& step);
  void after_task(const Task& task, Batches& batches, Backbone& backbone);
  Selection select(const Batch& batch, Backbone& backbone);
  StateDict state();
  void load_state(const StateDict& state);
  Parameters parameters();
  std::int64_t stored_parameters();

  /// Called with the hook's name before each hook, so that the host can seed its generator.
  void set_listener(std::function<void(const char* hook)> listener) { listener_ = std::move(listener); }
  /// Where hooks are from now on; step -1 outside steps.
  void at(const Task& task, std::int64_t step) {
    stage_ = task.index;
    stage_name_ = task.name;
    step_ = step;
  }
  const std::map<std::string, HookCost>& costs() const { return costs_; }
  const std::string& name() const { return name_; }

 private:
  template <class F>
  auto run(const char* hook, bool grad, F&& body);
  [[noreturn]] void fail(const char* hook, const char* cause) const;

  Strategy& strategy_;
  std::string name_, stage_name_;
  std::int64_t stage_ = -1, step_ = -1;
  std::function<void(const char*)> listener_;
  std::map<std::string, HookCost> costs_;
};

}  // namespace mcit
