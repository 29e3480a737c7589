#pragma once
/// Teaching a connector between a tower and a decoder that were pre-trained apart: everything else stays
/// frozen.

#include <filesystem>

#include "train/pretrain.hpp"

namespace mcit {

struct AlignOptions {
  std::int64_t steps = 400;
  std::int64_t batch = 8;
  std::int64_t warmup = 20;
  double lr = 1e-3;
  double clip = 1.0;             ///< gradient norm
  std::uint64_t seed = 1;        ///< of the connector's first weights
  std::int64_t save_every = 50;  ///< steps between resumable snapshots
};

/// Adds random connector weights where `tensors` has none, as LLaVA's are: N(0, 1/in), zero biases.
/// @param config of a LLaVA-shaped model
void add_initial_connector(StateDict& tensors, const MllmConfig& config, std::uint64_t seed);

/// Language modelling on answers with AdamW over the connector. Goes on from `snapshot` when the file exists.
/// @throws Error when the loss is no longer finite
/// @return false when interrupted, with the snapshot written
bool align_connector(Mllm& model, const PretrainSource& source, const AlignOptions& options,
                     const std::filesystem::path& snapshot, PretrainReport& report);

}  // namespace mcit
