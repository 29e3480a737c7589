#pragma once
/// A pool of prompts, each behind an image key and a text key, from which every example draws its own.

#include "mcit/params.hpp"
#include "mcit/parts/state_reader.hpp"
#include "mcit/parts/task_keys.hpp"

namespace mcit::parts {

struct PoolOptions {
  std::int64_t size = 10;          ///< M entries
  std::int64_t length = 5;         ///< L_p vectors of each prompt
  std::int64_t top_k = 5;          ///< K prompts an example draws
  double init_std = 0.02;          ///< values start as N(0, init_std²)
  bool image = true, text = true;  ///< which keys there are

  /// Settings pool, prompt_length, top_k, init_std, key_features. @throws ConfigError for a value out of
  /// range
  static MCIT_EXPORT PoolOptions read(const Params& params);
};

/// L2P's pool (Wang et al. 2022) with keys of two modalities:
///
///     s_j = cos(e_img, k_j^img) + cos(e_txt, k_j^txt)      J = the K largest
///
/// An example without a picture is judged by its text.
class MCIT_EXPORT PromptPool {
 public:
  explicit PromptPool(const PoolOptions& options) : options_(options) {}
  void attach(std::int64_t width, std::int64_t feature_dim, const at::TensorOptions& options,
              const at::Generator& generator);

  /// @return J, [B, K] int64, the best last, so that it stands nearest to what follows
  Tensor choose(const TaskFeatures& features) const;
  /// The chosen prompts one behind the other, on the graph. [B, K] -> [B, K·L_p, width]
  Tensor gather(const Tensor& chosen) const;
  /// mean_b Σ_{j∈J} Σ over modalities of (1 − cos): what teaches the keys.
  Tensor key_loss(const TaskFeatures& features, const Tensor& chosen) const;

  const Tensor& values() const { return values_; }  ///< [M, L_p, width]
  const PoolOptions& options() const { return options_; }
  /// "pool.prompts", "pool.image_keys", "pool.text_keys", group "prompt"
  Parameters parameters() const;

 private:
  PoolOptions options_;
  Tensor values_, image_keys_, text_keys_;  ///< [M, L_p, width], [M, F], [M, F]
};

}  // namespace mcit::parts
