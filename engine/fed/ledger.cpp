#include "fed/ledger.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kLargestRecord = 256ULL << 20;

std::string numbered(std::int64_t round, const char* ending) {
  char name[64];
  std::snprintf(name, sizeof name, "round-%06lld%s", static_cast<long long>(round), ending);
  return name;
}

/// The record's hash over its own text, so that a changed digit is found.
std::string check_of(Json json) {
  json.erase("check");
  return hash_text(dump_json(json));
}

int locked(const fs::path& folder) {
  const fs::path file = folder / "lock";
  const int lock = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock < 0) throw DataError(file.string(), std::string("cannot open: ") + std::strerror(errno));
  if (::flock(lock, LOCK_EX | LOCK_NB) == 0) return lock;
  ::close(lock);
  throw LedgerInUse(folder.string(), "another process has this ledger open");
}

}  // namespace

Ledger::Ledger(fs::path folder, std::string settings, std::int64_t keep, std::int64_t keep_every)
    : folder_(std::move(folder)), settings_(std::move(settings)), keep_(keep), keep_every_(keep_every) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (error) throw DataError(folder_.string(), "cannot make the folder: " + error.message());
  lock_ = locked(folder_);
  try {
    scan();
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

Ledger::~Ledger() { ::close(lock_); }

fs::path Ledger::state_file(std::int64_t round) const { return folder_ / numbered(round, ".safetensors"); }
fs::path Ledger::record_file(std::int64_t round) const { return folder_ / numbered(round, ".json"); }

std::optional<std::int64_t> Ledger::last() const {
  if (records_.empty()) return std::nullopt;
  return static_cast<std::int64_t>(records_.size()) - 1;
}

std::string Ledger::lost_sha(std::int64_t round) const {
  const auto found = lost_.find(round);
  return found == lost_.end() ? std::string() : found->second;
}

std::string Ledger::sha_of(const Arrays& state) { return sha256(to_blob(state, {})); }

std::optional<RoundRecord> Ledger::read_record(std::int64_t round, std::string& why) {
  const fs::path file = record_file(round);
  try {
    const Json json = read_json(file, {kLargestRecord});
    if (json_text(json, "check", file.string()) != check_of(json))
      throw DataError(file.string(), "is not what was written");
    const RoundRecord record = round_from_json(json, file.string());
    if (record.round != round) throw DataError(file.string(), "is the record of another round");
    if (round == 0 && json_text(json, "settings", file.string()) != settings_)
      throw ConfigError(folder_.string(), "belongs to a federation with other settings",
                        "take another folder, or the settings that it began with: " +
                            json_text(json, "settings", file.string()));
    lost_[round] = record.after;
    if (round > 0 && record.before != records_.back().after)
      throw DataError(file.string(), "does not follow from the round before");
    return record;
  } catch (const DataError& error) {
    why = error.what();
    return std::nullopt;
  }
}

Arrays Ledger::read_state(const RoundRecord& record) const {
  constexpr std::uint64_t kLargestState = std::uint64_t{1} << 40;
  const fs::path file = state_file(record.round);
  const std::string bytes = read_file(file, kLargestState);
  if (sha256(bytes) != record.after) throw DataError(file.string(), "is not what was written");
  return from_blob(bytes, file.string()).arrays;
}

std::optional<Arrays> Ledger::state_after(std::int64_t round) const {
  if (round < 0 || round >= static_cast<std::int64_t>(records_.size()) || !fs::exists(state_file(round)))
    return std::nullopt;
  try {
    return read_state(records_[static_cast<std::size_t>(round)]);
  } catch (const Error& error) {
    log::warn(error.what());
    return std::nullopt;
  }
}

bool Ledger::take_state(const RoundRecord& record, std::string& why) {
  try {
    state_ = read_state(record);
    sha_ = record.after;
    return true;
  } catch (const Error& error) {
    why = error.what();
    return false;
  }
}

void Ledger::quarantine(const fs::path& file, const std::string& why) {
  const fs::path folder = folder_ / "quarantine";
  fs::create_directories(folder);
  fs::path target = folder / file.filename();
  for (int copy = 2; fs::exists(target); ++copy)
    target = folder / (file.filename().string() + "." + std::to_string(copy));
  fs::rename(file, target);
  quarantined_.push_back(why);
  log::warn(why, "; moved to ", target.string());
}

/// Records from the first on while each is intact and follows from the one before, then back to the newest
/// whose state is intact. Everything else in the folder that looks like a round is moved away.
void Ledger::scan() {
  std::string why;
  for (std::int64_t round = 0; fs::exists(record_file(round)); ++round) {
    auto record = read_record(round, why);
    if (!record) {
      quarantine(record_file(round), why);
      break;
    }
    records_.push_back(std::move(*record));
  }
  while (!records_.empty() && !take_state(records_.back(), why)) {
    quarantine(record_file(records_.back().round), why);
    records_.pop_back();
  }
  std::vector<fs::path> strays;
  for (const auto& entry : fs::directory_iterator(folder_)) {
    const std::string name = entry.path().filename().string();
    long long round = 0;
    char ending[16] = {};
    const bool ours = std::sscanf(name.c_str(), "round-%lld.%15s", &round, ending) == 2;
    const bool temporary = name.starts_with(".round-");
    if (temporary || (ours && round >= static_cast<long long>(records_.size())))
      strays.push_back(entry.path());
  }
  std::sort(strays.begin(), strays.end());
  for (const fs::path& file : strays) {
    std::string reason = file.string() + ": was left by a round that was not committed";
    if (file.extension() == ".json") {
      std::string ignored;
      long long round = 0;
      std::sscanf(file.filename().c_str(), "round-%lld", &round);
      try {
        const Json json = read_json(file, {kLargestRecord});
        if (json_text(json, "check", file.string()) == check_of(json))
          lost_[round] = round_from_json(json, file.string()).after;
      } catch (const Error&) {
      }
      reason = file.string() + ": follows a round that is damaged";
    }
    quarantine(file, reason);
  }
}

void Ledger::commit(Arrays state, RoundRecord& record) {
  const auto round = static_cast<std::int64_t>(records_.size());
  if (record.round != round)
    throw Error("ledger", "round " + std::to_string(record.round) + " is not the next");
  const std::string bytes = to_blob(state, {});
  RoundRecord written = record;
  written.after = sha256(bytes);
  written.before = sha_;
  if (const std::string lost = lost_sha(round); !lost.empty()) written.redone = lost == written.after;
  write_atomic(state_file(round), bytes);
  Json json = round_to_json(written);
  if (round == 0) json["settings"] = settings_;
  json["check"] = check_of(json);
  write_json(record_file(round), json);
  record = written;
  records_.push_back(std::move(written));
  state_ = std::move(state);
  sha_ = record.after;
  prune();
}

void Ledger::prune() const {
  if (keep_ <= 0) return;
  // Down to the first that is gone: a process that was killed here has left one behind.
  std::error_code ignored;  // a file too many does no harm
  for (auto old = static_cast<std::int64_t>(records_.size()) - 1 - keep_; old > 0; --old) {
    if (keep_every_ > 0 && old % keep_every_ == 0) continue;
    if (!fs::remove(state_file(old), ignored)) break;
  }
}

}  // namespace mcit::fed
