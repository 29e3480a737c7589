#pragma once
/// Other ways of showing a picture: as a line drawing, as a photographic negative.

#include "mini/canvas.hpp"

namespace mcit::mini {

/// Strokes of `ink` on `paper` where the colour of a picture (RGB) changes; the same size.
Raster line_drawing(const Raster& picture, Color paper, Color ink);

/// Every channel of a picture (RGB) inverted.
Raster negative(const Raster& picture);

}  // namespace mcit::mini
