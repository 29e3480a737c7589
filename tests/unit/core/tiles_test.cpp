// How pictures are cut into tiles: worked by hand, and what must hold for every size.
#include "core/tiles.hpp"

#include <catch2/catch_test_macros.hpp>
#include <vector>

namespace mcit::test {
namespace {

std::vector<PictureSize> grid(int side, int most) {
  std::vector<PictureSize> out;
  for (int rows = 1; rows <= most; ++rows)
    for (int columns = 1; columns <= most; ++columns) out.push_back({rows * side, columns * side});
  return out;
}

TEST_CASE("the canvas that keeps most pixels wins, then the one that wastes least, then the first") {
  const auto choices = grid(384, 3);
  CHECK(best_canvas({384, 384}, choices) ==
        PictureSize{384, 384});  // all keep everything; this wastes nothing
  CHECK(best_canvas({384, 768}, choices) == PictureSize{384, 768});
  CHECK(best_canvas({700, 1000}, choices) == PictureSize{768, 1152});
  CHECK(best_canvas({4000, 1000}, choices) == PictureSize{1152, 384});  // four times as tall as wide
  CHECK(best_canvas({10, 10}, std::vector<PictureSize>{{20, 10}, {10, 20}}) == PictureSize{20, 10});
}

TEST_CASE("a picture fills one side of its canvas, the other is rounded up") {
  CHECK(fit_into({700, 1000}, {768, 1152}) == PictureSize{768, 1098});  // 1000 · 768 / 700 = 1097.1
  CHECK(fit_into({100, 300}, {768, 1152}) == PictureSize{384, 1152});
  for (int height = 1; height < 60; ++height)
    for (int width = 1; width < 60; ++width) {
      const PictureSize fitted = fit_into({height, width}, {40, 50});
      REQUIRE((fitted.height == 40 || fitted.width == 50));
      REQUIRE((fitted.height >= 1 && fitted.height <= 40 && fitted.width >= 1 && fitted.width <= 50));
    }
}

TEST_CASE("a mosaic loses what shows padding, and shrinks when it is too large") {
  // 27 rows a tile, two tiles wide: a picture three times as wide as high leaves 18 of 27 rows.
  const Mosaic wide = mosaic_of({100, 300}, {1, 2}, 27, 9);
  CHECK(wide.rows == 27 - 2 * ((27 - 18) / 2));
  CHECK(wide.columns == 54);
  CHECK(wide.out_rows == wide.rows);
  CHECK(wide.out_columns == wide.columns);
  const Mosaic tall = mosaic_of({300, 100}, {2, 1}, 27, 9);
  CHECK(tall.columns == wide.rows);
  CHECK(tall.rows == wide.columns);
  // 6 x 6 tiles where 4 are allowed: both sides by sqrt(36 / 4) = 3.
  const Mosaic large = mosaic_of({600, 600}, {6, 6}, 10, 4);
  CHECK(large.out_rows == 20);
  CHECK(large.out_columns == 20);
  // Up to 1.1 times too long along an edge, it stays.
  CHECK(mosaic_of({100, 100}, {2, 2}, 5, 4).out_rows == 10);
  for (int height = 1; height < 80; height += 3)
    for (int width = 1; width < 80; width += 3) {
      const Mosaic m = mosaic_of({height, width}, {2, 3}, 9, 2);
      REQUIRE(m.rows >= 0);  // a hair of a picture leaves nothing, as in transformers
      REQUIRE(m.columns >= 0);
      REQUIRE(m.top * 2 + m.rows == 18);
      REQUIRE(m.left * 2 + m.columns == 27);
    }
}

TEST_CASE("rows and columns of tiles: even sides, then whole tiles, and small pictures in one piece") {
  const TileSplit wide = split_of({600, 1000}, 2048, 512);
  CHECK(wide.first == PictureSize{1228, 2048});  // 2048 · 0.6 = 1228.8
  CHECK(wide.second == PictureSize{1536, 2048});
  CHECK(wide.grid == TileGrid{3, 4});
  const TileSplit odd = split_of({333, 1000}, 1000, 512);
  CHECK(odd.first == PictureSize{334, 1000});  // an odd height is made even
  const TileSplit turned = split_of({1000, 600}, 2048, 512);
  CHECK(turned.first == PictureSize{2048, 1228});
  CHECK(turned.grid == TileGrid{4, 3});
  CHECK(split_of({300, 400}, 512, 512).grid == TileGrid{});
  CHECK(split_of({1, 5000}, 512, 64).grid.rows == 1);  // a hair keeps a height
}

}  // namespace
}  // namespace mcit::test
