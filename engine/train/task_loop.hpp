#pragma once
/// The continual loop: stages one after the other, every task evaluated after each, everything resumable.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/run_dir.hpp"
#include "data/features.hpp"
#include "eval/evaluate.hpp"
#include "metrics/result.hpp"
#include "model/model.hpp"
#include "train/group.hpp"
#include "train/hooks.hpp"
#include "train/step.hpp"

namespace mcit {

/// A task of the stream, tokenized.
struct StreamTask {
  TaskInfo info;
  std::vector<ExamplePtr> train;
  EvalTask eval;
  std::int64_t steps = 0;  ///< optimizer steps when it is trained alone
};

struct LoopOptions {
  TrainOptions train;
  std::uint64_t seed = 1;
  std::int64_t eval_batch = 64;
  std::int64_t snapshot_every =
      100;  ///< optimizer steps between snapshots inside a stage; 0 = boundaries only
  /// Training stages of a strategy that plans none of its own; empty = one for each task.
  std::vector<Stage> stages;
  std::int64_t stop_after = 0;       ///< stages to run in this call; 0 = all
  std::int64_t last_stage = 0;       ///< stage of the stream, from 1, behind which to stop; 0 = its last
  bool evaluate_base = true;         ///< row 0
  bool tensorboard = true;           ///< an event file beside metrics.jsonl
  std::filesystem::path cell_cache;  ///< folder of cells shared between runs; empty = none
  std::string engine_hash;           ///< of the code that computes a cell: part of its key
  std::string
      strategy_hash;  ///< of the strategy's name, settings and plugin, which its predictions may depend on
};

/// What the loop works on. All references outlive it.
struct LoopParts {
  Model& model;
  std::string model_hash;
  std::vector<StreamTask>& tasks;
  const std::vector<ExamplePtr>& probe;  ///< data like that of the model's pre-training; may be empty
  FeatureStore* features = nullptr;      ///< what the frozen tower says about each picture
  RunDir& run;
  const Group& group = no_group();  ///< processes that train together; the first one writes the run's folder
};

class EngineHost;

/// Features of the rows' pictures, made before they are needed; of several processes, each makes its share.
/// @throws Interrupted
void prefetch_pictures(FeatureStore& store, const std::vector<const std::vector<ExamplePtr>*>& rows,
                       const std::string& title, const Group& group = no_group());

/// Owns the strategy's host. The strategy is created with host() first, then run() drives it.
class TaskLoop {
 public:
  TaskLoop(LoopParts parts, LoopOptions options);
  ~TaskLoop();

  Host& host();
  /// Runs or goes on with the stream. `result` arrives with suite, strategy, tasks and provenance filled in.
  /// @param resume take up the newest good snapshot of the run folder
  /// @throws Interrupted, StrategyError, Error
  RunResult run(Strategy& strategy, const std::string& name, const RunResult& result, bool resume);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mcit
