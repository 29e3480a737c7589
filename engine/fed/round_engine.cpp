#include "fed/round_engine.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <new>
#include <nlohmann/json.hpp>
#include <tuple>

#include "core/log.hpp"
#include "core/random.hpp"
#include "core/system.hpp"
#include "fed/screening.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

/// A client that floods the server with late replies does not fill its memory.
constexpr std::size_t kMostLate = 1000;
constexpr std::size_t kLongestReason = 200;  ///< of what a client says

bool well_formed(const std::string& id) {
  constexpr std::size_t kLongest = 64;
  return !id.empty() && id.size() <= kLongest && id[0] != '.' &&
         std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                  c == '_' || c == '-';
         });
}

}  // namespace

const char* verdict_text(Verdict verdict) {
  constexpr const char* kTexts[] = {"accepted", "duplicate", "rejected", "stale", "late", "not sampled"};
  return kTexts[static_cast<std::size_t>(verdict)];
}

Clock steady_clock() {
  return [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  };
}

FederationSettings FederationSettings::read(const Config& table, bool in_process) {
  FederationSettings s;
  s.run = table.require_text("run");
  if (!well_formed(s.run))
    throw ConfigError(table.where("run"), "must be a name of letters, digits, '.', '_' and '-'");
  s.strategy = table.text("strategy", s.strategy);
  s.strategy_version = table.text("strategy_version", s.strategy_version);
  if (in_process) {
    s.deadline = std::numeric_limits<double>::infinity();
    s.retries = 0;  // nobody else would answer
  } else {
    s.seed = static_cast<std::uint64_t>(table.integer("seed", 1, 0));
    s.rounds = table.integer("rounds", s.rounds, 1);
    s.clients = table.texts("clients", s.clients);
    s.deadline = table.number("deadline", s.deadline, 0.0);
    s.retries = table.integer("retries", s.retries, 0);
  }
  s.sample = table.integer("sample", s.sample, 0);
  s.quorum = table.integer("quorum", s.quorum, 1);
  for (const std::string& id : s.clients)
    if (!well_formed(id)) throw ConfigError(table.where("clients"), "'" + id + "' is no client id");
  s.encodings = table.texts("encodings", s.encodings);
  for (const std::string& name : s.encodings) encoding_from(name);
  s.weighting = table.choice("weighting", "examples", {"examples", "uniform"}) == "uniform"
                    ? Weighting::uniform
                    : Weighting::examples;
  s.clip_norm = table.number("clip_norm", s.clip_norm, 0.0);
  s.clip_ratio = table.number("clip_ratio", s.clip_ratio, 0.0);
  s.control_clip_norm = table.number("control_clip_norm", s.control_clip_norm, 0.0);
  s.keep = table.integer("keep", s.keep, 0);
  s.keep_every = table.integer("keep_every", s.keep_every, 0);
  if (s.sample > 0 && s.quorum > s.sample)
    throw ConfigError(table.where("quorum"), "is more than the clients of a round");
  if (!s.clients.empty() && s.quorum > static_cast<std::int64_t>(s.clients.size()))
    throw ConfigError(table.where("quorum"), "is more than the clients there are");
  return s;
}

std::string FederationSettings::identity(const std::string& rule) const {
  Json out = {{"run", run},
              {"strategy", strategy},
              {"strategy_version", strategy_version},
              {"seed", seed},
              {"sample", sample},
              {"weighting", weighting == Weighting::uniform ? "uniform" : "examples"},
              {"clip_norm", clip_norm},
              {"clip_ratio", clip_ratio},
              {"control_clip_norm", control_clip_norm},
              {"aggregate", rule}};
  return dump_json(out);
}

RoundEngine::RoundEngine(FederationSettings settings, std::unique_ptr<Aggregator> rule,
                         const std::string& rule_settings, const std::filesystem::path& ledger, Clock clock)
    : settings_(std::move(settings)),
      rule_(std::move(rule)),
      ledger_(ledger, settings_.identity(rule_settings), settings_.keep, settings_.keep_every),
      clock_(std::move(clock)) {
  if (!ledger_.last()) return;
  phase_ = *ledger_.last() >= settings_.rounds ? Phase::finished : Phase::idle;
}

