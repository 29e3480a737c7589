#include "mini/canvas.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mcit::mini {
namespace {

Color random_color(Rng& rng) { return {between(rng, 0, 255), between(rng, 0, 255), between(rng, 0, 255)}; }

float luminance(Color c) { return 0.299F * c.r + 0.587F * c.g + 0.114F * c.b; }

Color mix(Color a, Color b, float t) {
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

float distance(Color a, Color b) { return std::hypot(a.r - b.r, a.g - b.g, a.b - b.b); }

std::uint8_t to_byte(float value) {
  return static_cast<std::uint8_t>(std::clamp(value, 0.0F, 255.0F) + 0.5F);
}

/// Bilinear sample of every channel at texture position (u, v) in pixels; nothing lies beyond the edges.
template <int Channels>
std::array<float, Channels> sample(const Raster& raster, float u, float v) {
  const float fu = std::floor(u - 0.5F);
  const float fv = std::floor(v - 0.5F);
  const int x = static_cast<int>(fu);
  const int y = static_cast<int>(fv);
  const float a = u - 0.5F - fu;
  const float b = v - 0.5F - fv;
  std::array<float, Channels> result{};
  for (int j = 0; j < 2; ++j) {
    for (int i = 0; i < 2; ++i) {
      const int sx = x + i;
      const int sy = y + j;
      if (sx < 0 || sy < 0 || sx >= raster.width || sy >= raster.height) continue;
      const float weight = (i ? a : 1 - a) * (j ? b : 1 - b);
      const std::uint8_t* texel = raster.at(sx, sy);
      for (std::size_t c = 0; c < Channels; ++c) result[c] += weight * static_cast<float>(texel[c]);
    }
  }
  return result;
}

/// The coarsest level that still has about a texel for each pixel.
const Raster& level_for(const Texture& texture, float width, int softer) {
  const float ratio = static_cast<float>(texture.levels[0].width) / std::max(width, 1.0F);
  const int level = (ratio > 3.0F ? 2 : ratio > 1.5F ? 1 : 0) + softer;
  return texture.levels[static_cast<std::size_t>(std::min(level, 2))];
}

/// Whether (x, y) in -1..1 lies in the shape.
bool inside(ShapeKind kind, float x, float y) {
  switch (kind) {
    case ShapeKind::kCircle:
      return x * x + y * y <= 1;
    case ShapeKind::kSquare:
      return std::max(std::abs(x), std::abs(y)) <= 0.88F;
    case ShapeKind::kRectangle:
      return std::abs(x) <= 1 && std::abs(y) <= 1;  // the place has its proportions
    case ShapeKind::kTriangle:
      return y <= 0.8F && std::abs(x) <= (y + 0.9F) / 1.7F;
    case ShapeKind::kCross:
      return std::max(std::abs(x), std::abs(y)) <= 1 && std::min(std::abs(x), std::abs(y)) <= 0.32F;
    case ShapeKind::kStar: {
      // Five arms: within one arm's wedge the edge is a straight line from the tip to the notch.
      constexpr float kWedge = 2 * std::numbers::pi_v<float> / 5;
      float angle = std::atan2(x, -y);
      angle = std::abs(angle - kWedge * std::round(angle / kWedge));
      const float r = std::hypot(x, y);
      const float px = r * std::cos(angle);
      const float py = r * std::sin(angle);
      constexpr float kNotchX = 0.45F * 0.809017F;
      constexpr float kNotchY = 0.45F * 0.587785F;
      return (px - 1) * kNotchY - py * (kNotchX - 1) <= 0;
    }
  }
  return false;
}

}  // namespace

const std::vector<NamedColor>& named_colors() {
  static const std::vector<NamedColor> colors{
      {"red", {222, 34, 34}},     {"green", {30, 190, 50}},   {"blue", {34, 70, 228}},
      {"yellow", {248, 226, 30}}, {"orange", {248, 142, 22}}, {"purple", {134, 44, 176}},
      {"pink", {250, 140, 190}},  {"brown", {138, 72, 32}},   {"black", {16, 16, 16}},
      {"white", {244, 244, 244}}, {"gray", {128, 128, 128}},  {"teal", {0, 132, 130}}};
  return colors;
}

const std::vector<std::string_view>& shape_names() {
  static const std::vector<std::string_view> names{"circle", "square", "triangle",
                                                   "star",   "cross",  "rectangle"};
  return names;
}

Place somewhere(Rng& rng, float smallest, float largest) {
  Place where;
  where.width = where.height = between(rng, smallest, largest);
  const float free = std::max(0.0F, (kSide - where.width) / 2);
  where.x = 32 + between(rng, -free, free);
  where.y = 32 + between(rng, -free, free);
  return where;
}

Paint random_paint(Rng& rng, double strength) {
  Paint paint;
  if (strength <= 0) return paint;
  // Hue turn, saturation and contrast as one matrix in RGB: grey axis kept, chroma turned and scaled.
  const float turn = between(rng, -0.4, 0.4) * static_cast<float>(strength);
  const float saturation = 1 + between(rng, -0.45, 0.35) * static_cast<float>(strength);
  const float contrast = 1 + between(rng, -0.3, 0.25) * static_cast<float>(strength);
  const float cosine = std::cos(turn) * saturation;
  const float sine = std::sin(turn) * saturation / std::sqrt(3.0F);
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) {
      const float diagonal = i == j ? 1.0F : 0.0F;
      const float cross = i == j ? 0.0F : ((j - i + 3) % 3 == 1 ? -1.0F : 1.0F);
      paint.matrix[static_cast<std::size_t>(3 * i + j)] =
          contrast * (1.0F / 3 + cosine * (diagonal - 1.0F / 3) + sine * cross);
    }
  }
  const float lift = 128 * (1 - contrast) + between(rng, -28, 28) * static_cast<float>(strength);
  paint.offset = {lift, lift, lift};
  if (rng.chance(0.5 * strength)) {
    paint.shade_x = between(rng, -0.3, 0.3);
    paint.shade_y = between(rng, -0.4, 0.3);
  }
  if (rng.chance(0.15 * strength)) paint.softer = 1;
  paint.outline = rng.chance(0.15 * strength);
  if (paint.outline) {
    const float grey = rng.chance(0.7) ? between(rng, 0, 70) : between(rng, 200, 255);
    paint.outline_color = {grey, grey, grey};
  }
  return paint;
}

