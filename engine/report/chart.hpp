#pragma once
/// Charts of a page as SVG: coloured by the page's style sheet, so that they follow light and dark. The
/// page's script draws line charts again on a canvas, from chart_json(). Private to this library.

#include <optional>
#include <string>
#include <vector>

#include "core/json.hpp"

namespace mcit::chart {

/// Series are told apart by colour and by the shape of their points; the number chooses both.
constexpr int kColours = 8;
/// What runs are measured against rather than compared: grey.
constexpr int kNeutral = -1;

struct Line {
  std::string label;
  int colour = 0;
  std::vector<std::optional<double>> values;
  std::vector<std::optional<double>> deviations{};  ///< drawn as a band of one to both sides; may be empty
};

struct LineChart {
  std::string id;              ///< of the element, unique in the page
  std::string title;           ///< shown above
  std::string says;            ///< for those who do not see it
  std::vector<std::string> x;  ///< names of the places on the horizontal axis
  std::vector<Line> lines;
  double low = 0.0, high = 100.0;
  std::optional<double> level{};      ///< a dotted horizontal line: chance
  std::optional<std::size_t> mark{};  ///< a vertical line: where the task is learned
  bool wide = false;                  ///< over the whole column instead of one of several
};

/// A figure with the SVG.
std::string line_chart(const LineChart& chart);
Json chart_json(const LineChart& chart);

struct Point {
  std::string label;
  int colour = 0;
  double x = 0.0, y = 0.0;
  std::optional<double> y_deviation{};
};
struct Scatter {
  std::string title, says, x_title, y_title;
  bool parameters = false;  ///< the horizontal axis counts parameters: "1.2 M"
  std::vector<Point> points;
};
/// A figure: labelled points, with a logarithmic horizontal axis where values differ tenfold.
std::string scatter(const Scatter& chart);

/// A small SVG of the series' point, for legends.
std::string key_mark(int colour);

/// Round numbers that cover low to high, about `count` of them.
std::vector<double> ticks(double low, double high, int count);

}  // namespace mcit::chart
