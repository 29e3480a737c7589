#pragma once
/// Words, boxes and lines of a stand-alone SVG, and the colours of its cells. Private to this library.

#include <string>
#include <utility>
#include <vector>

namespace mcit::svg {

constexpr int kFont = 13, kPad = 16, kCellWidth = 64, kCellHeight = 34;
constexpr const char* kMiddle = " text-anchor=\"middle\"";
constexpr const char* kEnd = " text-anchor=\"end\"";

/// "#rrggbb" of a share between 0 and 1: viridis (van der Walt, Smith 2015), even to the eye, readable
/// without colour vision.
std::string fill(double share);
/// Black on light cells, white on dark ones, by relative luminance.
const char* ink(double share);

/// About how many pixels a text takes.
int text_width(const std::string& text);

class Canvas {
 public:
  void rectangle(int x, int y, int w, int h, const std::string& colour, const std::string& more = {});
  void text(int x, int y, const std::string& words, const std::string& more = {});
  void polyline(const std::vector<std::pair<double, double>>& points, const std::string& colour);

  /// The whole document, on white, with a title above everything.
  std::string document(int width, int height, const std::string& title) const;

 private:
  std::string body_;
};

}  // namespace mcit::svg
