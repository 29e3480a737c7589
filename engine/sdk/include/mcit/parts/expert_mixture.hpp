#pragma once
/// MoE-LoRA of CoIN (Chen et al. 2024): dense mixture of E small LoRAs behind a linear router.

#include "mcit/parts/lora.hpp"

namespace mcit::parts {

/// y += s · Σ_e g_e · B_e A_e drop(x), g = softmax(R x), s = alpha / rank with the total rank.
///
/// The E experts lie one after the other in A's rows and B's columns, so that the sum is one product in which
/// each expert's part of z = A drop(x) is scaled by its gate. All experts see the same dropout mask.
class MCIT_EXPORT ExpertMixture final : public Adapter {
 public:
  /// @param options rank is the total over all experts
  /// @throws ConfigError when the experts do not divide the rank
  ExpertMixture(const Site& site, std::int64_t experts, const LoraOptions& options,
                const at::Generator& generator);
  ~ExpertMixture() override;

  Tensor down() const override { return a_; }   ///< [E·r_e, in]
  Tensor up() const override { return b_; }     ///< [out, E·r_e]
  Tensor route() const override { return r_; }  ///< [E, in]
  double dropout() const override { return options_.dropout; }
  Tensor mix(const Tensor& z, const Tensor& logits, RouteContext& route,
             const std::string& site) const override;
  Parameters parameters() const override {
    return {{"lora_A.weight", a_}, {"lora_B.weight", b_}, {"lora_router.weight", r_}};
  }

  /// Gates of each row, summing to 1. logits [N, E] -> [N, E] in at least float32
  static Tensor gates(const Tensor& logits);
  std::int64_t experts() const { return experts_; }
  const LoraOptions& options() const { return options_; }

  /// Numbers of such a mixture at an [out, in] site: rank·(in + out) + experts·in.
  static std::int64_t count(std::int64_t in, std::int64_t out, std::int64_t experts,
                            const LoraOptions& options) {
    return Lora::count(in, out, options) + experts * in;
  }

 private:
  std::int64_t experts_;
  LoraOptions options_;
  Tensor a_, b_, r_;
};

}  // namespace mcit::parts
