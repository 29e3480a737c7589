#pragma once
/// A run's state between two steps, in one safetensors file: written atomically, checked when it is read.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mcit/types.hpp"

namespace mcit {

struct Snapshot {
  std::int64_t stage = 0;  ///< 0-based
  std::int64_t step = 0;   ///< next step of the stage
  bool trained = false;    ///< the stage's after_task ran; its evaluation is due
  StateDict strategy, optimizer;
  std::vector<std::string> trainable;   ///< names of parameters that require a gradient
  std::string result;                   ///< result.json so far
  std::uint64_t metrics_bytes = 0;      ///< length of metrics.jsonl
  std::map<std::string, double> costs;  ///< running sums of the stage
};

/// Hash of a note and of each tensor's name, type, shape and bytes.
std::string digest_of(const StateDict& tensors, const std::string& note = {});

/// Writes `folder`/<stage>-<step>.safetensors and then deletes all but the two newest.
void write_snapshot(const std::filesystem::path& folder, const Snapshot& snapshot);

/// The newest snapshot that reads back whole; a damaged one is reported and the one before it taken.
/// @return nothing when there is none @throws CheckpointError when there are some and all are damaged
std::optional<Snapshot> read_newest_snapshot(const std::filesystem::path& folder);

}  // namespace mcit
