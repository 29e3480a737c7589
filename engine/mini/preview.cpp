#include "mini/preview.hpp"

#include <algorithm>

#include "mini/canvas.hpp"
#include "mini/phrases.hpp"

namespace mcit::mini {
namespace {

constexpr int kWidth = 150;  // of a cell
constexpr int kHeight = 204;
constexpr int kLine = 12;     // pixels from baseline to baseline
constexpr int kPerLine = 25;  // characters
constexpr int kMostLines = 6;

std::vector<std::string> wrapped(const std::vector<std::string>& lines) {
  std::vector<std::string> result;
  for (const std::string& line : lines) {
    std::string current;
    for (const std::string& word : phrases::words_of(line)) {
      if (!current.empty() && current.size() + 1 + word.size() > kPerLine) {
        result.push_back(current);
        current.clear();
      }
      current += (current.empty() ? "" : " ") + word;
    }
    result.push_back(current);
  }
  if (result.size() > kMostLines) result.resize(kMostLines);
  return result;
}

/// Prints one line at a quarter of the glyphs' size, its baseline at y.
void print(const Face& face, const std::string& line, int x, int y, Raster& sheet) {
  for (const char c : line) {
    const auto index = kGlyphs.find(c);
    if (index == std::string_view::npos) {
      x += 3;
      continue;
    }
    const Glyph& glyph = face.glyphs[index];
    const Raster& ink = glyph.ink.levels[2];
    for (int row = 0; row < ink.height; ++row) {
      for (int column = 0; column < ink.width; ++column) {
        const int px = x + glyph.left / 4 + column;
        const int py = y - glyph.top / 4 + row;
        if (px < 0 || py < 0 || px >= sheet.width || py >= sheet.height) continue;
        for (int channel = 0; channel < 3; ++channel) {
          std::uint8_t& value = sheet.at(px, py)[channel];
          value = static_cast<std::uint8_t>(value * (255 - *ink.at(column, row)) / 255);
        }
      }
    }
    x += (glyph.advance + 2) / 4;
  }
}

}  // namespace

Raster contact_sheet(const Pack& pack, const std::vector<PreviewCell>& cells, int columns) {
  const int rows = (static_cast<int>(cells.size()) + columns - 1) / columns;
  Raster sheet(columns * kWidth, std::max(rows, 1) * kHeight, 3);
  std::fill(sheet.data.begin(), sheet.data.end(), std::uint8_t{255});
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const int left = static_cast<int>(i) % columns * kWidth;
    const int top = static_cast<int>(i) / columns * kHeight;
    const Raster& picture = cells[i].picture;
    for (int y = 0; y < 2 * picture.height; ++y) {
      for (int x = 0; x < 2 * picture.width; ++x)
        std::copy_n(picture.at(x / 2, y / 2), 3, sheet.at(left + x, top + y));
    }
    int baseline = top + 2 * kSide + kLine;
    for (const std::string& line : wrapped(cells[i].lines)) {
      print(pack.faces.front(), line, left, baseline, sheet);
      baseline += kLine;
    }
  }
  return sheet;
}

}  // namespace mcit::mini
