#pragma once
/// Federated continual training in one process: a round engine asks clients that take turns on one model, and
/// makes the next state of what they would send.

#include <cstdint>
#include <memory>
#include <string>

#include "federate/clients.hpp"

namespace mcit {

struct FederatedOptions {
  ClientOptions client;
  std::int64_t eval_batch = 64;
  bool evaluate_base = true;
  bool evaluate_clients = true;  ///< clients' own models after every stage; false = after the last
  std::int64_t eval_every = 0;   ///< rounds between points of the curve; 0 = at the end of stages
  std::int64_t stop_after = 0;   ///< rounds to commit in this call; 0 = all
};

/// The server's side in the process of the clients: who trains, what comes of it, what the model scores.
class FederatedLoop {
 public:
  /// References outlive the loop.
  FederatedLoop(FederatedClients& clients, FederatedOptions options);
  ~FederatedLoop();

  /// Runs or goes on with the rounds; the engine's ledger says where it is. `head` has suite, strategy, tasks
  /// and provenance. @throws Interrupted (the round at hand is done again), StrategyError, Error
  RunResult run(Strategy& strategy, const std::string& name, const RunResult& head, fed::RoundEngine& engine,
                RunDir& dir);

  /// Trains nothing: scores what a federation elsewhere has committed, the base and the state after every
  /// stage. Clients' own models are scored where all of them is in the state. @throws DataError without a
  /// stage to score
  RunResult score(Strategy& strategy, const std::string& name, const RunResult& head,
                  fed::RoundEngine& engine, RunDir& dir);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mcit
