#pragma once
/// What a federation has committed, on disk: one state and one record a round, each written whole. Whatever
/// happens to the process or the disk, the newest round that is intact and follows from the one before is
/// where it goes on.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fed/arrays.hpp"
#include "mcit/errors.hpp"
#include "metrics/federated.hpp"

namespace mcit::fed {

/// Another process has it open: worth another try when that one has ended.
class LedgerInUse final : public Error {
 public:
  using Error::Error;
};

/// A folder:
///   round-000007.safetensors   the state after round 7 (its SHA-256 is the record's `after`)
///   round-000007.json          the record; a round is committed when this file is in its place
///   quarantine/                what was found damaged, torn or without its record
///   lock                       held while a process has the ledger open
class Ledger {
 public:
  /// Makes the folder, or opens it and moves what is not intact into quarantine/.
  /// @param settings what decides the bits of the rounds; must be what the ledger began with
  /// @param keep states of the newest rounds that stay on disk besides round 0's; 0 = all
  /// @param keep_every states of rounds that it divides stay as well; 0 = no such
  /// @throws LedgerInUse; ConfigError when it belongs to other settings; DataError
  Ledger(std::filesystem::path folder, std::string settings, std::int64_t keep, std::int64_t keep_every = 0);
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;
  ~Ledger();

  /// Newest committed round; empty when there is not even round 0.
  std::optional<std::int64_t> last() const;
  const std::vector<RoundRecord>& records() const { return records_; }  ///< of rounds 0, 1, ...
  const Arrays& state() const { return state_; }                        ///< after last()
  const std::string& sha() const { return sha_; }
  /// The state after an earlier round, as committed; nothing where it did not stay on disk or is damaged.
  std::optional<Arrays> state_after(std::int64_t round) const;

  /// What a quarantined record said the state of this round was; empty when none did.
  std::string lost_sha(std::int64_t round) const;
  const std::vector<std::string>& quarantined() const { return quarantined_; }  ///< reasons, one a file

  /// Commits the next round: state, then record. `after` is filled in. On any error the round is not
  /// committed, and memory is as it was. @throws DataError, as on a full disk
  void commit(Arrays state, RoundRecord& record);

  static std::string sha_of(const Arrays& state);

 private:
  std::filesystem::path state_file(std::int64_t round) const;
  std::filesystem::path record_file(std::int64_t round) const;
  void scan();
  std::optional<RoundRecord> read_record(std::int64_t round, std::string& why);
  Arrays read_state(const RoundRecord& record) const;
  bool take_state(const RoundRecord& record, std::string& why);
  void quarantine(const std::filesystem::path& file, const std::string& why);
  void prune() const;

  std::filesystem::path folder_;
  std::string settings_;
  std::int64_t keep_, keep_every_;
  int lock_ = -1;
  std::vector<RoundRecord> records_;
  Arrays state_;
  std::string sha_;
  std::map<std::int64_t, std::string> lost_;
  std::vector<std::string> quarantined_;
};

}  // namespace mcit::fed