Canvas::Canvas() {
  pixels_.fill(0);
  labels_.fill(0);
}

void Canvas::blend(int index, Color color, float alpha) {
  std::uint8_t* pixel = pixels_.data() + 3 * index;
  const auto over = [alpha](std::uint8_t below, float above) {
    return to_byte(static_cast<float>(below) + (above - static_cast<float>(below)) * alpha);
  };
  pixel[0] = over(pixel[0], color.r);
  pixel[1] = over(pixel[1], color.g);
  pixel[2] = over(pixel[2], color.b);
}

/// Calls sample(x, y) with the position inside the place, -1..1 in both directions, for every pixel that it
/// may touch
/// (`reach`: how far beyond the place, as a factor); sample gives colour and coverage.
template <class Sample>
void Canvas::paint(const Place& place, float reach, int label, const Sample& sample) {
  const float cosine = std::cos(place.angle);
  const float sine = std::sin(place.angle);
  const float half_w = place.width / 2;
  const float half_h = place.height / 2;
  const float extent_x = reach * (std::abs(cosine) * half_w + std::abs(sine) * half_h);
  const float extent_y = reach * (std::abs(sine) * half_w + std::abs(cosine) * half_h);
  const int x0 = std::max(0, static_cast<int>(std::floor(place.x - extent_x)));
  const int x1 = std::min(kSide - 1, static_cast<int>(std::ceil(place.x + extent_x)));
  const int y0 = std::max(0, static_cast<int>(std::floor(place.y - extent_y)));
  const int y1 = std::min(kSide - 1, static_cast<int>(std::ceil(place.y + extent_y)));
  for (int y = y0; y <= y1; ++y) {
    for (int x = x0; x <= x1; ++x) {
      const float dx = static_cast<float>(x) + 0.5F - place.x;
      const float dy = static_cast<float>(y) + 0.5F - place.y;
      const float across = (cosine * dx - sine * dy) / half_w;
      const float down = (sine * dx + cosine * dy) / half_h;
      const auto [color, alpha] = sample(place.mirror ? -across : across, down);
      if (alpha <= 0.004F) continue;
      blend(y * kSide + x, color, std::min(alpha, 1.0F));
      if (alpha > 0.5F) labels_[static_cast<std::size_t>(y * kSide + x)] = static_cast<std::int16_t>(label);
    }
  }
}