std::unique_ptr<RoundEngine> RoundEngine::open(const Config& config, const std::filesystem::path& ledger,
                                               Clock clock) {
  FederationSettings settings = FederationSettings::read(config.child("federation"));
  const Config table = config.child("aggregate");
  std::unique_ptr<Aggregator> rule = make_aggregator(table);
  config.finish();
  return std::make_unique<RoundEngine>(std::move(settings), std::move(rule), table.resolved(), ledger,
                                       std::move(clock));
}

void RoundEngine::begin(const Arrays& model) {
  if (phase_ != Phase::needs_model) throw Error("begin", "the federation has its model already");
  if (model.empty()) throw Error("begin", "the model has no tensor");
  for (const auto& [name, array] : model) {
    if (!is_float(array.dtype))
      throw Error("begin: " + name, std::string("is of dtype ") + dtype_text(array.dtype),
                  "only floating-point tensors can be averaged");
    if (name.find('#') != std::string::npos) throw Error("begin: " + name, "a name must not have a '#'");
  }
  if (const std::string bad = first_not_finite(model); !bad.empty())
    throw Error("begin: " + bad, "is not finite");
  RoundRecord record;
  const WholeArithmetic whole;
  ledger_.commit(rule_->initial(model), record);
  phase_ = Phase::idle;
}

RoundPlan RoundEngine::plan(const std::vector<OnlineClient>& online) {
  if (phase_ == Phase::failed) throw Error("plan", "the federation has failed: " + failure_);
  if (phase_ == Phase::finished) throw Error("plan", "all rounds are done");
  if (phase_ == Phase::needs_model) throw Error("plan", "there is no model yet", "call begin() first");
  const double now = clock_();
  if (!open_) {
    open_.emplace();
    open_->began = now;
  }
  if (phase_ == Phase::idle) {
    ++open_->attempt;
    open_->deadline = now + settings_.deadline;
    open_->sampled.clear();
    for (const auto& [client, update] : open_->accepted) open_->sampled.insert(client);
    phase_ = Phase::collecting;
  }
  using Place = std::tuple<bool, std::uint64_t, std::string>;
  std::set<Place> order;
  for (const OnlineClient& client : online) {
    const bool allowed =
        settings_.clients.empty() ||
        std::find(settings_.clients.begin(), settings_.clients.end(), client.id) != settings_.clients.end();
    if (!well_formed(client.id) || !allowed) {
      log::warn("a client that may not take part is left out");
      continue;
    }
    order.insert({open_->failed_before.contains(client.id),
                  derive(settings_.seed, {"sample", round(), std::string_view(client.id)}), client.id});
  }
  for (const auto& [failed, rank, id] : order) {
    if (settings_.sample > 0 && static_cast<std::int64_t>(open_->sampled.size()) >= settings_.sample) break;
    open_->sampled.insert(id);
  }
  return {round(),
          open_->attempt,
          std::max(0.0, open_->deadline - now),
          {open_->sampled.begin(), open_->sampled.end()},
          ledger_.sha()};
}

const std::string& RoundEngine::preview(const std::string& client) const {
  if (phase_ == Phase::needs_model) throw Error("download", "there is no model yet");
  // A round may leave the state as it was; the next one's blob says its own number.
  const std::string wanted =
      std::to_string(round()) + "/" + ledger_.sha() + (rule_->personal() ? "/" + client : "");
  if (blob_of_ == wanted) return blob_;
  const WholeArithmetic whole;
  blob_ = to_blob(rule_->download(ledger_.state(), client), {{"schema", "mcit.model.1"},
                                                             {"run", settings_.run},
                                                             {"round", std::to_string(round())},
                                                             {"base", ledger_.sha()}});
  blob_of_ = wanted;
  return blob_;
}

const std::string& RoundEngine::download(const std::string& client) {
  const std::string& blob = preview(client);
  if (open_) open_->bytes_down += blob.size();
  return blob;
}

