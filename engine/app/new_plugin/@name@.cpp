// @Class@: LoRA on each task in turn, with a pull back to where the last task ended. Change what it does, not what it
// overrides: every hook and when it runs stands in <mcit/strategy.hpp>.
#include <mcit/parts/learner.hpp>
#include <mcit/plugin.hpp>

namespace {

using namespace mcit;

class @Class@ final : public parts::LearnerStrategy {
 public:
  // Settings of the [strategy] table, each with its default; an unknown key is an error that names the nearest one.
  @Class@(const Params& params, Host& host)
      : LearnerStrategy(host, parts::Learner::lora(params)), pull_(params.number("pull", 1e-3)) {}

  void before_task(const Task&, Batches&, Backbone&) override { anchor_ = learner().state(); }

  // The gradient of pull/2 |theta - anchor|^2, added without an autograd graph.
  void on_gradients(Step& step) override {
    for (const Parameter& p : step.trainable)
      if (p.value.grad().defined()) p.value.mutable_grad().add_(p.value.detach() - anchor_.at(p.name), pull_);
  }

 private:
  // All that load() needs, besides the learner's own, to predict and to go on training exactly as this object would.
  void save(StateDict& state) const override {
    for (const auto& [name, tensor] : anchor_) state["anchor." + name] = parts::state_copy(tensor);
  }

  void load(parts::StateReader& reader) override {
    StateDict anchor = learner().state();
    if (reader.has("anchor." + anchor.begin()->first))
      for (const auto& [name, tensor] : anchor) reader.copy("anchor." + name, tensor);
    else
      anchor.clear();  // saved before the first task
    reader.then([this, anchor] { anchor_ = anchor; });
  }

  double pull_;
  StateDict anchor_;  // the parameters when the stage began
};

}  // namespace

MCIT_PLUGIN("@name@", "0.1.0", mcit::strategy<@Class@>("@name@", "LoRA with a pull towards the last task's solution"))