void Canvas::draw(const Texture& drawing, const Place& place, const Paint& how, int label) {
  const Raster& level = level_for(drawing, place.width, how.softer);
  const float half_u = static_cast<float>(level.width) / 2;
  const float half_v = static_cast<float>(level.height) / 2;
  if (how.outline) {
    for (const auto& [dx, dy] : {std::pair{-1.2F, 0.0F}, {1.2F, 0.0F}, {0.0F, -1.2F}, {0.0F, 1.2F}}) {
      Place moved = place;
      moved.x += dx;
      moved.y += dy;
      paint(moved, 1, label, [&](float x, float y) {
        return std::pair{how.outline_color, sample<4>(level, (x + 1) * half_u, (y + 1) * half_v)[3] / 255};
      });
    }
  }
  const auto& m = how.matrix;
  paint(place, 1 + std::abs(place.wave), label, [&](float x, float y) {
    float light = 1 + how.shade_x * x + how.shade_y * y;
    if (place.wave != 0) {
      const float swing = 4 * x + place.phase;
      y += 2 * place.wave * std::sin(swing);
      light *= 1 + 1.5F * place.wave * std::cos(swing);
    }
    const auto texel = sample<4>(level, (x + 1) * half_u, (y + 1) * half_v);
    if (texel[3] < 1) return std::pair{Color{}, 0.0F};
    const float alpha = texel[3] / 255;
    const float r = texel[0] / alpha;
    const float g = texel[1] / alpha;
    const float b = texel[2] / alpha;
    return std::pair{Color{(m[0] * r + m[1] * g + m[2] * b + how.offset.r) * light,
                           (m[3] * r + m[4] * g + m[5] * b + how.offset.g) * light,
                           (m[6] * r + m[7] * g + m[8] * b + how.offset.b) * light},
                     alpha};
  });
}

void Canvas::shape(ShapeKind kind, const Place& place, Color color, int label) {
  const float step_x = 0.5F / place.width;  // a quarter of a pixel
  const float step_y = 0.5F / place.height;
  paint(place, 1.05F, label, [&](float x, float y) {
    int hits = 0;
    for (const float sy : {-step_y, step_y}) {
      for (const float sx : {-step_x, step_x}) hits += inside(kind, x + sx, y + sy) ? 1 : 0;
    }
    return std::pair{color, static_cast<float>(hits) / 4};
  });
}

float text_width(const Face& face, std::string_view line, float em) {
  int width = 0;
  for (const char c : line) width += face.glyphs[kGlyphs.find(c)].advance;
  return static_cast<float>(width) * em / kGlyphEm;
}

