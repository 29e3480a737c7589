#pragma once
/// Text and image prompts that share one source (MmAP, Xin et al. 2024).

#include <string>
#include <vector>

#include "mcit/params.hpp"
#include "mcit/parts/state_reader.hpp"
#include "mcit/types.hpp"

namespace mcit::mmap {

/// Sizes of the prompts of each block: b rows, made of a source of b_s rows and d_s columns.
struct PromptShape {
  std::int64_t length = 8;        ///< b
  std::int64_t source_rows = 0;   ///< b_s; 0: b
  std::int64_t source_width = 0;  ///< d_s; 0: the greatest that divides both widths
  std::int64_t depth = 0;         ///< blocks with prompts of their own; 0: all of the shallower stack

  /// Settings keys length, source_rows, source_width, depth. @throws ConfigError for a value out of range
  static PromptShape read(const Params& params);
  /// What stands for 0 filled in. @throws ConfigError where the sizes do not fit the backbone
  PromptShape fitted(const BackboneInfo& backbone) const;
};

/// For each of `depth` blocks a source P_s [b_s, d_s] and two matrices K_l [b/b_s, d_l/d_s], K_v [b/b_s,
/// d_v/d_s]:
///
///     P_l = K_l ⊗ P_s  [b, d_l]      P_v = K_v ⊗ P_s  [b, d_v]
///
/// Block (i, j) of either is K[i, j] · P_s. P_s starts as N(0, 0.02²), the matrices as 1 + N(0, 0.02²): both
/// modalities start as tilings of the same source.
class AlignedPrompt {
 public:
  /// @param shape fitted to the backbone
  AlignedPrompt(std::string name, const PromptShape& shape, const BackboneInfo& backbone,
                const at::TensorOptions& options, const at::Generator& generator);

  std::vector<Tensor> text() const;   ///< [b, d_l] a block, on the graph
  std::vector<Tensor> image() const;  ///< [b, d_v] a block
  Parameters parameters() const;      ///< group "prompt": <name>.source.<block>, ...
  const Tensor& source(std::size_t block) const { return layers_[block].source; }
  void set_trainable(bool trainable) const;
  void copy_from(const AlignedPrompt& other) const;

 private:
  struct Layer {
    Tensor source, text_scale, image_scale;
  };
  std::string name_;
  std::vector<Layer> layers_;
};

}  // namespace mcit::mmap
