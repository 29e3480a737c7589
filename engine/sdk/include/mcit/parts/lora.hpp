#pragma once
/// LoRA (Hu et al. 2022): W + s·B·A at a linear site.

#include <string>

#include "mcit/backbone.hpp"
#include "mcit/params.hpp"

namespace mcit::parts {

/// What low-rank adapters have in common. Also the settings of the same names.
struct LoraOptions {
  std::int64_t rank = 16;
  double alpha = 32.0;           ///< the update is scaled by alpha / rank
  bool rs_lora = false;          ///< by alpha / sqrt(rank) instead (Kalajdzievski 2023)
  double dropout = 0.0;          ///< on what A reads
  std::string init = "kaiming";  ///< A: U(±1/sqrt(in)) as in PEFT, or "gaussian": N(0, init_std²). B is zero.
  double init_std = 0.01;

  /// Settings rank, alpha (default 2·rank), rs_lora, dropout, init, init_std. @throws ConfigError for a value
  /// out of range
  static MCIT_EXPORT LoraOptions read(const Params& params);
  MCIT_EXPORT double scale() const;
};

/// Adapters live where their site's weight does, in float32 (float64 beside a float64 weight).
MCIT_EXPORT at::TensorOptions adapter_options(const Site& site);
/// A of a fresh adapter, [rank, in], drawn on the CPU from `generator`; requires a gradient.
MCIT_EXPORT Tensor initial_down(const Site& site, const LoraOptions& options, const at::Generator& generator);

class MCIT_EXPORT Lora final : public Adapter {
 public:
  Lora(const Site& site, const LoraOptions& options, const at::Generator& generator);
  ~Lora() override;

  Tensor down() const override { return a_; }
  Tensor up() const override { return b_; }
  double dropout() const override { return options_.dropout; }
  Tensor mix(const Tensor& z, const Tensor& logits, RouteContext& route,
             const std::string& site) const override;
  Parameters parameters() const override { return {{"lora_A.weight", a_}, {"lora_B.weight", b_}}; }

  Tensor delta() const;  ///< s·B·A, [out, in], without gradient
  const LoraOptions& options() const { return options_; }

  /// Numbers of a LoRA at an [out, in] site.
  static std::int64_t count(std::int64_t in, std::int64_t out, const LoraOptions& options) {
    return options.rank * (in + out);
  }

 private:
  LoraOptions options_;
  double scale_;
  Tensor a_, b_;
};

/// Folds a site's LoRA into the base weight while it lives: no adapter runs then. The end of its life
/// restores the weight's bytes and the adapter exactly.
class MCIT_EXPORT MergedLora {
 public:
  /// @throws Error when the site has no LoRA of that name
  MergedLora(Site& site, const std::string& adapter_name);
  MergedLora(const MergedLora&) = delete;
  MergedLora& operator=(const MergedLora&) = delete;
  ~MergedLora();

 private:
  Site& site_;
  std::string adapter_name_;
  Tensor original_;
};

}  // namespace mcit::parts
