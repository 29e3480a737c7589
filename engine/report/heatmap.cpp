#include "report/heatmap.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "core/console.hpp"
#include "core/text.hpp"

namespace mcit {
namespace {

constexpr int kCellWidth = 64;
constexpr int kCellHeight = 34;
constexpr int kFont = 13;
constexpr double kAdvance = 7.2;  // mean width of a letter of the sans-serif face at that size
constexpr int kPad = 16;

struct Colour {
  double red;
  double green;
  double blue;
};

/// Viridis at 0, 1/8 … 1 (van der Walt, Smith 2015): even to the eye, readable without colour vision.
constexpr std::array<Colour, 9> kScale = {{{68, 1, 84},
                                           {71, 45, 123},
                                           {59, 82, 139},
                                           {44, 114, 142},
                                           {33, 145, 140},
                                           {40, 174, 128},
                                           {94, 201, 98},
                                           {173, 220, 48},
                                           {253, 231, 37}}};

Colour colour_of(double percent) {
  const double place = std::clamp(percent / 100.0, 0.0, 1.0) * static_cast<double>(kScale.size() - 1);
  const auto low = std::min(static_cast<std::size_t>(place), kScale.size() - 2);
  const double share = place - static_cast<double>(low);
  const auto mixed = [share](double a, double b) { return a + share * (b - a); };
  const Colour& a = kScale[low];
  const Colour& b = kScale[low + 1];
  return {mixed(a.red, b.red), mixed(a.green, b.green), mixed(a.blue, b.blue)};
}

std::string hex(const Colour& c) {
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", static_cast<unsigned>(std::lround(c.red)),
                static_cast<unsigned>(std::lround(c.green)), static_cast<unsigned>(std::lround(c.blue)));
  return text;
}

/// Black on light cells, white on dark ones, by relative luminance.
const char* ink_on(const Colour& c) {
  return 0.2126 * c.red + 0.7152 * c.green + 0.0722 * c.blue > 120.0 ? "#000" : "#fff";
}

/// XML text; control characters, which XML cannot hold, become blanks.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out;
}

int text_width(const std::string& text) {
  return static_cast<int>(std::ceil(kAdvance * console::columns(text)));
}

struct Canvas {
  std::string body;

  void rectangle(int x, int y, int w, int h, const std::string& fill, const std::string& more = {}) {
    body += "<rect x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\" width=\"" +
            std::to_string(w) + "\" height=\"" + std::to_string(h) + "\" fill=\"" + fill + "\"" + more +
            "/>\n";
  }
  void text(int x, int y, const std::string& words, const std::string& more = {}) {
    body += "<text x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\"" + more + ">" +
            escaped(words) + "</text>\n";
  }
};

constexpr const char* kMiddle = " text-anchor=\"middle\"";
constexpr const char* kEnd = " text-anchor=\"end\"";

void draw_cell(Canvas& canvas, int x, int y, const AccuracyMatrix::Cell& cell, bool learned) {
  const std::string frame = learned ? " stroke=\"#d62728\" stroke-width=\"2\"" : " stroke=\"#fff\"";
  const int inset = learned ? 1 : 0;
  if (!cell) {
    canvas.rectangle(x + inset, y + inset, kCellWidth - 2 * inset, kCellHeight - 2 * inset, "url(#missing)",
                     frame);
    return;
  }
  const Colour colour = colour_of(*cell);
  canvas.rectangle(x + inset, y + inset, kCellWidth - 2 * inset, kCellHeight - 2 * inset, hex(colour), frame);
  canvas.text(x + kCellWidth / 2, y + kCellHeight / 2 + 5, fixed(*cell, 1),
              std::string(kMiddle) + " fill=\"" + ink_on(colour) + "\"");
}

void draw_scale(Canvas& canvas, int x, int y, int height) {
  for (int i = 0; i < 50; ++i) {  // fifty steps, each as tall as the rounding leaves it
    const int top = y + height * i / 50;
    canvas.rectangle(x, top, 14, y + height * (i + 1) / 50 - top, hex(colour_of(99.0 - 2.0 * i)));
  }
  canvas.text(x + 20, y + 10, "100 %");
  canvas.text(x + 20, y + height, "0 %");
}

}  // namespace

std::string heatmap_svg(const AccuracyMatrix& matrix, const std::string& title,
                        const std::vector<std::string>& stages) {
  const auto tasks = static_cast<int>(matrix.tasks());
  const auto rows = static_cast<int>(matrix.stages()) + 1;
  std::vector<std::string> labels{"base"};
  for (std::size_t i = 0; i + 1 < static_cast<std::size_t>(rows); ++i)
    labels.push_back(i < stages.size()           ? stages[i]
                     : i < matrix.names().size() ? matrix.names()[i]
                                                 : std::to_string(i + 1));
  int label_width = text_width("after stage");
  for (const std::string& label : labels) label_width = std::max(label_width, text_width(label));
  int name_width = 0;
  for (const std::string& name : matrix.names()) name_width = std::max(name_width, text_width(name));
  const bool slanted = name_width > kCellWidth - 6;
  const int names_height = slanted ? static_cast<int>(0.71 * name_width) + 24 : 24;
  const int left = kPad + label_width + 10;
  const int top = kPad + 26 + names_height;
  const int grid_height = rows * kCellHeight;
  const int right_reach = slanted ? static_cast<int>(0.71 * name_width) : 0;
  const int width = std::max(left + tasks * kCellWidth + std::max(90, right_reach - kCellWidth / 2) + kPad,
                             2 * kPad + text_width(title) * 5 / 4);
  const int height = top + grid_height + 24 + kPad;

  Canvas canvas;
  canvas.rectangle(0, 0, width, height, "#fff");
  canvas.text(kPad, kPad + 14, title, " font-size=\"16\" font-weight=\"bold\"");
  canvas.text(left - 10, top - 8, "after stage", std::string(kEnd) + " fill=\"#666\"");
  for (int j = 0; j < tasks; ++j) {
    const int x = left + j * kCellWidth + kCellWidth / 2;
    const std::string at = std::to_string(x) + " " + std::to_string(top - 8);
    canvas.text(x, top - 8, matrix.names()[static_cast<std::size_t>(j)],
                slanted ? " transform=\"rotate(-45 " + at + ")\"" : std::string(kMiddle));
  }
  for (int i = 0; i < rows; ++i) {
    const int y = top + i * kCellHeight;
    canvas.text(left - 10, y + kCellHeight / 2 + 5, labels[static_cast<std::size_t>(i)], kEnd);
    for (int j = 0; j < tasks; ++j)
      draw_cell(canvas, left + j * kCellWidth, y, matrix.at(i, j), i > 0 && matrix.learned_at(j) == i);
  }
  canvas.text(left, top + grid_height + 20, "framed: right after the task was learned", " fill=\"#666\"");
  draw_scale(canvas, left + tasks * kCellWidth + 16, top, grid_height);

  return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + std::to_string(width) + "\" height=\"" +
         std::to_string(height) + "\" viewBox=\"0 0 " + std::to_string(width) + " " + std::to_string(height) +
         "\" font-family=\"sans-serif\" font-size=\"" + std::to_string(kFont) + "\">\n<title>" +
         escaped(title) +
         "</title>\n<defs><pattern id=\"missing\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\" "
         "patternTransform=\"rotate(45)\"><rect width=\"8\" height=\"8\" fill=\"#f4f4f4\"/><rect width=\"2\" "
         "height=\"8\" fill=\"#c8c8c8\"/></pattern></defs>\n" +
         canvas.body + "</svg>\n";
}

}  // namespace mcit