float Canvas::text(const Face& face, std::string_view line, float em, const Place& place, Color color,
                   const std::vector<int>& labels) {
  const float scale = em / kGlyphEm;
  const float width = text_width(face, line, em);
  const float cosine = std::cos(place.angle);
  const float sine = std::sin(place.angle);
  constexpr float kBaseline = 0.36F * kGlyphEm;  // half the height of a capital: centres the line
  float pen = -width / 2;
  for (std::size_t i = 0; i < line.size(); ++i) {
    const Glyph& glyph = face.glyphs[kGlyphs.find(line[i])];
    const Raster& full = glyph.ink.levels[0];
    Place box = place;
    box.width = static_cast<float>(full.width) * scale;
    box.height = static_cast<float>(full.height) * scale;
    const float cx = pen + (static_cast<float>(glyph.left) + static_cast<float>(full.width) / 2) * scale;
    const float cy =
        (kBaseline - static_cast<float>(glyph.top) + static_cast<float>(full.height) / 2) * scale;
    box.x = place.x + cosine * cx + sine * cy;
    box.y = place.y - sine * cx + cosine * cy;
    box.mirror = false;
    const int shrink = scale < 0.36F ? 2 : scale < 0.7F ? 1 : 0;
    const Raster& level = glyph.ink.levels[static_cast<std::size_t>(shrink)];
    // Level sizes are rounded up, so positions go by the full size and the level's exact factor.
    const float to_u = static_cast<float>(full.width) / static_cast<float>(2 << shrink);
    const float to_v = static_cast<float>(full.height) / static_cast<float>(2 << shrink);
    paint(box, 1.1F, labels[i], [&](float x, float y) {
      return std::pair{color, sample<1>(level, (x + 1) * to_u, (y + 1) * to_v)[0] / 255};
    });
    // The ink is thin: the whole box counts as the letter.
    const int x1 = std::min(kSide, static_cast<int>(box.x + box.width / 2) + 1);
    const int y1 = std::min(kSide, static_cast<int>(box.y + box.height / 2) + 1);
    for (int y = std::max(0, static_cast<int>(box.y - box.height / 2)); y < y1; ++y) {
      for (int x = std::max(0, static_cast<int>(box.x - box.width / 2)); x < x1; ++x) {
        labels_[static_cast<std::size_t>(y * kSide + x)] = static_cast<std::int16_t>(labels[i]);
      }
    }
    pen += static_cast<float>(glyph.advance) * scale;
  }
  return width;
}

void Canvas::digit(const Digit& digit, const Place& place, Color color, float weight, int label) {
  Raster ink(8, 8, 1);
  std::transform(digit.ink.begin(), digit.ink.end(), ink.data.begin(),
                 [](std::uint8_t v) { return static_cast<std::uint8_t>(v * 15); });
  paint(place, 1, label, [&](float x, float y) {
    const float level = sample<1>(ink, (x + 1) * 4, (y + 1) * 4)[0] / 240;
    const float edge = std::clamp((level * weight - 0.3F) / 0.35F, 0.0F, 1.0F);
    return std::pair{color, edge * edge * (3 - 2 * edge)};
  });
}

void Canvas::background(Rng& rng, const Color* avoid, float contrast) {
  const auto pick = [&] {
    Color color = random_color(rng);
    // Half of them pale or dark, as paper and night are.
    if (rng.chance(0.5)) {
      const Color towards = rng.chance(0.75) ? Color{255, 255, 255} : Color{10, 10, 20};
      color = mix(color, towards, between(rng, 0.6, 1));
    }
    for (int i = 0; avoid && distance(color, *avoid) < contrast && i < 20; ++i) color = random_color(rng);
    return color;
  };
  const Color base = pick();
  Color other = pick();
  const int style = static_cast<int>(rng.below(8));  // 0-2 plain, 3-4 gradient, 5-6 blotches, 7 stripes
  if (style < 3) other = base;
  if (style >= 5) other = mix(base, other, between(rng, 0.1, 0.45));
  const float angle = between(rng, 0, 2 * std::numbers::pi);
  const float dx = std::cos(angle) / kSide;
  const float dy = std::sin(angle) / kSide;
  const float frequency = between(rng, 2, 7);
  Raster blotches(9, 9, 1);
  if (style >= 5) {
    for (std::uint8_t& value : blotches.data) value = static_cast<std::uint8_t>(rng.below(256));
  }
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      const float along = dx * static_cast<float>(x - 32) + dy * static_cast<float>(y - 32);
      float t = 0;
      if (style == 3 || style == 4) t = std::clamp(0.5F + along, 0.0F, 1.0F);
      if (style == 5 || style == 6)
        t = sample<1>(blotches, 0.5F + static_cast<float>(x) / 8, 0.5F + static_cast<float>(y) / 8)[0] / 255;
      if (style == 7) t = 0.5F + 0.5F * std::sin(2 * std::numbers::pi_v<float> * frequency * along);
      const Color color = mix(base, other, t);
      std::uint8_t* pixel = pixels_.data() + 3 * (y * kSide + x);
      pixel[0] = to_byte(color.r);
      pixel[1] = to_byte(color.g);
      pixel[2] = to_byte(color.b);
    }
  }
  labels_.fill(0);
}

