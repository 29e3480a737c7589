#include "data/loader.hpp"

#include <algorithm>

#include "core/random.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

constexpr std::int64_t kStretch = 16;  ///< batches that are sorted by length together

}  // namespace

BatchOrder::BatchOrder(std::vector<std::int64_t> lengths, std::int64_t batch, std::uint64_t seed)
    : lengths_(std::move(lengths)), batch_(batch), per_epoch_(0), seed_(seed) {
  if (lengths_.empty()) throw DataError("batches", "there is no training row");
  if (batch_ < 1)
    throw ConfigError("train.batch", "is " + std::to_string(batch_), "a batch holds at least one row");
  per_epoch_ = (static_cast<std::int64_t>(lengths_.size()) + batch_ - 1) / batch_;
}

const std::vector<std::int64_t>& BatchOrder::epoch(std::int64_t number) const {
  if (number == cached_epoch_) return cached_;
  Rng rng(derive(seed_, {"epoch", number}));
  std::vector<std::int64_t> rows = rng.permutation(lengths_.size());
  for (std::size_t i = 0; static_cast<std::int64_t>(rows.size()) < per_epoch_ * batch_; ++i)
    rows.push_back(rows[i % lengths_.size()]);
  const auto size = static_cast<std::size_t>(batch_);
  for (std::size_t begin = 0; begin < rows.size(); begin += kStretch * size) {
    const std::size_t end = std::min(rows.size(), begin + kStretch * size);
    const auto first = rows.begin() + static_cast<std::ptrdiff_t>(begin),
               last = rows.begin() + static_cast<std::ptrdiff_t>(end);
    std::stable_sort(first, last, [&](std::int64_t a, std::int64_t b) {
      return lengths_[static_cast<std::size_t>(a)] < lengths_[static_cast<std::size_t>(b)];
    });
    std::vector<std::vector<std::int64_t>> parts;
    for (std::size_t at = begin; at < end; at += size)
      parts.emplace_back(rows.begin() + static_cast<std::ptrdiff_t>(at),
                         rows.begin() + static_cast<std::ptrdiff_t>(at + size));
    rng.shuffle(parts);
    auto to = first;
    for (const auto& part : parts) to = std::copy(part.begin(), part.end(), to);
  }
  cached_epoch_ = number;
  cached_ = std::move(rows);
  return cached_;
}

std::vector<std::int64_t> BatchOrder::batch(std::int64_t index) const {
  const auto& rows = epoch(index / per_epoch_);
  const auto first = rows.begin() + index % per_epoch_ * batch_;
  return {first, first + batch_};
}

double BatchOrder::padding() const {
  std::int64_t real = 0, cells = 0;
  for (std::int64_t s = 0; s < per_epoch_; ++s) {
    std::int64_t longest = 0;
    for (const std::int64_t row : batch(s)) {
      real += lengths_[static_cast<std::size_t>(row)];
      longest = std::max(longest, lengths_[static_cast<std::size_t>(row)]);
    }
    cells += longest * batch_;
  }
  return cells == 0 ? 0.0 : 1.0 - static_cast<double>(real) / static_cast<double>(cells);
}

}  // namespace mcit
