#pragma once
/// What clients of a federation do, whoever decides their rounds: each has its rows and what its strategy
/// keeps, is given a model, trains, and answers with an update. They take turns on one model.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/progress.hpp"
#include "fed/partition.hpp"
#include "fed/round_request.hpp"
#include "fed/streams.hpp"
#include "federate/client_host.hpp"
#include "federate/client_state.hpp"
#include "federate/stacked_factors.hpp"
#include "train/task_loop.hpp"

namespace mcit {

struct ClientOptions {
  TrainOptions train;  ///< `steps` are those of a client in a round
  std::uint64_t seed = 1;
  fed::PartitionOptions partition;
  fed::StreamOptions stream;
  fed::EncodeOptions wire;
  bool error_feedback = true;  ///< a lossy update's rest goes into the client's next one
  double proximal = 0.0;       ///< FedProx's μ
  double privacy_clip = 0.0;   ///< ‖Δ‖₂ that a client allows itself; 0 = no privacy
  double privacy_noise = 0.0;  ///< noise multiplier
  double privacy_delta = 1e-5;
  bool secure_noise = false;  ///< from the system instead of the seed, which protects nobody
};

/// Seconds of this process in clients' steps and in what strategies do between tasks.
struct Spent {
  double wall = 0.0, cpu = 0.0;
};

/// References outlive the clients.
struct FederatedParts {
  Model& model;
  std::vector<StreamTask>& tasks;
  const std::vector<ExamplePtr>& probe;
  FeatureStore* features = nullptr;
  /// Processes that train every client together. Each makes the same rounds, in a folder of its own.
  const Group& group = no_group();
};

/// Owns the strategy's host, which is one client at a time. One strategy object serves all clients: what it
/// keeps of a client is loaded before that client trains. What travels is what its Federated facet uploads;
/// without one, its parameters that require a gradient after attach().
class FederatedClients {
 public:
  /// Deals the rows out. @param options without how many tasks the stream has @throws ConfigError when
  /// partition and stream do not fit the data
  FederatedClients(FederatedParts parts, ClientOptions options);

  const FederatedParts& parts() const { return parts_; }
  const ClientOptions& options() const { return options_; }
  Host& host() { return host_; }
  const fed::ClientStreams& streams() const { return streams_; }
  const std::vector<std::string>& ids() const { return ids_; }  ///< client-01, client-02, ...
  std::int64_t index(const std::string& id) const;              ///< @throws ConfigError with a near name
  /// Rows of client k, by task.
  const std::vector<std::vector<ExamplePtr>>& rows(std::int64_t k) const {
    return rows_[static_cast<std::size_t>(k)];
  }
  std::string histogram() const;                              ///< rows of each client and task, as text
  bool takes_part(std::int64_t k, std::int64_t round) const;  ///< whether its task of the round has rows

  /// Puts the strategy on the model and finds what travels; once, before all below. @throws ConfigError,
  /// StrategyError
  void attach(Strategy& strategy, const std::string& name);
  /// @return what updates hold @throws ConfigError for a rule that wants what the strategy does not have, or
  /// sends what it does not take
  fed::Layout check(const fed::Aggregator& rule);
  /// Takes up what clients kept of rounds up to `committed`, and keeps it there from now on.
  void open(const std::filesystem::path& folder, std::int64_t committed);

  /// A round of client k. @return an update @throws DataError for a model of another federation, Interrupted
  std::string train(std::int64_t k, const fed::RoundRequest& request, Progress& progress);

  fed::Arrays shared() const;  ///< what would leave the client that is loaded
  /// Puts a model in place, with what client k keeps to itself; k = -1: nobody's.
  void load(const fed::Arrays& model, std::int64_t k = -1);
  bool keeps_tensors(std::int64_t k) const;  ///< whether client k's model is more than what travels
  HookRunner& hooks() { return *hooks_; }
  std::int64_t stored_parameters();  ///< the strategy's, and what a rule has put beside it
  const Spent& training() const { return training_; }

 private:
  StateDict shared_tensors() const;
  void load_shared(const fed::Arrays& arrays);
  void load_strategy(const ClientState& client, const fed::Arrays& model);
  void check(const fed::RoundRequest& request) const;
  bool starts_elsewhere(const fed::RoundRequest& request) const;
  Task task_of(std::int64_t t, std::int64_t index) const;
  bool enter_task(std::int64_t k, std::int64_t round, ClientState& client);
  BatchSource batches_of(std::int64_t k, std::int64_t task) const;
  void local_steps(std::int64_t k, std::int64_t round, std::int64_t index, Progress& progress);
  void set_terms(const ClientState& client, const fed::Arrays& start);
  fed::Arrays update_control(ClientState& client, const fed::Arrays& start,
                             const fed::ArrayViews& sent) const;
  fed::Arrays privatized(std::int64_t k, std::int64_t round, const fed::Arrays& start,
                         const fed::ArrayViews& sent) const;
  std::string encode(std::int64_t k, const fed::RoundRequest& request, const fed::Arrays& start,
                     ClientState& client) const;
  void keep(std::int64_t k, const fed::RoundRequest& request, ClientState& client);

  FederatedParts parts_;
  ClientOptions options_;
  fed::ClientStreams streams_;
  std::vector<std::vector<std::vector<ExamplePtr>>> rows_;  ///< of each client and task
  ClientHost host_;
  std::vector<std::string> ids_;
  std::unique_ptr<FederatedTerms> terms_;
  std::unique_ptr<HookRunner> hooks_;
  StateDict blank_;                           ///< the strategy's state after attach()
  std::vector<std::string> blank_trainable_;  ///< parameters that require a gradient after attach()
  std::set<std::string> travels_;             ///< names
  std::set<std::string> statistics_;          ///< those that the rule does not average
  std::unique_ptr<StackedFactors> stack_;     ///< where the rule sends such
  std::map<std::string, ClientState> states_;
  bool plain_ = true;  ///< no client has kept a tensor yet: what is given is all that there is
  std::filesystem::path folder_;
  Spent training_;
};

/// What the clients' noise is worth, as text; empty without noise. @param sample clients of a round
std::string privacy_text(const ClientOptions& options, std::int64_t rounds, std::int64_t sample);

}  // namespace mcit
