#pragma once
/// The two halves of a split model. Heads turn raw inputs into tokens and stay with a client; the body, one
/// transformer for the tokens of every modality, and the tail belong to the server.

#include <map>
#include <string>

#include "mcit/types.hpp"
#include "model/vision.hpp"
#include "split/shape.hpp"

namespace mcit::split {

/// Rows of a batch, all with the same modalities; an undefined tensor is a modality that they lack.
struct Inputs {
  Tensor pixels;  ///< [B, 3, S, S]
  Tensor text;    ///< [B, text_tokens] int64
  Tensor frames;  ///< [B, audio_frames, audio_values]

  std::vector<Modality> present() const;
};
using Tokens = std::map<Modality, Tensor>;  ///< [B, n, D] each

/// What both halves are made from: the shape, and all tensors under the names
///   image.…     a vision tower's own names (embeddings and the norm in front of its blocks)
///   text.…      embedding [V, E], projection, positions, norm
///   audio.…     projection [D, frames_per_token · values], positions, norm
///   body.…      the same tower's names (blocks and the norm behind them)
///   tail.…      fc1 [D, read], fc2 [classes, D]
struct Base {
  Shape shape;
  VisionConfig vision;
  StateDict weights;
};

/// Body and image tokenizer from a vision tower, the word embedding from a language model; what neither has
/// is drawn from `seed`, and the tail's last layer is zero.
/// @param shape its sizes are filled in from the two @param tower tensors without their prefix
/// @param embedding [V, E], in the tower's dtype
Base make_base(Shape shape, const VisionConfig& vision, const StateDict& tower, const Tensor& embedding,
               std::uint64_t seed);

/// The same without what is the server's: enough for Heads.
Base heads_of(const Base& base);

class Heads {
 public:
  explicit Heads(const Base& base);  ///< copies the tensors

  /// Each modality's tokens behind a norm of their own. @throws Error for a modality that the model lacks
  Tokens forward(const Inputs& inputs) const;
  Parameters parameters();  ///< group "heads"
  void train(bool on);

 private:
  Shape shape_;
  VisionTower image_;  ///< without blocks
  StateDict own_;      ///< text and audio
};

class Body {
 public:
  explicit Body(const Base& base);  ///< copies the tensors

  /// @return [B, classes] @throws Error for a modality that the model lacks
  Tensor forward(const Tokens& tokens) const;
  Parameters parameters();  ///< blocks, norm and tail; group "body"
  /// Which of them train: the tail, the norm, and the last so many blocks.
  void train(std::int64_t blocks);

 private:
  Tensor pooled(const Tensor& tokens) const;

  Shape shape_;
  VisionTower tower_;
  StateDict tail_;
};

std::int64_t bytes_of(const Parameters& parameters);
/// Parameters, and for those that train a gradient and AdamW's two moments besides.
std::int64_t training_bytes(const Parameters& parameters);

}  // namespace mcit::split
