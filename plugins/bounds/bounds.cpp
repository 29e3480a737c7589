// The two references a continual learner stands between: each task on its own, and all tasks at once.
#include "mcit/parts/learner.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

constexpr const char* kInitial = "initial.";

/// A fresh learner for every task: S[j], what the learner can reach on task j when nothing came before.
class Single final : public Strategy {
 public:
  Single(const Params& params, Host& host) : host_(host), learner_(parts::Learner::lora(params)) {}

  void attach(Backbone& backbone) override {
    learner_.attach(backbone, host_.generator());
    initial_ = learner_.state();
  }

  void before_task(const Task&, Batches&, Backbone&) override { learner_.load_state(initial_); }

  Parameters parameters() const override { return learner_.parameters(); }

  StateDict state() const override {
    StateDict state = learner_.state();
    for (const auto& [name, tensor] : initial_) state[kInitial + name] = parts::state_copy(tensor);
    return state;
  }

  void load_state(const StateDict& state) override {
    parts::StateReader reader(state);
    learner_.load(reader);
    for (const auto& [name, tensor] : initial_) reader.copy(kInitial + name, tensor);
    reader.commit();
  }

  std::int64_t stored_parameters() const override { return learner_.size(); }

 private:
  Host& host_;
  parts::Learner learner_;
  StateDict initial_;  ///< the bytes that every task starts from
};

/// One stage with the data of all tasks: what the learner can reach when nothing has to be remembered.
class Joint final : public Strategy {
 public:
  Joint(const Params& params, Host& host) : host_(host), learner_(parts::Learner::lora(params)) {}

  std::vector<Stage> plan(const StreamInfo& stream) const override {
    Stage all{"joint", {}};
    for (std::size_t i = 0; i < stream.tasks.size(); ++i) all.tasks.push_back(static_cast<std::int64_t>(i));
    return {all};
  }

  void attach(Backbone& backbone) override { learner_.attach(backbone, host_.generator()); }

  Parameters parameters() const override { return learner_.parameters(); }
  StateDict state() const override { return learner_.state(); }
  void load_state(const StateDict& state) override { learner_.load_state(state); }
  std::int64_t stored_parameters() const override { return learner_.size(); }

 private:
  Host& host_;
  parts::Learner learner_;
};

}  // namespace

MCIT_PLUGIN("mcit-bounds", MCIT_VERSION,
            mcit::strategy<Single>("single", "Upper reference: a fresh learner for every task"),
            mcit::strategy<Joint>("joint", "Upper reference: one stage with the data of all tasks"))
