#pragma once
/// A run of split learning, as its server sees it: tasks one after the other, each a number of steps over
/// whoever is online, all tasks evaluated after each. Where clients are, Peers knows.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/run_dir.hpp"
#include "metrics/result.hpp"
#include "split/client.hpp"
#include "split/peers.hpp"
#include "split/record.hpp"

namespace mcit::split {

enum class Method {
  mpsl,   ///< tokens up, predictions down, gradients up, one backward on the server
  fedavg  ///< what trains down, local steps on the whole model, the mean of what comes up
};

struct LoopOptions {
  Method method = Method::mpsl;
  std::int64_t local_steps = 10;  ///< of a fedavg round
  std::int64_t eval_batch = 64;   ///< test rows of a client in a request
  bool evaluate_base = true;
  std::int64_t snapshot_every = 50;  ///< steps
  std::int64_t stop_after = 0;       ///< steps of this call; 0 = all
  double deadline = 60.0;            ///< seconds that clients have for an answer
  std::int64_t quorum = 1;           ///< clients that a step needs
  std::int64_t attempts = 3;         ///< deadlines to wait for them
  std::int64_t expected = 0;         ///< clients that the run waits for before it begins, as long
  std::size_t most_bytes = std::size_t{64} << 20;  ///< of a client's message
};

class Loop {
 public:
  /// @param peers outlives the loop
  Loop(const Base& base, Training training, LoopOptions options, Peers& peers);
  ~Loop();

  /// Runs, or goes on from the newest snapshot. result.json, split.json, metrics.jsonl and snapshots/ are
  /// its files. @param head has suite, strategy, tasks and provenance
  /// @throws Interrupted (saved), Error when too few clients answer, ConfigError
  RunResult run(const RunResult& head, RunDir& dir);
  const Record& record() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mcit::split
