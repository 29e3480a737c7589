#pragma once
/// What became of the rows that were right when their task was learned.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "metrics/result.hpp"
#include "report/predictions.hpp"

namespace mcit {

/// A row that was right when its task was learned, later.
enum class Fate {
  kept,            ///< still right
  format_drift,    ///< wrong, and no longer of the form that the task asks for
  knowledge_loss,  ///< of the right form, but wrong
};
/// The one place that says which is which. Right is a score of at least one half.
Fate fate_of(const Answer& now);
bool is_right(const Answer& answer);

struct FateCount {
  std::int64_t rows = 0;     ///< of the task's test set
  std::int64_t learned = 0;  ///< right when the task was learned
  std::int64_t format_drift = 0, knowledge_loss = 0;

  std::int64_t kept() const { return learned - format_drift - knowledge_loss; }
  FateCount& operator+=(const FateCount& other);
};

/// A row that was right when learned and is wrong after the last stage.
struct Flip {
  std::string id;
  std::int64_t stage = 0;  ///< the first after learning at which it was wrong
  Fate fate = Fate::kept;  ///< after the last stage
};

/// One task of one run.
struct TaskFates {
  std::vector<std::optional<FateCount>>
      stages;               ///< as rows of the matrix; nothing before the task is learned
  std::vector<Flip> flips;  ///< in file order
};

struct RunFates {
  std::vector<TaskFates> tasks;
  AnswerFaults faults;
  std::int64_t repeated = 0;  ///< rows whose id came twice in one file: the first counts

  bool empty() const;  ///< no predictions were there
};

/// Rows are paired by question_id. @param folder of the run @param done called after each file
RunFates read_fates(const RunResult& run, const std::filesystem::path& folder,
                    const std::function<void()>& done = {});

}  // namespace mcit
