#pragma once
/// Two tasks of a few examples, for the probe backbone. Private to this library.

#include "mcit/types.hpp"

namespace mcit {

struct ProbeTask {
  TaskInfo info;
  std::vector<ExamplePtr> train;
  std::vector<ExamplePtr> test;
};

/// Pictures and text-only rows, answers of one and two tokens; the same in every call.
const std::vector<ProbeTask>& probe_stream();

/// One ordered pass over examples.
class ProbeBatches final : public Batches {
 public:
  explicit ProbeBatches(const std::vector<ExamplePtr>& examples) : examples_(examples) {}
  std::int64_t examples() const override { return static_cast<std::int64_t>(examples_.size()); }
  bool next(Batch& batch) override;
  void rewind(std::int64_t batch_size) override;

 private:
  const std::vector<ExamplePtr>& examples_;
  std::size_t at_ = 0;
  std::size_t size_ = 4;
};

}  // namespace mcit
