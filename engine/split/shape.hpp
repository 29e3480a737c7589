#pragma once
/// What a split model is made of, in numbers: tokens, widths, blocks; and what a pass through it costs.

#include <cstdint>
#include <string>
#include <vector>

namespace mcit::split {

enum class Modality { image, text, audio };
inline constexpr Modality kModalities[] = {Modality::image, Modality::text, Modality::audio};
const char* name_of(Modality modality);         ///< "image"
Modality modality_of(const std::string& name);  ///< @throws ConfigError

/// early: the tokens of all modalities are one sequence. late: each modality is a sequence of its own, and
/// their means are put side by side in front of the tail.
enum class Fusion { early, late };

struct Shape {
  std::int64_t width = 160;  ///< of a token, D
  std::int64_t inner = 640;  ///< of a block's MLP, I
  std::int64_t heads = 5, blocks = 5;
  std::int64_t patches = 64, patch_values = 192;  ///< of a picture, and numbers in a patch
  bool class_token = true;                        ///< one more token in front of the patches
  std::int64_t text_tokens = 16;                  ///< every question is cut or padded to as many
  std::int64_t text_width = 128;                  ///< of the embedding that is projected to D
  std::int64_t audio_frames = 32, audio_values = 12, frames_per_token = 4;
  std::int64_t classes = 2;
  Fusion fusion = Fusion::early;
  std::vector<Modality> modalities = {Modality::image,
                                      Modality::text};  ///< in this order; rows may lack some

  std::int64_t tokens(Modality modality) const;
  /// Lengths of the sequences that go through the blocks for one row with these modalities.
  std::vector<std::int64_t> sequences(const std::vector<Modality>& present) const;
  std::int64_t tail_width() const;  ///< what the tail reads
};

/// What is trained.
struct Trained {
  bool heads = false;
  std::int64_t blocks = 1;  ///< the last so many; the tail always
};

/// Floating-point operations of matrix products: 2mnk for [m, k] times [k, n]. Lookups, norms, activations,
/// softmax and the loss are not counted.
///
///   heads     2 · numbers in · D for each patch, word and audio token
///   a block   L(8D² + 4DI) for its linears and 4L²D for attention's two products, L tokens a sequence
///   tail      2 · read · D + 2 · D · classes
///   backward  of a linear: once its forward for the weights where they train, once for the input where
///             anything below or its own norm trains; of attention: twice its forward
struct Flops {
  double heads_forward = 0.0, heads_backward = 0.0, body_forward = 0.0, body_backward = 0.0;
  double heads() const { return heads_forward + heads_backward; }
  double body() const { return body_forward + body_backward; }
};
/// Of one row with these modalities. @param training false: no backward
Flops flops_of(const Shape& shape, const std::vector<Modality>& present, const Trained& trained,
               bool training);

}  // namespace mcit::split
