// @Class@: LoRA on each task in turn, with a pull back to where the last task ended. Change what it does, not what it
// overrides: every hook and when it runs stands in <mcit/strategy.hpp>.
#include <mcit/parts/learner.hpp>
#include <mcit/plugin.hpp>

namespace {

using namespace mcit;

class @Class@ final : public Strategy {
 public:
  // Settings of the [strategy] table, each with its default; an unknown key is an error that names the nearest one.
  @Class@(const Params& params, Host& host)
      : host_(host), learner_(parts::Learner::lora(params)), pull_(params.number("pull", 1e-3)) {}

  void attach(Backbone& backbone) override { learner_.attach(backbone, host_.generator()); }

  void before_task(const Task&, Batches&, Backbone&) override { anchor_ = learner_.state(); }

  // The gradient of pull/2 |theta - anchor|^2, added without an autograd graph.
  void on_gradients(Step& step) override {
    for (const Parameter& p : step.trainable)
      if (p.value.grad().defined()) p.value.mutable_grad().add_(p.value.detach() - anchor_.at(p.name), pull_);
  }

  Parameters parameters() const override { return learner_.parameters(); }

  // All that load_state() needs to predict and to go on training exactly as this object would.
  StateDict state() const override {
    StateDict state = learner_.state();
    for (const auto& [name, tensor] : anchor_) state["anchor." + name] = tensor.clone();
    return state;
  }

  void load_state(const StateDict& state) override {
    StateDict anchor = learner_.state();
    parts::StateReader reader(state);
    learner_.load(reader);
    if (state.contains("anchor." + anchor.begin()->first))
      for (const auto& [name, tensor] : anchor) reader.copy("anchor." + name, tensor);
    else
      anchor.clear();  // saved before the first task
    reader.then([&] { anchor_ = anchor; });
    reader.commit();
  }

  std::int64_t stored_parameters() const override { return learner_.size(); }

 private:
  Host& host_;
  parts::Learner learner_;
  double pull_;
  StateDict anchor_;  // the parameters when the stage began
};

}  // namespace

MCIT_PLUGIN("@name@", "0.1.0", mcit::strategy<@Class@>("@name@", "LoRA with a pull towards the last task's solution"))