void Canvas::fill(Color color) {
  const std::array<std::uint8_t, 3> bytes{to_byte(color.r), to_byte(color.g), to_byte(color.b)};
  for (std::size_t i = 0; i < pixels_.size(); ++i) pixels_[i] = bytes[i % 3];
  labels_.fill(0);
}

Raster Canvas::picture() const {
  Raster picture(kSide, kSide, 3);
  std::copy(pixels_.begin(), pixels_.end(), picture.data.begin());
  return picture;
}

Color Canvas::average() const {
  std::array<std::int64_t, 3> sum{};
  for (std::size_t i = 0; i < pixels_.size(); ++i) sum[i % 3] += pixels_[i];
  constexpr float kCount = kSide * kSide;
  return {static_cast<float>(sum[0]) / kCount, static_cast<float>(sum[1]) / kCount,
          static_cast<float>(sum[2]) / kCount};
}

void Canvas::finish(Rng& rng, double strength) {
  if (rng.chance(0.12 * strength)) {  // blur: 3 x 3 box, rows then columns
    auto soft = pixels_;
    for (const int stride : {3, 3 * kSide}) {
      for (int i = stride; i < static_cast<int>(soft.size()) - stride; ++i) {
        const auto p = static_cast<std::size_t>(i);
        const auto s = static_cast<std::size_t>(stride);
        soft[p] = static_cast<std::uint8_t>((pixels_[p - s] + 2 * pixels_[p] + pixels_[p + s] + 2) / 4);
      }
      pixels_ = soft;
    }
  }
  if (rng.chance(0.1 * strength)) {  // posterise
    const int step = 24 + static_cast<int>(rng.below(30));
    for (std::uint8_t& value : pixels_)
      value = static_cast<std::uint8_t>(std::min(255, value / step * step + step / 2));
  }
  if (rng.chance(0.3 * strength)) {  // grain
    const int reach = 2 + static_cast<int>(rng.below(10));
    std::uint64_t bits = 0;
    for (std::size_t i = 0; i < pixels_.size(); ++i) {
      if (i % 8 == 0) bits = rng.next();
      const int noise = (static_cast<int>(bits & 255) - 128) * reach / 128;
      bits >>= 8;
      pixels_[i] = static_cast<std::uint8_t>(std::clamp(pixels_[i] + noise, 0, 255));
    }
  }
}

std::vector<std::int16_t> Canvas::patches(int grid) const {
  const int size = kSide / grid;
  std::vector<std::int16_t> result;
  result.reserve(static_cast<std::size_t>(grid * grid));
  std::vector<std::int16_t> seen;
  for (int row = 0; row < grid; ++row) {
    for (int column = 0; column < grid; ++column) {
      seen.clear();
      for (int y = row * size; y < (row + 1) * size; ++y) {
        for (int x = column * size; x < (column + 1) * size; ++x) {
          const std::int16_t label = labels_[static_cast<std::size_t>(y * kSide + x)];
          if (label != 0) seen.push_back(label);
        }
      }
      std::sort(seen.begin(), seen.end());
      std::int16_t best = 0;
      std::ptrdiff_t most = size * size / 5;
      for (auto at = seen.begin(); at != seen.end();) {
        const auto end = std::upper_bound(at, seen.end(), *at);
        if (end - at > most) {
          most = end - at;
          best = *at;
        }
        at = end;
      }
      result.push_back(best);
    }
  }
  return result;
}

Color contrasting(Rng& rng, Color from, float contrast) {
  const float level = luminance(from);
  for (int i = 0; i < 30; ++i) {
    const Color color = random_color(rng);
    if (std::abs(luminance(color) - level) >= contrast) return color;
  }
  return level > 128 ? Color{10, 10, 10} : Color{245, 245, 245};
}

}  // namespace mcit::mini
