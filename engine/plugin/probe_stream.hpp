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

}  // namespace mcit
