#pragma once
/// What a strategy kept of a stage, as a picture.

#include <string>

#include "metrics/result.hpp"

namespace mcit {

/// A stand-alone SVG: a heat map with a number in each cell, or a line for each row over the columns. The
/// same table gives the same bytes.
std::string table_svg(const ResultTable& table, const std::string& title);

}  // namespace mcit
