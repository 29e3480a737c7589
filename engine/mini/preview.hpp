#pragma once
/// Contact sheets: pictures with their questions and answers, for people to look at.

#include <string>
#include <vector>

#include "mini/pack.hpp"

namespace mcit::mini {

struct PreviewCell {
  Raster picture;                  ///< 64 x 64 RGB
  std::vector<std::string> lines;  ///< below it; wrapped, cut after six lines
};

/// A sheet of `columns` cells a row, pictures at twice their size. Text is set in the pack's own glyphs,
/// which have letters and digits only: punctuation shows as a gap.
Raster contact_sheet(const Pack& pack, const std::vector<PreviewCell>& cells, int columns);

}  // namespace mcit::mini
