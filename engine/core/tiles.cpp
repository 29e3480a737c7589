#include "core/tiles.hpp"

#include <algorithm>
#include <cmath>

namespace mcit {

PictureSize best_canvas(PictureSize picture, std::span<const PictureSize> choices) {
  const double height = picture.height, width = picture.width;
  PictureSize best = choices.front();
  std::int64_t best_kept = -1, best_waste = 0;
  for (const PictureSize& canvas : choices) {
    const double scale = std::min(canvas.width / width, canvas.height / height);
    const std::int64_t kept =
        std::min(static_cast<std::int64_t>(width * scale) * static_cast<std::int64_t>(height * scale),
                 std::int64_t{picture.width} * picture.height);
    const std::int64_t waste = std::int64_t{canvas.width} * canvas.height - kept;
    if (kept > best_kept || (kept == best_kept && waste < best_waste)) {
      best = canvas;
      best_kept = kept;
      best_waste = waste;
    }
  }
  return best;
}

PictureSize fit_into(PictureSize picture, PictureSize canvas) {
  const double wide = canvas.width / static_cast<double>(picture.width),
               tall = canvas.height / static_cast<double>(picture.height);
  if (wide < tall)
    return {std::min(static_cast<int>(std::ceil(picture.height * wide)), canvas.height), canvas.width};
  return {canvas.height, std::min(static_cast<int>(std::ceil(picture.width * tall)), canvas.width)};
}

Mosaic mosaic_of(PictureSize picture, TileGrid grid, int side, int most) {
  Mosaic out;
  out.rows = grid.rows * side;
  out.columns = grid.columns * side;
  // Python's round(x, 7) before the cut: a length that is whole but for rounding stays whole.
  const auto whole = [](double x) { return static_cast<int>(std::nearbyint(x * 1e7) / 1e7); };
  if (picture.width / static_cast<double>(picture.height) > out.columns / static_cast<double>(out.rows)) {
    const double scale = out.columns / static_cast<double>(picture.width);
    out.top = (out.rows - whole(picture.height * scale)) / 2;
    out.rows -= 2 * out.top;
  } else {
    const double scale = out.rows / static_cast<double>(picture.height);
    out.left = (out.columns - whole(picture.width * scale)) / 2;
    out.columns -= 2 * out.left;
  }
  out.out_rows = out.rows;
  out.out_columns = out.columns;
  const double ratio = std::sqrt(out.rows * out.columns / (static_cast<double>(most) * side * side));
  if (ratio > 1.1) {
    out.out_rows = static_cast<int>(std::floor(out.rows / ratio));
    out.out_columns = static_cast<int>(std::floor(out.columns / ratio));
  }
  return out;
}

TileSplit split_of(PictureSize picture, int longest_edge, int tile) {
  const auto up = [&](int length) {
    return static_cast<int>(std::ceil(length / static_cast<double>(tile))) * tile;
  };
  TileSplit out;
  double ratio = picture.width / static_cast<double>(picture.height);
  auto& [height, width] = out.first;
  if (picture.width >= picture.height) {
    width = longest_edge;
    height = std::max(static_cast<int>(longest_edge / ratio), 1);
    height += height % 2;
  } else {
    height = longest_edge;
    width = std::max(static_cast<int>(longest_edge * ratio), 1);
    width += width % 2;
  }
  ratio = width / static_cast<double>(height);
  if (width >= height) {
    out.second.width = up(width);
    out.second.height = up(static_cast<int>(out.second.width / ratio));
  } else {
    out.second.height = up(height);
    out.second.width = up(static_cast<int>(out.second.height * ratio));
  }
  if (std::max(out.second.height, out.second.width) > tile)
    out.grid = {out.second.height / tile, out.second.width / tile};
  return out;
}

}  // namespace mcit
