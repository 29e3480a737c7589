// The two references a continual learner stands between: each task on its own, and all tasks at once.
#include "mcit/parts/learner.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

constexpr const char* kInitial = "initial.";

/// A fresh learner for every task: S[j], what the learner can reach on task j when nothing came before.
class Single final : public parts::LearnerStrategy, public DataParallel {
 public:
  Single(const Params& params, Host& host) : LearnerStrategy(host, parts::Learner::lora(params)) {}

  void attach(Backbone& backbone) override {
    LearnerStrategy::attach(backbone);
    initial_ = learner().state();
  }

  void before_task(const Task&, Batches&, Backbone&) override { learner().load_state(initial_); }

 private:
  void save(StateDict& state) const override {
    for (const auto& [name, tensor] : initial_) state[kInitial + name] = parts::state_copy(tensor);
  }
  void load(parts::StateReader& reader) override {
    for (const auto& [name, tensor] : initial_) reader.copy(kInitial + name, tensor);
  }

  StateDict initial_;  ///< the bytes that every task starts from
};

/// One stage with the data of all tasks: what the learner can reach when nothing has to be remembered.
class Joint final : public parts::LearnerStrategy, public DataParallel {
 public:
  Joint(const Params& params, Host& host) : LearnerStrategy(host, parts::Learner::lora(params)) {}

  std::vector<Stage> plan(const StreamInfo& stream) const override { return joint_plan(stream); }
};

}  // namespace

MCIT_PLUGIN("mcit-bounds", MCIT_VERSION,
            mcit::strategy<Single>("single", "Upper reference: a fresh learner for every task"),
            mcit::strategy<Joint>("joint", "Upper reference: one stage with the data of all tasks"))
