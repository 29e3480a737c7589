#include "metrics/reorder.hpp"

#include <algorithm>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

/// For each of `tasks` its place among `known`.
std::vector<std::size_t> places_of(const std::vector<std::string>& tasks,
                                   const std::vector<std::string>& known) {
  std::vector<std::size_t> places;
  for (const std::string& task : tasks) {
    const auto found = std::find(known.begin(), known.end(), task);
    const auto place = static_cast<std::size_t>(found - known.begin());
    if (found == known.end() || std::find(places.begin(), places.end(), place) != places.end())
      throw DataError("task '" + task + "'",
                      found == known.end() ? "is none of the run's" : "is there twice");
    places.push_back(place);
  }
  if (places.size() != known.size()) throw DataError("the order of tasks", "leaves out tasks of the run");
  return places;
}

AccuracyMatrix reordered(const AccuracyMatrix& matrix, const std::vector<std::size_t>& places) {
  std::vector<std::string> names;
  std::vector<std::int64_t> learned_at;
  for (const std::size_t place : places) {
    names.push_back(matrix.names()[place]);
    learned_at.push_back(matrix.learned_at(static_cast<std::int64_t>(place)));
  }
  AccuracyMatrix out(std::move(names), matrix.stages(), std::move(learned_at));
  for (std::int64_t i = 0; i <= matrix.stages(); ++i)
    for (std::size_t j = 0; j < places.size(); ++j)
      out.set(i, static_cast<std::int64_t>(j), matrix.at(i, static_cast<std::int64_t>(places[j])));
  return out;
}

}  // namespace

RunResult with_tasks_in_order(const RunResult& result, const std::vector<std::string>& tasks) {
  const std::vector<std::size_t> places = places_of(tasks, result.task_names());
  RunResult out = result;
  for (std::size_t j = 0; j < places.size(); ++j) out.tasks[j] = result.tasks[places[j]];
  for (StageResult& stage : out.stages)
    for (std::int64_t& task : stage.tasks)
      task = std::find(places.begin(), places.end(), static_cast<std::size_t>(task)) - places.begin();
  for (auto matrix : {&RunResult::matrix, &RunResult::matrix_restricted, &RunResult::matrix_oracle,
                      &RunResult::matrix_selector})
    out.*matrix = reordered(result.*matrix, places);
  if (out.forgetting)
    for (auto part :
         {&ForgettingSplit::format_drift, &ForgettingSplit::knowledge_loss, &ForgettingSplit::regained})
      *out.forgetting.*part = reordered(*result.forgetting.*part, places);
  for (std::size_t i = 0; i < out.counts.size(); ++i)
    for (std::size_t j = 0; j < places.size(); ++j)
      if (places[j] < result.counts[i].size()) out.counts[i][j] = result.counts[i][places[j]];
  return out;
}

void copy_rows(const RunResult& from, std::int64_t last, RunResult& to) {
  if (last > from.matrix.stages() || last > to.matrix.stages())
    throw DataError("stage " + std::to_string(last), "is beyond the end of the stream");
  const RunResult source = with_tasks_in_order(from, to.task_names());
  for (auto matrix : {&RunResult::matrix, &RunResult::matrix_restricted, &RunResult::matrix_oracle,
                      &RunResult::matrix_selector})
    for (std::int64_t i = 0; i <= last; ++i)
      for (std::int64_t j = 0; j < to.matrix.tasks(); ++j) (to.*matrix).set(i, j, (source.*matrix).at(i, j));
  const std::size_t rows =
      std::min({static_cast<std::size_t>(last) + 1, source.counts.size(), to.counts.size()});
  std::copy_n(source.counts.begin(), rows, to.counts.begin());
  to.base_eval_seconds = source.base_eval_seconds;
  for (std::size_t i = 0; i < static_cast<std::size_t>(last); ++i) {
    to.stages[i].cost = source.stages[i].cost;
    to.stages[i].selector_accuracy = source.stages[i].selector_accuracy;
    to.stages[i].tables = source.stages[i].tables;
  }
}

}  // namespace mcit
