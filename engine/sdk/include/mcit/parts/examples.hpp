#pragma once
/// Passes over examples.

#include <functional>
#include <vector>

#include "mcit/types.hpp"

namespace mcit::parts {

/// One ordered pass over a list of examples, which outlives it.
class MCIT_EXPORT ExampleBatches final : public Batches {
 public:
  explicit ExampleBatches(const std::vector<ExamplePtr>& examples) : examples_(examples) {}
  ~ExampleBatches() override;
  std::int64_t examples() const override { return static_cast<std::int64_t>(examples_.size()); }
  bool next(Batch& batch) override;
  void rewind(std::int64_t batch_size) override;  ///< @throws Error when batch_size < 1

 private:
  const std::vector<ExamplePtr>& examples_;
  std::size_t at_ = 0, size_ = 32;
};

/// Visits min(wanted, all) examples, spread evenly over the pass, `size` at a time and the rest at the end: a
/// sample that every run draws alike. @return how many were visited
MCIT_EXPORT std::int64_t visit_spread(Batches& batches, std::int64_t wanted, std::int64_t size,
                                      const std::function<void(const Batch&)>& visit);

}  // namespace mcit::parts
