#include "mini/canvas.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "mcit/errors.hpp"
#include "mini_support.hpp"

using namespace mcit;
using namespace mcit::mini;
using mcit::mini::testing::pack;

namespace {

Place at(float x, float y, float size) {
  Place place;
  place.x = x;
  place.y = y;
  place.width = place.height = size;
  return place;
}

/// Area of what is white, in pixels.
double covered(const Canvas& canvas) {
  double area = 0;
  for (std::size_t i = 0; i < canvas.pixels().size(); i += 3) area += canvas.pixels()[i] / 255.0;
  return area;
}

}  // namespace

TEST_CASE("shapes cover the area of their geometry") {
  // Side or diameter 40, white on black. Square: sides at 0.88 of the half size. Triangle: (x, y) with
  // |x| <= (y + 0.9) / 1.7 up to y = 0.8, so base 2 and height 1.7 in half sizes. Cross: two bars of width
  // 0.64 * 20.
  const auto area = [](ShapeKind kind) {
    Canvas canvas;
    canvas.shape(kind, at(32, 32, 40), {255, 255, 255}, 1);
    return covered(canvas);
  };
  const auto near = [](double found, double expected) {
    return std::abs(found - expected) < 0.04 * expected;
  };
  CHECK(near(area(ShapeKind::kCircle), 3.14159 * 20 * 20));
  CHECK(near(area(ShapeKind::kSquare), 35.2 * 35.2));
  CHECK(near(area(ShapeKind::kRectangle), 40 * 40));
  CHECK(near(area(ShapeKind::kTriangle), 0.5 * 2 * 1.7 * 20 * 20));
  CHECK(near(area(ShapeKind::kCross), 2 * 40 * 12.8 - 12.8 * 12.8));
  // A star of ten triangles, tip at 1 and notch at 0.45, with 36 degrees between: 10 * 0.5 * 0.45 * sin 36.
  CHECK(near(area(ShapeKind::kStar), 5 * 0.45 * 0.587785 * 20 * 20));
}

TEST_CASE("a quarter turn of a rectangle exchanges its sides") {
  Place lying = at(32, 32, 40);
  lying.height = 10;
  Place standing = at(32, 32, 40);
  standing.width = 10;
  lying.angle = 1.5707964F;
  Canvas turned, upright;
  turned.shape(ShapeKind::kRectangle, lying, {255, 255, 255}, 1);
  upright.shape(ShapeKind::kRectangle, standing, {255, 255, 255}, 1);
  CHECK(turned.pixels() == upright.pixels());
}

TEST_CASE("patches name what covers them") {
  Canvas canvas;
  canvas.shape(ShapeKind::kRectangle, at(16, 16, 32), {255, 0, 0}, 5);  // the top left quarter
  canvas.shape(ShapeKind::kRectangle, at(48, 48, 32), {0, 255, 0}, 7);  // the bottom right quarter
  CHECK(canvas.patches(2) == std::vector<std::int16_t>{5, 0, 0, 7});
  const auto fine = canvas.patches(8);
  CHECK(std::count(fine.begin(), fine.end(), 5) == 16);
  CHECK(std::count(fine.begin(), fine.end(), 7) == 16);
  // A pixel of 64 is too little to name a patch.
  canvas.shape(ShapeKind::kRectangle, at(60.5F, 4.5F, 1), {0, 0, 255}, 9);
  CHECK(canvas.patches(8)[7] == 0);
}

TEST_CASE("a drawing is painted with its own pixels at its own size") {
  const Texture& drawing = pack().concepts.front().by(Vendor::kTwemoji);
  Canvas canvas;  // black, so premultiplied colour is what is left
  canvas.draw(drawing, at(32, 32, 64), {}, 1);
  const Raster& source = drawing.levels[0];
  int worst = 0;
  for (int i = 0; i < kSide * kSide; ++i) {
    for (int c = 0; c < 3; ++c) {
      const int painted = canvas.pixels()[static_cast<std::size_t>(3 * i + c)];
      worst = std::max(worst, std::abs(painted - source.data[static_cast<std::size_t>(4 * i + c)]));
    }
  }
  CHECK(worst <= 1);
  // Mirrored twice is the picture again.
  Place flipped = at(32, 32, 64);
  flipped.mirror = true;
  Canvas mirrored;
  mirrored.draw(drawing, flipped, {}, 1);
  CHECK(mirrored.pixels() != canvas.pixels());
  for (int y = 0; y < kSide; y += 7) {
    for (int x = 0; x < kSide; ++x) {
      const auto here = static_cast<std::size_t>(3 * (y * kSide + x));
      const auto there = static_cast<std::size_t>(3 * (y * kSide + kSide - 1 - x));
      REQUIRE(std::abs(canvas.pixels()[here] - mirrored.pixels()[there]) <= 1);
    }
  }
}

TEST_CASE("text is as wide as it says, and its letters are told apart") {
  const Face& face = pack().faces.front();
  Canvas canvas;
  const float width = canvas.text(face, "HI", 30, at(32, 32, 0), {255, 255, 255}, {3, 4});
  CHECK(width == text_width(face, "HI", 30));
  int left = kSide, right = 0;
  for (int i = 0; i < kSide * kSide; ++i) {
    if (canvas.pixels()[static_cast<std::size_t>(3 * i)] > 127)
      left = std::min(left, i % kSide), right = std::max(right, i % kSide);
  }
  CHECK(right - left <= static_cast<int>(width) + 1);
  CHECK(right - left >= static_cast<int>(width) - 8);  // side bearings
  CHECK(std::abs((left + right) / 2 - 32) <= 2);
  const auto patches = canvas.patches(8);
  CHECK(std::count(patches.begin(), patches.end(), 3) >
        std::count(patches.begin(), patches.end(), 4));  // H is wider
  CHECK(std::count(patches.begin(), patches.end(), 4) > 0);
}

TEST_CASE("PNG bytes read back as the same picture") {
  Raster picture(5, 3, 3);
  for (std::size_t i = 0; i < picture.data.size(); ++i) picture.data[i] = static_cast<std::uint8_t>(17 * i);
  const mcit::mini::testing::TemporaryFolder folder;
  const auto file = folder.path() / "p.png";
  const std::string bytes = encode_png(picture);
  CHECK(bytes == encode_png(picture));
  std::FILE* out = std::fopen(file.c_str(), "wb");
  REQUIRE(std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size());
  std::fclose(out);
  const Raster back = read_png(file, 3);
  CHECK(back.width == 5);
  CHECK(back.height == 3);
  CHECK(back.data == picture.data);
  CHECK_THROWS_AS(crop(picture, 3, 0, 3, 3), DataError);
  CHECK_THROWS_AS(crop(picture, 0, -1, 3, 3), DataError);
}
