#pragma once
/// What pre-training from nothing and the alignment of a connector have in common.

#include <string>
#include <vector>

#include "train/pretrain.hpp"

namespace mcit {

/// Draws normal tensors from our own generator: the same weights on every platform.
class Initialiser {
 public:
  explicit Initialiser(std::uint64_t seed) : seed_(seed) {}
  Tensor normal(const std::string& name, const std::vector<std::int64_t>& shape, double deviation) const;
  /// N(0, gain² / columns), zero bias.
  void linear(StateDict& out, const std::string& name, std::int64_t rows, std::int64_t columns, double gain,
              bool bias) const;
  static void norm(StateDict& out, const std::string& name, std::int64_t width, bool bias);
  /// LLaVA's two linears.
  void connector(StateDict& out, const MllmConfig& config) const;

 private:
  std::uint64_t seed_;
};

StateDict prefixed(const std::string& prefix, const StateDict& state);
/// The entries that begin so, without that beginning.
StateDict stripped(const std::string& prefix, const StateDict& state);

/// Like schedule_factor(), but the first step already moves.
double factor_at(const std::string& decay, std::int64_t step, std::int64_t warmup, std::int64_t total);

struct LanguageBatch {
  Batch batch;
  Tensor pixels;         ///< [pictures, 3, S, S]; undefined without
  Tensor patch_targets;  ///< [pictures * patches]; undefined without labels
};
/// The samples of one step.
LanguageBatch draw_batch(const PretrainSource& source, std::int64_t step, std::int64_t size);

}  // namespace mcit
