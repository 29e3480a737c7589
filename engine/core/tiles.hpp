#pragma once
/// How a picture is cut into the square tiles that a vision tower reads, in sizes alone: what the
/// preprocessor cuts, what the encoder counts and what the connector puts together must agree. Source of the
/// rules: the image processors of transformers 5 (LlavaOnevision, Idefics3).

#include <cstdint>
#include <span>
#include <string>

namespace mcit {

struct PictureSize {
  int height = 0, width = 0;  ///< pixels

  bool operator==(const PictureSize&) const = default;
};

struct TileGrid {
  int rows = 0, columns = 0;

  int count() const { return rows * columns; }
  bool operator==(const TileGrid&) const = default;
};

/// A picture's file and what it is cut into besides the tile that shows all of it.
struct PictureShape {
  PictureSize size;
  TileGrid grid;  ///< empty: the picture is read in one piece

  int tiles() const { return 1 + grid.count(); }
};

/// What stands in a prompt where a picture is.
struct PictureText {
  std::string text = "<image>";  ///< image tokens with what belongs around them
  std::int64_t each = 1;         ///< rows that each image token of `text` stands for
  std::int64_t in_front = 0;     ///< rows before the whole sequence, even before its first token
};

/// Any-resolution tiling (LLaVA-OneVision): the canvas among `choices` that keeps most of the picture's
/// pixels, then wastes least; the first one wins ties. @param choices not empty
PictureSize best_canvas(PictureSize picture, std::span<const PictureSize> choices);

/// The picture scaled to fit into a canvas: one side fills it, the other is rounded up.
PictureSize fit_into(PictureSize picture, PictureSize canvas);

/// The rows of a canvas's tiles put side by side, without those that show padding, shrunk when there are too
/// many.
struct Mosaic {
  int top = 0, left = 0;              ///< rows and columns cut off on either side
  int rows = 0, columns = 0;          ///< what stays
  int out_rows = 0, out_columns = 0;  ///< after shrinking; the same when nothing shrinks
};
/// @param grid  the canvas in tiles
/// @param side  visual rows along a tile's edge
/// @param most  tiles' worth of rows above which the mosaic shrinks ("anyres_max_<most>")
Mosaic mosaic_of(PictureSize picture, TileGrid grid, int side, int most);

/// Row-and-column tiling (Idefics3, SmolVLM): two resizes in a row, then tiles of `tile` pixels.
struct TileSplit {
  PictureSize first, second;
  TileGrid grid;  ///< empty when the picture is read in one piece
};
TileSplit split_of(PictureSize picture, int longest_edge, int tile);

}  // namespace mcit
