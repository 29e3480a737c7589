#pragma once
/// Which training rows form which batch.

#include <cstdint>
#include <vector>

namespace mcit {

/// An endless sequence of batches over n rows: each epoch a new shuffle, then rows of like length put
/// together inside stretches of sixteen batches, then the batches of the stretch shuffled. A pure function of
/// its arguments: batch number s is the same in a resumed run, with any number of threads.
class BatchOrder {
 public:
  /// @param lengths tokens of each row @throws DataError when there is no row; ConfigError for a batch
  /// below 1.
  BatchOrder(std::vector<std::int64_t> lengths, std::int64_t batch, std::uint64_t seed);

  /// Rows of batch `index`. The last batch of an epoch takes its missing rows from the epoch's beginning.
  std::vector<std::int64_t> batch(std::int64_t index) const;
  std::int64_t batches_per_epoch() const { return per_epoch_; }
  /// Share of padded cells that a padded layout of the first epoch would have, 0..1; rows here are packed
  /// instead.
  double padding() const;

 private:
  const std::vector<std::int64_t>& epoch(std::int64_t number) const;

  std::vector<std::int64_t> lengths_;
  std::int64_t batch_, per_epoch_;
  std::uint64_t seed_;
  mutable std::int64_t cached_epoch_ = -1;
  mutable std::vector<std::int64_t> cached_;
};

}  // namespace mcit
