// The base model as it is: the floor that every method is measured from.
#include "mcit/errors.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

class ZeroShot final : public Strategy, public DataParallel {
 public:
  ZeroShot(const Params&, Host&) {}

  Parameters parameters() const override { return {}; }
  StateDict state() const override { return {}; }
  void load_state(const StateDict& state) override {
    if (!state.empty())
      throw CheckpointError(state.begin()->first, "in the state, but zero_shot keeps nothing",
                            "the state belongs to another strategy");
  }
};

}  // namespace

MCIT_PLUGIN("mcit-zero-shot", MCIT_VERSION,
            mcit::strategy<ZeroShot>("zero_shot",
                                     "The untrained base: nothing is learnt, nothing is forgotten"))
