// MoE-LoRA as in CoIN: the same experts and routers go on training through all tasks.
#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/expert_mixture.hpp"
#include "mcit/parts/learner.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;
using parts::ExpertMixture;

parts::Learner expert_learner(const Params& params) {
  const parts::MixtureOptions mixture = parts::MixtureOptions::read(params, {});
  const parts::LoraOptions options = parts::LoraOptions::read(params);
  mixture.check(options);
  return parts::Learner(params, "moe_lora",
                        [=](const Site& site, const at::Generator& generator) -> AdapterPtr {
                          return std::make_shared<ExpertMixture>(site, mixture, options, generator);
                        });
}

class MoeLora final : public parts::LearnerStrategy, public Causal, public DataParallel {
 public:
  MoeLora(const Params& params, Host& host)
      : LearnerStrategy(host, expert_learner(params)),
        balance_(params.number("balance", 0.0)),
        probe_(params.integer("probe_examples", 256)) {
    if (!(balance_ >= 0.0)) throw ConfigError("strategy.balance", "must not be negative");
    if (probe_ < 0) throw ConfigError("strategy.probe_examples", "must not be negative");
  }

  void attach(Backbone& backbone) override {
    LearnerStrategy::attach(backbone);
    for (const auto& entry : learner().adapters().entries()) {
      names_.push_back(entry.site->name());
      mixtures_.push_back(std::static_pointer_cast<ExpertMixture>(entry.adapter));
      mixtures_.back()->keep_shares(balance_ > 0.0);
    }
  }

  /// L + balance · the mean over all routers of their load-balancing loss.
  Tensor loss(Step&, Tensor base) override {
    if (balance_ == 0.0) return base;
    std::vector<Tensor> shares;
    for (const auto& mixture : mixtures_) shares.push_back(mixture->take_shares());
    return base + balance_ * parts::balance_loss(shares, mixtures_.front()->mixture().top_k, peers());
  }

  void after_task(const Task&, Batches& batches, Backbone& backbone) override {
    if (probe_ == 0) return;
    parts::measure_usage(mixtures_, batches, backbone, probe_);
    host().table("experts", parts::usage_table(names_, mixtures_));
  }

 private:
  double balance_;
  std::int64_t probe_;
  std::vector<std::string> names_;
  std::vector<std::shared_ptr<ExpertMixture>> mixtures_;
};

}  // namespace

MCIT_PLUGIN("mcit-moe-lora", MCIT_VERSION,
            mcit::strategy<MoeLora>("moe_lora",
                                    "MoE-LoRA (CoIN): a dense mixture of LoRA experts behind a router"))
