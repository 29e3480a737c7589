#pragma once
/// Which task each client trains on in each stage of a federated continual stream.

#include <cstdint>
#include <string>
#include <vector>

#include "core/config.hpp"

namespace mcit::fed {

struct StreamOptions {
  /// same           all clients meet the tasks in stream order, together (FCIT: homogeneous)
  /// permuted       each client in an order of its own
  /// heterogeneous  in each stage every task is trained by some clients; each client meets each task once
  ///                (FCIT: heterogeneous)
  /// fixed          one stage; each client has one task for good, each task as many clients as any other or
  /// one
  ///                more (Pilot: cross-task)
  /// disjoint       the tasks are dealt out: no task is met by two clients
  /// arrival        as `same`, but clients join one after the other, `arrival_every` rounds apart
  std::string kind = "same";
  std::int64_t clients = 8;
  std::int64_t tasks = 4;
  std::int64_t rounds_per_stage = 5;
  std::int64_t arrival_every = 1;
  std::uint64_t seed = 1;

  static StreamOptions read(const Config& table);  ///< [stream]; the counts and the seed are the run's
};

class ClientStreams {
 public:
  /// @throws ConfigError
  explicit ClientStreams(const StreamOptions& options);

  std::int64_t stages() const { return static_cast<std::int64_t>(tasks_.empty() ? 0 : tasks_[0].size()); }
  std::int64_t rounds() const { return stages() * options_.rounds_per_stage; }
  /// Task of this client in a stage (0-based); -1 when it has none.
  std::int64_t task(std::int64_t client, std::int64_t stage) const;
  /// Task in a round (1-based); -1 when it has none, has not arrived, or the stream is over.
  std::int64_t task_in_round(std::int64_t client, std::int64_t round) const;
  std::int64_t stage_of(std::int64_t round) const { return (round - 1) / options_.rounds_per_stage; }
  /// First round that this client takes part in.
  std::int64_t arrival(std::int64_t client) const { return arrivals_.at(static_cast<std::size_t>(client)); }

 private:
  StreamOptions options_;
  std::vector<std::vector<std::int64_t>> tasks_;  ///< [clients][stages]
  std::vector<std::int64_t> arrivals_;
};

}  // namespace mcit::fed
