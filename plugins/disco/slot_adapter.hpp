#pragma once
/// LoRA in slots: one small pair trains, and beside it stand the pairs of all subspaces, frozen, which answer
/// together, each by its weight for the sequence.

#include <memory>
#include <string>
#include <vector>

#include "mcit/backbone.hpp"
#include "mcit/parts/lora.hpp"

namespace mcit::disco {

/// What all adapters of a model do with the batch at hand.
struct Activation {
  Tensor weights;  ///< [B, C]: w of each sequence and subspace; undefined: the pair that trains answers alone

  bool subspaces() const { return weights.defined(); }
};

/// y += s B A drop(x) of the pair, or s Σ_c w_c B_c A_c x: a diagonal gate between all A_c below and all B_c
/// beside one another. s = alpha / rank with the total rank of all slots.
class SlotAdapter final : public Adapter {
 public:
  /// @param options of one slot but for the scale @param scale s
  SlotAdapter(const Site& site, const parts::LoraOptions& options, double scale,
              std::shared_ptr<const Activation> activation, const at::Generator& generator);
  ~SlotAdapter() override;

  Tensor down() const override { return activation_->subspaces() ? all_down_ : a_; }
  Tensor up() const override { return activation_->subspaces() ? all_up_ : b_; }
  double dropout() const override { return activation_->subspaces() ? 0.0 : options_.dropout; }
  /// The weights are of the sequence, as a router's that reads its first row are: a beginning that several
  /// sequences share must not go through once for all.
  Reads reads() const override { return activation_->subspaces() ? Reads::first_row : Reads::own_row; }
  Tensor mix(const Tensor& z, const Tensor& logits, RouteContext& route,
             const std::string& site) const override;
  Parameters parameters() const override { return {{"lora_A.weight", a_}, {"lora_B.weight", b_}}; }

  /// Takes copies. @param downs [C] of [r, in] @param ups [C] of [out, r]; none: no subspace
  void set_subspaces(const std::vector<Tensor>& downs, const std::vector<Tensor>& ups);

 private:
  parts::LoraOptions options_;
  double scale_;
  std::shared_ptr<const Activation> activation_;
  Tensor a_, b_;              ///< [r, in], [out, r]
  Tensor all_down_, all_up_;  ///< [C r, in], [out, C r]
};

}  // namespace mcit::disco
