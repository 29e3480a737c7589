#pragma once
/// A federated run as it is kept under "federated" in result.json, and the numbers computed from it
/// (docs/reference/federated.md).

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "metrics/matrix.hpp"

namespace mcit {

/// One client's part in a committed round.
struct RoundClient {
  std::string client;
  std::string task;
  std::int64_t examples = 0;
  double norm = 0.0;     ///< of its update, before clipping
  double clipped = 1.0;  ///< the factor that clipping gave it
  std::string digest;    ///< XXH3-128 of what it sent: header, then tensors in the order of the layout
  std::map<std::string, double> statistics;
};

struct RoundReason {
  std::string client;
  std::string reason;
};

/// What happened in one round. A committed round has `after`.
struct RoundRecord {
  std::int64_t round = 0;  ///< 1-based; 0 is the state that the run began with
  std::int64_t attempts = 1;
  std::vector<std::string> sampled;  ///< in alphabetical order, as all lists here
  std::vector<RoundClient> used;
  std::vector<RoundReason> rejected;
  std::vector<std::string> missing;    ///< sampled, and nothing usable came
  std::vector<RoundReason> late;       ///< came after the deadline, or for an earlier round
  std::vector<std::string> duplicate;  ///< sent more than once
  std::string before, after;           ///< SHA-256 of the state
  std::uint64_t bytes_up = 0, bytes_down = 0;
  double seconds = 0.0;
  std::optional<bool> redone;  ///< after a damaged ledger: whether the state is the one that was lost
  std::string notes;           ///< what the aggregation says about it, JSON
};
Json round_to_json(const RoundRecord& record);
/// @throws DataError naming `where` and the key
RoundRecord round_from_json(const Json& json, const std::string& where);

/// Scores of one client: its model on its own test data, after each of the stages it went through.
struct ClientScores {
  std::string client;
  std::int64_t train_examples = 0;
  AccuracyMatrix matrix;
  std::vector<std::int64_t> test_examples;  ///< for each task; may be empty
};

/// The global model's mean score over the tasks met so far, measured after a round.
struct RoundScore {
  std::int64_t round = 0;
  double percent = 0.0;
};

struct FederatedResult {
  std::string rule;       ///< the aggregation, e.g. "lora/product_svd"
  std::string weighting;  ///< "examples" or "uniform"
  std::string partition;  ///< how the data was dealt out, as text
  std::vector<std::string> labels;
  std::map<std::string, std::vector<std::int64_t>> histogram;  ///< client -> examples of each label
  AccuracyMatrix global;
  std::vector<ClientScores> clients;
  std::vector<RoundRecord> rounds;
  std::vector<RoundScore> curve;  ///< in the order of rounds
  std::string privacy;            ///< what the accountant says; empty without noise
};

/// Over clients. Nothing of it where no client has a number.
struct Spread {
  double mean = 0.0;
  double worst = 0.0;      ///< the least favourable client
  double deviation = 0.0;  ///< √(1/K Σ (x_k - mean)²)
  std::string worst_client;
  std::int64_t clients = 0;
};

struct FederatedMetrics {
  std::optional<double> global_accuracy;   ///< acc of the global matrix, percent
  std::optional<Spread> local_accuracy;    ///< acc of each client's matrix: mean, worst, std are the fairness
  std::optional<double> personalisation;   ///< mean local accuracy - global accuracy
  std::optional<Spread> forgetting;        ///< forgetting_chaudhry of each client's matrix
  std::optional<Spread> forward_transfer;  ///< fwt_zero of each client's matrix
  std::int64_t rounds = 0;                 ///< committed
  std::int64_t retried = 0;                ///< attempts beyond the first
  std::int64_t survived = 0;               ///< committed although a sampled client was missing
  std::int64_t dropouts = 0;               ///< missing clients over all rounds
  std::int64_t rejected = 0, late = 0;
  double bytes_up = 0.0, bytes_down = 0.0;  ///< a round, mean over committed rounds
};
FederatedMetrics federated_metrics(const FederatedResult& result);

/// First round of the curve whose score is at least `percent`; empty when none is.
std::optional<std::int64_t> rounds_to_reach(const std::vector<RoundScore>& curve, double percent);

Json federated_to_json(const FederatedResult& result);
/// @throws DataError naming `where` and the key
FederatedResult federated_from_json(const Json& json, const std::string& where);

}  // namespace mcit
