#pragma once
/// A run's numbers with its tasks in another order.

#include <string>
#include <vector>

#include "metrics/result.hpp"

namespace mcit {

/// The same run with its tasks, the columns of its matrices, in the order of `tasks`. Stages stay as they
/// ran. @throws DataError unless these are the run's tasks, each once
RunResult with_tasks_in_order(const RunResult& result, const std::vector<std::string>& tasks);

/// Copies rows 0 .. `last` of the matrices and counts, and what stages 1 .. `last` cost and kept, from a run
/// with the same tasks in any order. @throws DataError when the tasks differ or one of the two has fewer
/// stages
void copy_rows(const RunResult& from, std::int64_t last, RunResult& to);

}  // namespace mcit
