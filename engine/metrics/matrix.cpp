#include "metrics/matrix.hpp"

#include <numeric>
#include <stdexcept>

namespace mcit {
namespace {

std::vector<std::int64_t> one_stage_each(std::size_t tasks) {
  std::vector<std::int64_t> stages(tasks);
  std::iota(stages.begin(), stages.end(), std::int64_t{1});
  return stages;
}

}  // namespace

AccuracyMatrix::AccuracyMatrix(std::vector<std::string> tasks)
    : names_(std::move(tasks)),
      learned_at_(one_stage_each(names_.size())),
      stages_(static_cast<std::int64_t>(names_.size())),
      cells_((names_.size() + 1) * names_.size()) {}

AccuracyMatrix::AccuracyMatrix(std::vector<std::string> tasks, std::int64_t stages,
                               std::vector<std::int64_t> learned_at)
    : names_(std::move(tasks)), learned_at_(std::move(learned_at)), stages_(stages) {
  if (stages < 0) throw std::out_of_range("accuracy matrix: a negative number of stages");
  if (learned_at_.size() != names_.size())
    throw std::out_of_range("accuracy matrix: one learning stage for each task");
  for (const std::int64_t stage : learned_at_)
    if (stage < 0 || stage > stages)
      throw std::out_of_range("accuracy matrix: a task is learned in no stage there is");
  cells_.resize(static_cast<std::size_t>(stages + 1) * names_.size());
}

void AccuracyMatrix::set_row(std::int64_t stage, const std::vector<Cell>& percents) {
  std::int64_t task = 0;
  for (const Cell& percent : percents) set(stage, task++, percent);
}

std::size_t AccuracyMatrix::index(std::int64_t stage, std::int64_t task) const {
  if (stage < 0 || stage > stages_ || task < 0 || task >= tasks())
    throw std::out_of_range("accuracy matrix: no cell [" + std::to_string(stage) + "][" +
                            std::to_string(task) + "]");
  return static_cast<std::size_t>(stage * tasks() + task);
}

}  // namespace mcit
