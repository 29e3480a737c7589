#include "report/svg.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "core/console.hpp"
#include "core/text.hpp"

namespace mcit::svg {
namespace {

constexpr double kAdvance = 7.2;  // mean width of a letter of the sans-serif face at kFont

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

Colour colour_of(double share_of_all) {
  const double place = std::clamp(share_of_all, 0.0, 1.0) * static_cast<double>(kScale.size() - 1);
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

}  // namespace

std::string fill(double share) { return hex(colour_of(share)); }

const char* ink(double share) {
  const Colour c = colour_of(share);
  return 0.2126 * c.red + 0.7152 * c.green + 0.0722 * c.blue > 120.0 ? "#000" : "#fff";
}

int text_width(const std::string& text) {
  return static_cast<int>(std::ceil(kAdvance * console::columns(text)));
}

void Canvas::rectangle(int x, int y, int w, int h, const std::string& colour, const std::string& more) {
  body_ += "<rect x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\" width=\"" +
           std::to_string(w) + "\" height=\"" + std::to_string(h) + "\" fill=\"" + colour + "\"" + more +
           "/>\n";
}

void Canvas::text(int x, int y, const std::string& words, const std::string& more) {
  body_ += "<text x=\"" + std::to_string(x) + "\" y=\"" + std::to_string(y) + "\"" + more + ">" +
           escaped(words) + "</text>\n";
}

void Canvas::polyline(const std::vector<std::pair<double, double>>& points, const std::string& colour) {
  body_ += "<polyline fill=\"none\" stroke=\"" + colour + "\" stroke-width=\"1.5\" points=\"";
  for (const auto& [x, y] : points) body_ += fixed(x, 1) + "," + fixed(y, 1) + " ";
  body_ += "\"/>\n";
}

std::string Canvas::document(int width, int height, const std::string& title) const {
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + std::to_string(width) + "\" height=\"" +
         std::to_string(height) + "\" viewBox=\"0 0 " + std::to_string(width) + " " + std::to_string(height) +
         "\" font-family=\"sans-serif\" font-size=\"" + std::to_string(kFont) + "\">\n<title>" +
         escaped(title) +
         "</title>\n<defs><pattern id=\"missing\" width=\"8\" height=\"8\" patternUnits=\"userSpaceOnUse\" "
         "patternTransform=\"rotate(45)\"><rect width=\"8\" height=\"8\" fill=\"#f4f4f4\"/><rect width=\"2\" "
         "height=\"8\" fill=\"#c8c8c8\"/></pattern></defs>\n<rect x=\"0\" y=\"0\" width=\"" +
         std::to_string(width) + "\" height=\"" + std::to_string(height) + "\" fill=\"#fff\"/>\n<text x=\"" +
         std::to_string(kPad) + "\" y=\"" + std::to_string(kPad + 14) +
         "\" font-size=\"16\" font-weight=\"bold\">" + escaped(title) + "</text>\n" + body_ + "</svg>\n";
}

}  // namespace mcit::svg
