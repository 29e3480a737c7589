#pragma once
/// Stages that two runs have in common are trained once: a new run is given the snapshot of another one.

#include <filesystem>
#include <vector>

#include "core/run_dir.hpp"
#include "mcit/types.hpp"
#include "metrics/result.hpp"

namespace mcit {

/// A run that has a folder and has not begun.
struct NewRun {
  const RunDir& dir;
  const RunResult& head;             ///< suite, strategy, seed, tasks and provenance
  const std::vector<Stage>& stages;  ///< planned
  bool causal = false;               ///< the strategy's stages do not depend on later tasks (mcit/causal.hpp)
};

/// Copies predictions, metrics.jsonl and the newest snapshot of `other` into the new run's folder, with the
/// columns of the matrices in the new run's order: it then goes on by an ordinary resume. Only where that
/// gives the bytes of a run of its own: the same tasks, settings, seed, model, data, plugin and device, and
/// the same tasks in the stages so far. Where it would not, a warning says why, and the run begins at its
/// first stage.
/// @return whether it was done @throws DataError when a file cannot be read or written
bool begin_with(const std::filesystem::path& other, const NewRun& run);

}  // namespace mcit