OfferResult RoundEngine::offer(const std::string& client, std::uint32_t round, std::string blob) {
  if (open_) open_->bytes_up += blob.size();
  return noted(client, consider(client, round, std::move(blob)));
}

OfferResult RoundEngine::decline(const std::string& client, std::uint32_t round, const std::string& reason) {
  if (const auto verdict = out_of_turn(client, round)) return noted(client, *verdict);
  std::string said = "declines: ";
  for (const char c : reason.substr(0, kLongestReason)) said += c >= ' ' && c <= '~' ? c : '?';
  return noted(client, {Verdict::rejected, said});
}

OfferResult RoundEngine::noted(const std::string& client, OfferResult result) {
  if (open_ && result.verdict == Verdict::rejected) {
    open_->rejected[client] = result.reason;
    open_->refused.insert(client);
  }
  if (open_ && result.verdict == Verdict::duplicate) open_->duplicate.insert(client);
  if ((result.verdict == Verdict::late || result.verdict == Verdict::stale) && well_formed(client) &&
      late_.size() < kMostLate)
    late_.push_back({client, result.reason});
  return result;
}

/// What is said to a client whose turn it is not, whatever it sends.
std::optional<OfferResult> RoundEngine::out_of_turn(const std::string& client, std::uint32_t round) const {
  const std::string number = std::to_string(round);
  if (round < this->round()) return OfferResult{Verdict::late, "round " + number + " is over"};
  if (round > this->round()) return OfferResult{Verdict::stale, "round " + number + " has not begun"};
  if (phase_ != Phase::collecting)
    return OfferResult{Verdict::late, "round " + number + " is not being collected"};
  if (!open_->sampled.contains(client))
    return OfferResult{Verdict::not_sampled, "is not part of round " + number};
  if (open_->accepted.contains(client))
    return OfferResult{Verdict::duplicate, "round " + number + " has its update already"};
  if (clock_() > open_->deadline)
    return OfferResult{Verdict::late, "came after the deadline of round " + number};
  return std::nullopt;
}

OfferResult RoundEngine::consider(const std::string& client, std::uint32_t round, std::string blob) {
  if (auto verdict = out_of_turn(client, round)) return *verdict;
  const WholeArithmetic whole;
  try {
    return examine(client, std::move(blob));
  } catch (const std::bad_alloc&) {
    return {Verdict::rejected, "its update takes more memory than there is"};
  } catch (const std::exception& error) {
    return {Verdict::rejected, error.what()};
  }
}

OfferResult RoundEngine::examine(const std::string& client, std::string blob) {
  auto update = std::make_shared<Update>(std::move(blob), layout());
  const UpdateInfo& info = update->info();
  if (info.round != round() || info.base != ledger_.sha())
    return {Verdict::stale, "was trained from another state: round " + std::to_string(info.round) +
                                ", base " + info.base.substr(0, 12)};
  if (const std::string why = mismatch(info, client); !why.empty()) return {Verdict::rejected, why};
  Contribution contribution;
  contribution.update = update;
  contribution.base = rule_->bases(ledger_.state(), *update);
  if (const std::string why = screen(contribution, layout()); !why.empty()) return {Verdict::rejected, why};
  if (const std::string why = rule_->objection(ledger_.state(), contribution); !why.empty())
    return {Verdict::rejected, why};
  open_->accepted.emplace(client, std::move(contribution));
  return {Verdict::accepted, {}};
}

std::string RoundEngine::mismatch(const UpdateInfo& info, const std::string& client) const {
  if (info.run != settings_.run) return "is of the run '" + info.run + "'";
  if (info.client != client) return "says that it is of '" + info.client + "'";
  if (info.strategy != settings_.strategy || info.strategy_version != settings_.strategy_version)
    return "is of strategy '" + info.strategy + "' " + info.strategy_version;
  const std::string encoding = encoding_text(info.encoding);
  const auto& allowed = settings_.encodings;
  if (std::find(allowed.begin(), allowed.end(), encoding) == allowed.end())
    return "has the encoding " + encoding + ", which this federation does not take";
  return {};
}

