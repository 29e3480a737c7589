#pragma once
/// Federated continual training in one process: clients take turns on one model, each with its own rows and
/// what its strategy keeps; a round engine makes the next state of what they would send.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "fed/partition.hpp"
#include "fed/round_engine.hpp"
#include "fed/streams.hpp"
#include "train/task_loop.hpp"

namespace mcit {

struct FederatedOptions {
  TrainOptions train;  ///< `steps` are those of a client in a round
  std::uint64_t seed = 1;
  std::int64_t eval_batch = 64;
  bool evaluate_base = true;
  std::int64_t eval_every = 0;  ///< rounds between points of the curve; 0 = at the end of stages
  std::int64_t stop_after = 0;  ///< rounds to commit in this call; 0 = all
  fed::PartitionOptions partition;
  fed::StreamOptions stream;
  fed::EncodeOptions wire;
  bool error_feedback = true;  ///< a lossy update's rest goes into the client's next one
  double proximal = 0.0;       ///< FedProx's μ
  double privacy_clip = 0.0;   ///< ‖Δ‖₂ that a client allows itself; 0 = no privacy
  double privacy_noise = 0.0;  ///< noise multiplier
  double privacy_delta = 1e-5;
};

/// References outlive the loop.
struct FederatedParts {
  Model& model;
  std::vector<StreamTask>& tasks;
  const std::vector<ExamplePtr>& probe;
  FeatureStore* features = nullptr;
};

/// Owns the strategy's host, which is one client at a time. One strategy object serves all clients: what it
/// keeps of a client is loaded before that client trains. What travels is what its Federated facet uploads;
/// without one, its parameters that require a gradient after attach().
class FederatedLoop {
 public:
  /// Deals the rows out. @throws ConfigError when partition and stream do not fit the data
  FederatedLoop(FederatedParts parts, FederatedOptions options);
  ~FederatedLoop();

  Host& host();
  const fed::ClientStreams& streams() const;
  std::vector<std::string> clients() const;  ///< ids
  std::string histogram() const;             ///< rows of each client and task, as text

  /// Runs or goes on with the rounds; the engine's ledger says where it is. `head` has suite, strategy, tasks
  /// and provenance. @throws Interrupted (the round at hand is done again), StrategyError, Error
  RunResult run(Strategy& strategy, const std::string& name, const RunResult& head, fed::RoundEngine& engine,
                RunDir& dir);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mcit
