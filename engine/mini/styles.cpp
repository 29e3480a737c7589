#include "mini/styles.hpp"

#include <algorithm>
#include <cmath>

namespace mcit::mini {
namespace {

/// Paper where coverage is 0, ink where it is 1.
void lay(std::uint8_t* pixel, Color paper, Color ink, float coverage) {
  const auto over = [coverage](float below, float above) {
    return static_cast<std::uint8_t>(below + (above - below) * coverage + 0.5F);
  };
  pixel[0] = over(paper.r, ink.r);
  pixel[1] = over(paper.g, ink.g);
  pixel[2] = over(paper.b, ink.b);
}

float smooth(float value, float low, float high) {
  const float t = std::clamp((value - low) / (high - low), 0.0F, 1.0F);
  return t * t * (3 - 2 * t);
}

}  // namespace

Raster line_drawing(const Raster& picture, Color paper, Color ink) {
  Raster lines(picture.width, picture.height, 3);
  const auto value = [&](int x, int y, int channel) {
    return static_cast<float>(
        picture.at(std::clamp(x, 0, picture.width - 1), std::clamp(y, 0, picture.height - 1))[channel]);
  };
  for (int y = 0; y < picture.height; ++y) {
    for (int x = 0; x < picture.width; ++x) {
      float steepest = 0;  // Sobel's operator, of the channel where it is largest
      for (int c = 0; c < 3; ++c) {
        const float across = value(x + 1, y - 1, c) + 2 * value(x + 1, y, c) + value(x + 1, y + 1, c) -
                             value(x - 1, y - 1, c) - 2 * value(x - 1, y, c) - value(x - 1, y + 1, c);
        const float down = value(x - 1, y + 1, c) + 2 * value(x, y + 1, c) + value(x + 1, y + 1, c) -
                           value(x - 1, y - 1, c) - 2 * value(x, y - 1, c) - value(x + 1, y - 1, c);
        steepest = std::max(steepest, std::hypot(across, down) / 8);
      }
      lay(lines.at(x, y), paper, ink, smooth(steepest, 12, 50));
    }
  }
  return lines;
}

Raster negative(const Raster& picture) {
  Raster inverted = picture;
  for (std::uint8_t& value : inverted.data) value = static_cast<std::uint8_t>(255 - value);
  return inverted;
}

}  // namespace mcit::mini
