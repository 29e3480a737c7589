// MoE-LoRA as in CoIN: the same experts and routers go on training through all tasks.
#include "mcit/parts/expert_mixture.hpp"
#include "mcit/parts/learner.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

parts::Learner expert_learner(const Params& params) {
  const std::int64_t experts = params.integer("experts", 8);
  const parts::LoraOptions options = parts::LoraOptions::read(params);
  return parts::Learner(params, "moe_lora",
                        [=](const Site& site, const at::Generator& generator) -> AdapterPtr {
                          return std::make_shared<parts::ExpertMixture>(site, experts, options, generator);
                        });
}

class MoeLora final : public parts::LearnerStrategy {
 public:
  MoeLora(const Params& params, Host& host) : LearnerStrategy(host, expert_learner(params)) {}
};

}  // namespace

MCIT_PLUGIN("mcit-moe-lora", MCIT_VERSION,
            mcit::strategy<MoeLora>("moe_lora",
                                    "MoE-LoRA (CoIN): a dense mixture of LoRA experts behind a router"))
