#pragma once
/// The accuracy matrix as a picture.

#include <string>
#include <vector>

#include "metrics/matrix.hpp"

namespace mcit {

/// A stand-alone SVG: one row a stage, the base on top, numbers in the cells, missing cells hatched, a frame
/// around the cell of the stage that learned the task. The same matrix gives the same bytes.
/// @param stages names of the stages after the base; by default the tasks' names
std::string heatmap_svg(const AccuracyMatrix& matrix, const std::string& title,
                        const std::vector<std::string>& stages = {});

}  // namespace mcit
