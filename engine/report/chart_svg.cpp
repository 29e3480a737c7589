#include "report/chart_svg.hpp"

#include <cmath>

#include "core/text.hpp"
#include "report/chart.hpp"

namespace mcit::chart {
namespace {

std::string number(double value) {
  std::string out = fixed(value, 1);
  if (out.ends_with(".0")) out.resize(out.size() - 2);
  return out;
}

std::string attribute(const char* name, double value) {
  return std::string(" ") + name + "=\"" + number(value) + "\"";
}

std::string at(double x, double y) { return number(x) + " " + number(y); }

}  // namespace

std::string tick_text(double tick) { return shortest(std::round(tick * 1e3) / 1e3 + 0.0); }

std::string svg_pair(double x, double y) { return number(x) + "," + number(y) + " "; }

std::string svg_line(double x1, double y1, double x2, double y2, const char* style) {
  return std::string("<line class=\"") + style + "\"" + attribute("x1", x1) + attribute("y1", y1) +
         attribute("x2", x2) + attribute("y2", y2) + "/>";
}

std::string svg_text(double x, double y, const std::string& escaped, const char* style) {
  return std::string("<text class=\"") + style + "\"" + attribute("x", x) + attribute("y", y) + ">" +
         escaped + "</text>";
}

std::string svg_slanted(double x, double y, const std::string& escaped, const char* style) {
  return std::string("<text class=\"") + style + "\" transform=\"translate(" + at(x, y) + ") rotate(-40)\">" +
         escaped + "</text>";
}

std::string svg_document(double width, double height, const std::string& says, const std::string& body) {
  return "<svg viewBox=\"0 0 " + at(width, height) + "\" role=\"img\" aria-label=\"" + says + "\">" + body +
         "</svg>";
}

std::string series_class(int colour) {
  return colour == kNeutral ? "cn" : "c" + std::to_string(colour % kColours);
}

std::string marker(int colour, double x, double y, double r) {
  const auto move = [](double dx, double dy) { return "l" + at(dx, dy); };
  switch (colour == kNeutral ? 0 : colour % 6) {
    case 1:  // square
      return "M" + at(x - r, y - r) + "h" + number(2 * r) + "v" + number(2 * r) + "h" + number(-2 * r) + "z";
    case 2:  // triangle
      return "M" + at(x, y - 1.25 * r) + move(1.2 * r, 2.1 * r) + "h" + number(-2.4 * r) + "z";
    case 3:  // diamond
      return "M" + at(x, y - 1.4 * r) + move(1.4 * r, 1.4 * r) + move(-1.4 * r, 1.4 * r) +
             move(-1.4 * r, -1.4 * r) + "z";
    case 4:  // triangle on its tip
      return "M" + at(x, y + 1.25 * r) + move(1.2 * r, -2.1 * r) + "h" + number(-2.4 * r) + "z";
    case 5:  // bar
      return "M" + at(x - 0.6 * r, y - 1.5 * r) + "h" + number(1.2 * r) + "v" + number(3 * r) + "h" +
             number(-1.2 * r) + "z";
    default:  // circle
      return "M" + at(x - r, y) + "a" + at(r, r) + " 0 1 0 " + at(2 * r, 0) + "a" + at(r, r) + " 0 1 0 " +
             at(-2 * r, 0) + "z";
  }
}

std::string key_mark(int colour) {
  return "<svg class=\"key " + series_class(colour) +
         "\" viewBox=\"0 0 22 12\" aria-hidden=\"true\"><path class=\"line\" d=\"M1 6H21\"/><path "
         "class=\"point\" d=\"" +
         marker(colour, 11, 6, 3.6) + "\"/></svg>";
}

}  // namespace mcit::chart
