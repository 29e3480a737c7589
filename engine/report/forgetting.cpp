#include "report/forgetting.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "core/run_dir.hpp"

namespace mcit {
namespace {

struct Row {
  std::string id;
  std::int64_t flipped = 0;  ///< stage, 0 for never
  Fate fate = Fate::kept;
};

/// Reads the files of one task, stage after stage.
class TaskReader {
 public:
  TaskReader(RunFates& run, const std::filesystem::path& folder, const std::string& task)
      : run_(run), folder_(folder), task_(task) {}

  FateCount learned(std::int64_t stage) {
    FateCount count;
    count.rows = read(stage, [&](const Answer& answer) {
      if (!is_right(answer)) return;
      ++count.learned;
      where_[answer.id] = rows_.size();
      rows_.push_back({answer.id});
    });
    return count;
  }

  /// @return nothing when the stage left no file
  std::optional<FateCount> later(std::int64_t stage) {
    FateCount count;
    count.rows = read(stage, [&](const Answer& answer) {
      const auto found = where_.find(answer.id);
      if (found == where_.end()) return;
      ++count.learned;
      Row& row = rows_[found->second];
      row.fate = fate_of(answer);
      if (row.fate == Fate::kept) return;
      ++(row.fate == Fate::format_drift ? count.format_drift : count.knowledge_loss);
      if (row.flipped == 0) row.flipped = stage;
    });
    return count.rows > 0 ? std::optional(count) : std::nullopt;
  }

  std::vector<Flip> flips() const {
    std::vector<Flip> out;
    for (const Row& row : rows_)
      if (row.fate != Fate::kept) out.push_back({row.id, row.flipped, row.fate});
    return out;
  }

 private:
  /// Shows each row once. @return how many there were
  template <class See>
  std::int64_t read(std::int64_t stage, const See& see) {
    std::unordered_set<std::string> seen;
    const AnswerFaults faults =
        read_answers(predictions_file(folder_, stage, task_), [&](const Answer& answer) {
          if (seen.insert(answer.id).second)
            see(answer);
          else
            ++run_.repeated;
        });
    if (run_.faults.lines == 0) run_.faults.first = faults.first;
    run_.faults.lines += faults.lines;
    return static_cast<std::int64_t>(seen.size());
  }

  RunFates& run_;
  const std::filesystem::path& folder_;
  const std::string& task_;
  std::vector<Row> rows_;  ///< right when learned
  std::unordered_map<std::string, std::size_t> where_;
};

}  // namespace

bool is_right(const Answer& answer) { return answer.score >= 0.5; }

Fate fate_of(const Answer& now) {
  if (is_right(now)) return Fate::kept;
  return now.well_formed ? Fate::knowledge_loss : Fate::format_drift;
}

FateCount& FateCount::operator+=(const FateCount& other) {
  rows += other.rows;
  learned += other.learned;
  format_drift += other.format_drift;
  knowledge_loss += other.knowledge_loss;
  return *this;
}

bool RunFates::empty() const {
  return std::all_of(tasks.begin(), tasks.end(), [](const TaskFates& task) {
    return std::none_of(task.stages.begin(), task.stages.end(), [](const auto& s) { return s.has_value(); });
  });
}

RunFates read_fates(const RunResult& run, const std::filesystem::path& folder,
                    const std::function<void()>& done) {
  RunFates out;
  const std::int64_t last = run.matrix.stages();
  for (std::int64_t j = 0; j < run.matrix.tasks(); ++j) {
    TaskFates fates;
    fates.stages.resize(static_cast<std::size_t>(last) + 1);
    const std::int64_t learned = run.matrix.learned_at(j);
    TaskReader reader(out, folder, run.matrix.names()[static_cast<std::size_t>(j)]);
    if (learned > 0) {
      const FateCount first = reader.learned(learned);
      if (first.rows > 0) {
        fates.stages[static_cast<std::size_t>(learned)] = first;
        for (std::int64_t i = learned + 1; i <= last; ++i) {
          fates.stages[static_cast<std::size_t>(i)] = reader.later(i);
          if (done) done();
        }
        fates.flips = reader.flips();
      }
    }
    out.tasks.push_back(std::move(fates));
  }
  return out;
}

}  // namespace mcit
