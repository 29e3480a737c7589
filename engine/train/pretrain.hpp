#pragma once
/// Training a LLaVA-shaped base from nothing: language modelling on answers, patch labels as a throw-away
/// auxiliary task, then a contrastive stage that gives the same tower a CLIP text tower.

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "model/mllm.hpp"

namespace mcit {

/// One training view: the sequence, the picture (undefined for text only), what each patch shows, a caption.
struct PretrainSample {
  Example example;
  Tensor pixels;                      ///< [3, S, S] float32, normalised; undefined without a picture
  std::vector<std::int64_t> patches;  ///< label of each patch, or empty
  std::vector<std::int64_t> caption;  ///< token ids for the text tower, with begin and end tokens
};

struct PretrainOptions {
  std::int64_t steps = 8000;
  std::int64_t batch = 32;
  std::int64_t warmup = 20;
  double muon_lr = 0.02;
  /// Decoupled decay of the matrices. Without it queries and keys grow until every softmax is one-hot and
  /// learns no more: Muon's steps have the same size whatever the gradient's.
  double muon_decay = 0.0;
  double adam_lr = 3e-3;
  double clip = 1.0;              ///< gradient norm
  double patch_weight = 1.0;      ///< weight of the patch-label cross-entropy
  std::int64_t patch_labels = 0;  ///< classes; 0 switches the auxiliary tasks off
  /// Weight of two losses on what the decoder reads of each patch: its word in the decoder's own embedding,
  /// and its row and column by a throw-away head. They make seeing and reading one space, in which places
  /// remain.
  double token_weight = 0.0;
  /// First and last word (token ids) of each label; of label 0, the background: a token that no text has.
  std::vector<std::array<std::int64_t, 2>> patch_words;
  std::int64_t clip_steps = 600;  ///< contrastive steps after the language stage
  std::int64_t clip_batch = 128;
  double clip_lr = 2e-3;
  std::uint64_t seed = 1;
  std::int64_t save_every = 500;  ///< steps between resumable snapshots
};

struct PretrainReport {
  std::vector<double> loss_curve;  ///< language loss, mean of every 100 steps
  std::vector<double> patch_curve;
  std::vector<double> clip_curve;  ///< contrastive loss, mean of every 50 steps
  double cpu_seconds = 0.0;
};

/// Draws sample number `index` (the same for the same index).
using PretrainSource = std::function<PretrainSample(std::uint64_t index)>;

/// Random weights of the given shape; 2-D sine-cosine positions in the tower.
StateDict initial_llava(const MllmConfig& config, std::uint64_t seed);
StateDict initial_clip(const ClipConfig& config, std::uint64_t seed);

/// Language stage. Goes on from `snapshot` when the file exists; writes it every save_every steps.
/// @throws Error when the loss is no longer finite; stops early, with the snapshot written, when interrupted.
/// @return false when interrupted
bool pretrain_language(Mllm& model, const PretrainSource& source, const PretrainOptions& options,
                       const std::filesystem::path& snapshot, PretrainReport& report);

/// Contrastive stage: the CLIP folder's last vision layer, projections and text tower; what LLaVA reads stays
/// frozen.
void pretrain_clip(Clip& clip, const PretrainSource& source, const PretrainOptions& options,
                   PretrainReport& report);

}  // namespace mcit
