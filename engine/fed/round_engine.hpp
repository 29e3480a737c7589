#pragma once
/// The server's side of federated rounds, without a network: who takes part, until when, what counts, and
/// what becomes of it. Deterministic: the same updates give the same bits, in whatever order they come.
///
///   plan ─▶ collect until all answered, or the deadline ─▶ quorum? ─▶ aggregate ─▶ commit ─▶ next round
///                                                          └ no ─▶ plan again, `retries` times, then fail

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "fed/aggregator.hpp"
#include "fed/ledger.hpp"

namespace mcit::fed {

/// The table [federation]. What decides the bits of a round is part of the ledger's identity.
struct FederationSettings {
  std::string run;                         ///< name; updates of another run are refused
  std::string strategy, strategy_version;  ///< updates of another one are refused
  std::uint64_t seed = 1;
  std::int64_t rounds = 10;
  std::int64_t sample = 0;                                ///< clients a round; 0 = all that are online
  std::int64_t quorum = 1;                                ///< usable updates that a round needs
  double deadline = 600.0;                                ///< seconds from the plan on
  std::int64_t retries = 3;                               ///< further attempts at a round that has no quorum
  std::vector<std::string> clients;                       ///< who may take part; empty: everyone
  std::vector<std::string> encodings = encoding_names();  ///< that updates may have
  Weighting weighting = Weighting::examples;
  double clip_norm = 0.0;          ///< largest norm of an update; 0 = none
  double clip_ratio = 10.0;        ///< largest norm in medians of the round's norms; 0 = none
  double control_clip_norm = 0.0;  ///< the same for control variates; 0 = none
  std::int64_t keep = 3;           ///< newest states that stay on disk; 0 = all
  std::int64_t keep_every = 0;     ///< states after every so many rounds stay as well; 0 = none

  /// @param in_process without `rounds`, `seed` and `clients`, which a run in one process has elsewhere, and
  /// without `deadline` and `retries`, which mean nothing there
  /// @throws ConfigError
  static FederationSettings read(const Config& table, bool in_process = false);
  std::string identity(const std::string& rule) const;
};

struct OnlineClient {
  std::string id;  ///< logical: the same after a restart. Letters, digits, '.', '_', '-'; at most 64
  std::int64_t examples = 0;
};

enum class Phase { needs_model, idle, collecting, finished, failed };
enum class Verdict { accepted, duplicate, rejected, stale, late, not_sampled };
enum class Outcome { open, committed, retry, failed };
const char* verdict_text(Verdict verdict);

struct RoundPlan {
  std::uint32_t round = 0;
  std::uint32_t attempt = 1;
  double seconds_left = 0.0;
  std::vector<std::string> clients;  ///< who is to train, in alphabetical order
  std::string base;                  ///< SHA-256 of the state they start from
};

struct OfferResult {
  Verdict verdict = Verdict::rejected;
  std::string reason;
};

struct CloseResult {
  Outcome outcome = Outcome::open;
  RoundRecord record;  ///< of this attempt; committed when `outcome` says so
  std::string reason;  ///< why it is open, tried again or failed
};

using Clock = std::function<double()>;  ///< seconds that never go back
Clock steady_clock();

/// A round at hand, over all its attempts.
struct OpenRound {
  std::uint32_t attempt = 0;
  double began = 0.0, deadline = 0.0;
  std::set<std::string> sampled, failed_before;
  std::set<std::string> refused;  ///< in this attempt
  std::map<std::string, Contribution> accepted;
  std::map<std::string, std::string> rejected;
  std::set<std::string> duplicate;
  std::uint64_t bytes_up = 0, bytes_down = 0;
};

/// Not thread-safe; the C interface locks.
class RoundEngine {
 public:
  /// Opens the ledger and goes on where it ends.
  RoundEngine(FederationSettings settings, std::unique_ptr<Aggregator> rule, const std::string& rule_settings,
              const std::filesystem::path& ledger, Clock clock = steady_clock());
  /// Reads [federation] and [aggregate]; an unknown key is an error.
  static std::unique_ptr<RoundEngine> open(const Config& config, const std::filesystem::path& ledger,
                                           Clock clock = steady_clock());

  Phase phase() const { return phase_; }
  const FederationSettings& settings() const { return settings_; }
  const Aggregator& rule() const { return *rule_; }
  const Ledger& ledger() const { return ledger_; }
  const std::string& failure() const { return failure_; }
  std::uint32_t round() const { return static_cast<std::uint32_t>(ledger_.records().size()); }  ///< the next

  /// The model that round 1 starts from; once, in a new ledger. @throws Error
  void begin(const Arrays& model);

  /// Opens the round, or adds clients that came online to one that is being collected. Who is drawn depends
  /// on (seed, round, id) alone; in a further attempt those who did not answer come last.
  /// @throws Error when the federation has ended or has no model
  RoundPlan plan(const std::vector<OnlineClient>& online);

  /// What this client starts from, as a safetensors blob. Its metadata has `run`, `round` and `base`.
  /// Valid until the next call of either, or the end of the round.
  const std::string& download(const std::string& client);
  const std::string& preview(const std::string& client) const;  ///< the same, not counted as sent
  Layout layout() const { return rule_->layout(ledger_.state()); }

  /// Never throws for what a client may have sent.
  OfferResult offer(const std::string& client, std::uint32_t round, std::string blob);

  /// The client says that it cannot take part; its reason is in the record among the rejected. Nobody waits
  /// for it any more. Never throws for what a client may have said.
  OfferResult decline(const std::string& client, std::uint32_t round, const std::string& reason);

  /// Whether close() would end the attempt now.
  bool ready() const;
  CloseResult close();

 private:
  std::optional<OfferResult> out_of_turn(const std::string& client, std::uint32_t round) const;
  OfferResult consider(const std::string& client, std::uint32_t round, std::string blob);
  OfferResult noted(const std::string& client, OfferResult result);
  OfferResult examine(const std::string& client, std::string blob);
  std::string mismatch(const UpdateInfo& info, const std::string& client) const;
  RoundRecord describe() const;
  std::vector<Contribution> clipped() const;
  CloseResult aggregate(RoundRecord record);
  CloseResult fail(RoundRecord record, const std::string& reason);
  std::vector<RoundClient> used(const std::vector<Contribution>& updates) const;

  FederationSettings settings_;
  std::unique_ptr<Aggregator> rule_;
  Ledger ledger_;
  Clock clock_;
  Phase phase_ = Phase::needs_model;
  std::optional<OpenRound> open_;
  std::vector<RoundReason> late_;
  mutable std::string blob_;     ///< what the last download was
  mutable std::string blob_of_;  ///< of which round and state, and of which client where it is personal
  std::string failure_;
};

}  // namespace mcit::fed
