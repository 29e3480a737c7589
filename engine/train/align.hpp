#pragma once
/// Teaching a connector between a tower and a decoder that were pre-trained apart: everything else stays
/// frozen. First words, which needs no pass through the decoder: each patch's row turns into the embedding of
/// the word for what it shows. Then language modelling on answers.

#include <filesystem>

#include "train/pretrain.hpp"

namespace mcit {

struct AlignOptions {
  std::int64_t word_steps = 0;  ///< of the first stage
  std::int64_t word_batch = 32;
  std::int64_t steps = 400;  ///< of the second
  std::int64_t batch = 8;
  std::int64_t warmup = 20;  ///< of either
  double lr = 1e-3;
  /// Token of the word for each patch label; label 0 is the background. Needed by the first stage.
  std::vector<std::int64_t> patch_words;
  double clip = 1.0;             ///< gradient norm
  std::uint64_t seed = 1;        ///< of the connector's first weights
  std::int64_t save_every = 50;  ///< steps between resumable snapshots
};

/// Adds random connector weights where `tensors` has none, as LLaVA's are: N(0, 1/in), zero biases.
/// @param config of a LLaVA-shaped model
void add_initial_connector(StateDict& tensors, const MllmConfig& config, std::uint64_t seed);

/// Both stages, with AdamW over the connector. Goes on from `snapshot` when the file exists.
/// @throws Error when the loss is no longer finite
/// @return false when interrupted, with the snapshot written
bool align_connector(Mllm& model, const PretrainSource& source, const AlignOptions& options,
                     const std::filesystem::path& snapshot, PretrainReport& report);

}  // namespace mcit
