// One learner, trained on each task in turn, with nothing against forgetting.
#include "mcit/parts/learner.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

class Sequential final : public Strategy {
 public:
  Sequential(const Params& params, Host& host) : host_(host), learner_(parts::Learner::lora(params)) {}

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

MCIT_PLUGIN("mcit-sequential", MCIT_VERSION,
            mcit::strategy<Sequential>("sequential",
                                       "Fine-tuning on each task in turn (LoRA, or full = true)"))
