#pragma once
/// The accuracy matrix of a continual run: what every metric is computed from.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace mcit {

/// R[i][j]: score in percent on task j after training stage i; row 0 is the untrained base. A cell that was
/// not measured is empty and never counts as 0.
class AccuracyMatrix {
 public:
  using Cell = std::optional<double>;

  AccuracyMatrix() = default;
  /// All cells empty; task j is learned in stage j + 1.
  explicit AccuracyMatrix(std::vector<std::string> tasks);
  /// @param learned_at for each task the stage (1 .. stages) that first trains it, 0 for never
  AccuracyMatrix(std::vector<std::string> tasks, std::int64_t stages, std::vector<std::int64_t> learned_at);

  std::int64_t tasks() const { return static_cast<std::int64_t>(names_.size()); }
  std::int64_t stages() const { return stages_; }
  const std::vector<std::string>& names() const { return names_; }
  /// Stage that first trains this task, 0 for never.
  std::int64_t learned_at(std::int64_t task) const { return learned_at_.at(static_cast<std::size_t>(task)); }

  /// @param stage 0 .. stages(); @param task 0-based. @throws std::out_of_range
  Cell at(std::int64_t stage, std::int64_t task) const { return cells_.at(index(stage, task)); }
  void set(std::int64_t stage, std::int64_t task, Cell percent) { cells_.at(index(stage, task)) = percent; }
  /// Cells from the left; the rest of the row stays. @throws std::out_of_range
  void set_row(std::int64_t stage, const std::vector<Cell>& percents);

  bool operator==(const AccuracyMatrix&) const = default;

 private:
  std::size_t index(std::int64_t stage, std::int64_t task) const;

  std::vector<std::string> names_;
  std::vector<std::int64_t> learned_at_;
  std::int64_t stages_ = 0;
  std::vector<Cell> cells_;  ///< row by row
};

}  // namespace mcit