bool RoundEngine::ready() const {
  if (phase_ != Phase::collecting) return false;
  if (clock_() > open_->deadline) return true;
  return !open_->sampled.empty() &&
         std::all_of(open_->sampled.begin(), open_->sampled.end(), [&](const std::string& client) {
           return open_->accepted.contains(client) || open_->refused.contains(client);
         });
}

RoundRecord RoundEngine::describe() const {
  RoundRecord record;
  record.round = round();
  record.attempts = open_->attempt;
  record.sampled.assign(open_->sampled.begin(), open_->sampled.end());
  for (const auto& [client, reason] : open_->rejected) record.rejected.push_back({client, reason});
  for (const std::string& client : open_->sampled)
    if (!open_->accepted.contains(client) && !open_->rejected.contains(client))
      record.missing.push_back(client);
  record.late = late_;
  std::stable_sort(record.late.begin(), record.late.end(),
                   [](const RoundReason& a, const RoundReason& b) { return a.client < b.client; });
  record.duplicate.assign(open_->duplicate.begin(), open_->duplicate.end());
  record.before = ledger_.sha();
  record.bytes_up = open_->bytes_up;
  record.bytes_down = open_->bytes_down;
  record.seconds = clock_() - open_->began;
  return record;
}

std::vector<Contribution> RoundEngine::clipped() const {
  std::vector<Contribution> updates;
  for (const auto& [client, update] : open_->accepted) updates.push_back(update);  // in the order of ids
  clip(updates, {settings_.clip_norm, settings_.clip_ratio, settings_.control_clip_norm});
  return updates;
}

std::vector<RoundClient> RoundEngine::used(const std::vector<Contribution>& updates) const {
  std::vector<RoundClient> out;
  for (const Contribution& c : updates)
    out.push_back({c.client(), c.update->info().task, c.update->info().examples, c.norm, c.scale, c.digest,
                   c.update->info().statistics});
  return out;
}

CloseResult RoundEngine::close() {
  if (phase_ != Phase::collecting) throw Error("close", "no round is being collected", "call plan() first");
  RoundRecord record = describe();
  if (!ready()) return {Outcome::open, std::move(record), "clients are still training"};
  const auto have = static_cast<std::int64_t>(open_->accepted.size());
  if (have >= settings_.quorum) return aggregate(std::move(record));
  const std::string reason = "round " + std::to_string(round()) + ", attempt " +
                             std::to_string(open_->attempt) + ": " + std::to_string(have) +
                             " usable updates, " + std::to_string(settings_.quorum) + " are needed";
  if (open_->attempt > settings_.retries) return fail(std::move(record), reason);
  for (const std::string& client : record.missing) open_->failed_before.insert(client);
  open_->failed_before.merge(open_->refused);
  open_->refused.clear();
  phase_ = Phase::idle;
  log::warn(reason, "; trying again");
  return {Outcome::retry, std::move(record), reason};
}

CloseResult RoundEngine::aggregate(RoundRecord record) {
  const WholeArithmetic whole;
  try {
    const std::vector<Contribution> updates = clipped();
    record.used = used(updates);
    Json notes = Json::object();
    Arrays next = rule_->aggregate({ledger_.state(), updates, settings_.weighting, round()}, notes);
    if (const std::string bad = first_not_finite(next); !bad.empty())
      return fail(std::move(record),
                  "round " + std::to_string(round()) + ": the new '" + bad + "' is not finite");
    if (!notes.empty()) record.notes = dump_json(notes);
    open_->accepted.clear();  // their bases point into the state that is about to be replaced
    ledger_.commit(std::move(next), record);
  } catch (const std::exception& error) {
    return fail(std::move(record), error.what());
  }
  open_.reset();
  late_.clear();
  phase_ = record.round >= settings_.rounds ? Phase::finished : Phase::idle;
  return {Outcome::committed, std::move(record), {}};
}

CloseResult RoundEngine::fail(RoundRecord record, const std::string& reason) {
  phase_ = Phase::failed;
  failure_ = reason;
  log::error(reason);
  return {Outcome::failed, std::move(record), reason};
}

}  // namespace mcit::fed
