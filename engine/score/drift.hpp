#pragma once
/// Forgetting, split into answers that lost their form and answers that lost their content.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "metrics/result.hpp"
#include "score/cell.hpp"

namespace mcit {

/// The cell of (row of the matrix, task), or nothing when it was not kept.
using CellSource = std::function<std::optional<Cell>(std::int64_t row, std::int64_t task)>;

/// Fills in result.forgetting. Row by row, what the score fell by since the stage that learned the task is
/// format drift where the answer now has not the form its scorer asks for (Score::well_formed) or is none of
/// the task's answer set, knowledge loss elsewhere; what it rose by is regained. With a corpus scorer rows
/// are compared by their own values, and the parts do not add up to the difference of the cells.
void split_forgetting(RunResult& result, const CellSource& cells);

/// A cell out of a run's folder.
std::optional<Cell> stored_cell(const std::filesystem::path& run, std::int64_t row, const std::string& task);

}  // namespace mcit
