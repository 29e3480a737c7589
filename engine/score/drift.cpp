#include "score/drift.hpp"

#include <cmath>
#include <unordered_map>

#include "core/files.hpp"
#include "core/run_dir.hpp"

namespace mcit {
namespace {

struct Parts {
  double drift = 0, loss = 0, regained = 0;
};

bool in_form(const Prediction& row) { return row.well_formed && row.in_set.value_or(true); }

/// Percent of `now`'s rows. Rows that `learned` does not know are left out.
Parts compare(const Cell& learned, const Cell& now) {
  std::unordered_map<std::string, double> before;
  for (const Prediction& row : learned.rows) before.emplace(row.id, row.score);
  Parts out;
  for (std::size_t i = 0; i < now.rows.size(); ++i) {
    const Prediction& row = now.rows[i];
    const bool same_place = i < learned.rows.size() && learned.rows[i].id == row.id;
    const auto known = before.find(row.id);
    if (known == before.end()) continue;
    const double change = row.score - (same_place ? learned.rows[i].score : known->second);
    (change > 0 ? out.regained : in_form(row) ? out.loss : out.drift) += std::abs(change);
  }
  const double scale = now.rows.empty() ? 0 : 100.0 / static_cast<double>(now.rows.size());
  return {scale * out.drift, scale * out.loss, scale * out.regained};
}

}  // namespace

void split_forgetting(RunResult& result, const CellSource& cells) {
  ForgettingSplit split;
  std::vector<std::int64_t> learned_at;
  for (std::int64_t j = 0; j < result.matrix.tasks(); ++j) learned_at.push_back(result.matrix.learned_at(j));
  split.format_drift = AccuracyMatrix(result.task_names(), result.matrix.stages(), learned_at);
  split.knowledge_loss = split.regained = split.format_drift;
  for (std::int64_t j = 0; j < result.matrix.tasks(); ++j) {
    const std::int64_t first = result.matrix.learned_at(j);
    if (first == 0 || first >= result.matrix.stages()) continue;
    const std::optional<Cell> learned = cells(first, j);
    for (std::int64_t i = first + 1; learned && i <= result.matrix.stages(); ++i) {
      const std::optional<Cell> now = cells(i, j);
      if (!now) continue;
      const Parts parts = compare(*learned, *now);
      split.format_drift.set(i, j, parts.drift);
      split.knowledge_loss.set(i, j, parts.loss);
      split.regained.set(i, j, parts.regained);
    }
  }
  result.forgetting = std::move(split);
}

std::optional<Cell> stored_cell(const std::filesystem::path& run, std::int64_t row, const std::string& task) {
  const std::filesystem::path file = predictions_file(run, row, task);
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return std::nullopt;
  return from_jsonl(read_file(file), file.string());
}

}  // namespace mcit
