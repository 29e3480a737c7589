// One learner, trained on each task in turn, with nothing against forgetting.
#include "mcit/causal.hpp"
#include "mcit/parts/learner.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

class Sequential final : public parts::LearnerStrategy, public Causal, public DataParallel {
 public:
  Sequential(const Params& params, Host& host) : LearnerStrategy(host, parts::Learner::lora(params)) {}
};

}  // namespace

MCIT_PLUGIN("mcit-sequential", MCIT_VERSION,
            mcit::strategy<Sequential>("sequential",
                                       "Fine-tuning on each task in turn (LoRA, or full = true)"))
