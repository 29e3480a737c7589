#pragma once
/// A 64 x 64 picture being painted: background, drawings, shapes, text, digits; and what covers each pixel.

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/random.hpp"
#include "mini/pack.hpp"

namespace mcit::mini {

/// An element of a list, each with the same chance.
template <class List>
const auto& pick(Rng& rng, const List& list) {
  return list[static_cast<std::size_t>(rng.below(list.size()))];
}

/// A number between low and high.
inline float between(Rng& rng, double low, double high) {
  return static_cast<float>(low + (high - low) * rng.uniform());
}

inline constexpr int kSide = 64;  ///< pictures are kSide x kSide RGB

struct Color {
  float r = 0, g = 0, b = 0;  ///< 0..255
};

struct NamedColor {
  std::string_view name;
  Color color;
};

/// The colours that shapes may have, each a word of the base.
const std::vector<NamedColor>& named_colors();

enum class ShapeKind { kCircle, kSquare, kTriangle, kStar, kCross, kRectangle };

/// "circle", "square", ... in the order of ShapeKind.
const std::vector<std::string_view>& shape_names();

/// Where a picture element goes: centre and size in pixels, turned counter-clockwise.
struct Place {
  float x = 32, y = 32;
  float width = 32, height = 32;
  float angle = 0;      ///< radians
  bool mirror = false;  ///< left and right swapped
  float wave = 0;       ///< height of a flutter, as a share of the height (flags)
  float phase = 0;      ///< of the flutter, radians
};

/// A square of random size that lies in the picture, wherever it fits.
Place somewhere(Rng& rng, float smallest, float largest);

/// Colour change of a drawing: out = matrix * in + offset, then darker to one side.
struct Paint {
  std::array<float, 9> matrix{1, 0, 0, 0, 1, 0, 0, 0, 1};
  Color offset;
  float shade_x = 0, shade_y = 0;  ///< relative change of brightness from centre to edge
  int softer = 0;                  ///< levels of the texture to skip: a blur
  bool outline = false;
  Color outline_color;
};

/// A random change of style; strength 0 leaves drawings as they are.
Paint random_paint(Rng& rng, double strength);

class Canvas {
 public:
  Canvas();

  /// Plain, gradient, blotches or stripes around a random colour, at least `contrast` away from `avoid`.
  void background(Rng& rng, const Color* avoid = nullptr, float contrast = 0);

  /// One colour everywhere.
  void fill(Color color);

  void draw(const Texture& drawing, const Place& place, const Paint& paint, int label);
  void shape(ShapeKind kind, const Place& place, Color color, int label);

  /// One line of text of a given em, centred on `place` (width and height are not used). Every glyph's box is
  /// labelled with labels[i]. Returns the width of the line in pixels.
  float text(const Face& face, std::string_view line, float em, const Place& place, Color color,
             const std::vector<int>& labels);

  /// A handwritten digit; `weight` > 1 makes the stroke bolder, < 1 thinner.
  void digit(const Digit& digit, const Place& place, Color color, float weight, int label);

  /// Blur, grain and posterisation of the whole picture, each at random.
  void finish(Rng& rng, double strength);

  const std::array<std::uint8_t, kSide * kSide * 3>& pixels() const { return pixels_; }
  Raster picture() const;  ///< the pixels, RGB
  Color average() const;   ///< mean colour

  /// For a grid of `grid` x `grid` patches: the label that covers most of each, if at least a fifth of it.
  std::vector<std::int16_t> patches(int grid) const;

 private:
  template <class Sample>
  void paint(const Place& place, float reach, int label, const Sample& sample);
  void blend(int index, Color color, float alpha);

  std::array<std::uint8_t, kSide * kSide * 3> pixels_;
  std::array<std::int16_t, kSide * kSide> labels_;
};

/// Width of a line of text of a given em, in pixels.
float text_width(const Face& face, std::string_view line, float em);

/// A random colour whose luminance is at least `contrast` away from that of `from`.
Color contrasting(Rng& rng, Color from, float contrast);

}  // namespace mcit::mini
