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

class MoeLora final : public Strategy {
 public:
  MoeLora(const Params& params, Host& host) : host_(host), learner_(expert_learner(params)) {}

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

MCIT_PLUGIN("mcit-moe-lora", MCIT_VERSION,
            mcit::strategy<MoeLora>("moe_lora",
                                    "MoE-LoRA (CoIN): a dense mixture of LoRA experts behind a router"))
