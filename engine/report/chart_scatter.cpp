#include <algorithm>
#include <array>
#include <cmath>

#include "core/console.hpp"
#include "core/text.hpp"
#include "report/chart.hpp"
#include "report/chart_svg.hpp"
#include "report/html.hpp"

namespace mcit::chart {
namespace {

constexpr double kWidth = 340.0, kHeight = 270.0, kLeft = 40.0, kRight = 12.0, kTop = 10.0, kBottom = 40.0;
constexpr int kLongestName = 28;

/// An axis from the values that it must show.
struct Axis {
  double low = 0.0, high = 1.0;
  bool logarithmic = false;

  double share(double value) const {
    return logarithmic ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
  }
  std::vector<double> marks() const {
    if (!logarithmic) return ticks(low, high, 4);
    std::vector<double> out;
    for (double decade = std::pow(10.0, std::floor(std::log10(low))); decade <= high; decade *= 10.0)
      for (const double nice : {1.0, 2.0, 5.0})
        if (nice * decade >= low && nice * decade <= high) out.push_back(nice * decade);
    while (out.size() > 5) {  // every other one
      std::vector<double> fewer;
      for (std::size_t i = 0; i < out.size(); i += 2) fewer.push_back(out[i]);
      out = std::move(fewer);
    }
    return out;
  }
};

Axis axis_over(std::vector<double> values, bool may_be_logarithmic) {
  const auto [least, most] = std::minmax_element(values.begin(), values.end());
  Axis out{*least, *most, may_be_logarithmic && *least > 0.0 && *most > 10.0 * *least};
  if (out.logarithmic) {
    out.low /= 1.5;
    out.high *= 1.5;
    return out;
  }
  const double room = std::max({0.15 * (out.high - out.low), 0.02 * std::abs(out.high), 1e-6});
  out.low = std::max(out.low >= 0.0 ? 0.0 : out.low - room, out.low - room);
  out.high += room;
  return out;
}

struct Box {
  double left, top, right, bottom;

  double shared(const Box& other) const {
    const double w = std::min(right, other.right) - std::max(left, other.left),
                 h = std::min(bottom, other.bottom) - std::max(top, other.top);
    return w > 0 && h > 0 ? w * h : 0.0;
  }
  double area() const { return (right - left) * (bottom - top); }
};

/// Where a label may stand, by preference: an offset of its anchor and the side that is anchored.
struct Place {
  double dx, dy;
  const char* style;  ///< of the text
};
constexpr std::array<Place, 14> kPlaces = {{{9, 4, "name"},
                                            {-9, 4, "name end"},
                                            {0, -10, "name mid"},
                                            {0, 18, "name mid"},
                                            {8, -7, "name"},
                                            {8, 15, "name"},
                                            {-8, -7, "name end"},
                                            {-8, 15, "name end"},
                                            {12, -20, "name"},
                                            {12, 28, "name"},
                                            {-12, -20, "name end"},
                                            {-12, 28, "name end"},
                                            {14, 42, "name"},
                                            {14, -34, "name"}}};
constexpr std::size_t kBeside = 8;  ///< places before this one need no line to the point

struct Label {
  double x, y;
  const char* style;
  bool led;  ///< a line leads to the point
};

Box box_of(double x, double y, const std::string& style, double width) {
  const double left = style == "name end" ? x - width : style == "name mid" ? x - width / 2 : x;
  return {left, y - 10.0, left + width, y + 3.0};
}

/// Each label where it covers the least of points, whiskers and labels that stand already.
std::vector<Label> place_labels(const std::vector<Point>& points,
                                const std::vector<std::pair<double, double>>& at, double tall) {
  const Box frame{2.0, 0.0, kWidth, kHeight - kBottom};
  std::vector<Box> taken;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const auto [x, y] = at[i];
    const double whisker = tall * points[i].y_deviation.value_or(0.0);
    taken.push_back({x - 6, y - 6, x + 6, y + 6});
    if (whisker > 6) taken.push_back({x - 2, y - whisker, x + 2, y + whisker});
  }
  std::vector<Label> labels;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const double width = 6.1 * console::columns(console::fit(points[i].label, kLongestName));
    std::size_t best = 0;
    double least = 1e30;
    for (std::size_t k = 0; k < kPlaces.size(); ++k) {
      const Box box =
          box_of(at[i].first + kPlaces[k].dx, at[i].second + kPlaces[k].dy, kPlaces[k].style, width);
      double cost = 4.0 * static_cast<double>(k) + 10.0 * (box.area() - box.shared(frame));
      for (const Box& other : taken) cost += 3.0 * box.shared(other);
      if (cost < least) {
        least = cost;
        best = k;
      }
    }
    const Place& place = kPlaces[best];
    labels.push_back({at[i].first + place.dx, at[i].second + place.dy, place.style, best >= kBeside});
    taken.push_back(box_of(labels.back().x, labels.back().y, place.style, width));
  }
  return labels;
}

}  // namespace

std::string scatter(const Scatter& chart) {
  if (chart.points.empty()) return {};
  std::vector<double> xs, ys;
  for (const Point& p : chart.points) {
    xs.push_back(p.x);
    for (const double off : {0.0, p.y_deviation.value_or(0.0), -p.y_deviation.value_or(0.0)})
      ys.push_back(p.y + off);
  }
  const Axis horizontal = axis_over(xs, true), vertical = axis_over(ys, false);
  const auto x_at = [&](double v) { return kLeft + (kWidth - kLeft - kRight) * horizontal.share(v); };
  const auto y_at = [&](double v) { return kTop + (kHeight - kTop - kBottom) * (1.0 - vertical.share(v)); };
  std::string body;
  for (const double t : vertical.marks()) {
    body += svg_line(kLeft, y_at(t), kWidth - kRight, y_at(t), "grid");
    body += svg_text(kLeft - 5, y_at(t) + 3.5, tick_text(t), "tick end");
  }
  for (const double t : horizontal.marks()) {
    body += svg_line(x_at(t), kTop, x_at(t), kHeight - kBottom, "grid");
    body += svg_text(x_at(t), kHeight - kBottom + 14, chart.parameters ? html::count(t) : tick_text(t),
                     "tick mid");
  }
  body += svg_text((kLeft + kWidth - kRight) / 2, kHeight - 6, html::text(chart.x_title), "axis mid");
  std::vector<std::pair<double, double>> at;
  for (const Point& p : chart.points) at.emplace_back(x_at(p.x), y_at(p.y));
  const double tall = (kHeight - kTop - kBottom) / (vertical.high - vertical.low);
  const std::vector<Label> labels = place_labels(chart.points, at, tall);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const Point& p = chart.points[i];
    const Label& label = labels[i];
    const auto [x, y] = at[i];
    body += "<g class=\"" + series_class(p.colour) + "\">";
    if (label.led) body += svg_line(x, y, label.x, label.y - 4, "leader");
    if (p.y_deviation)
      body += svg_line(x, y - tall * *p.y_deviation, x, y + tall * *p.y_deviation, "whisker");
    body += "<path class=\"point\" d=\"" + marker(p.colour, x, y, 4.5) + "\"><title>" + html::text(p.label) +
            ": " + fixed(p.y, 2) + (p.y_deviation ? " ± " + fixed(*p.y_deviation, 2) : "") +
            "</title></path>" +
            svg_text(label.x, label.y, html::text(console::fit(p.label, kLongestName)), label.style) + "</g>";
  }
  return "<figure class=\"chart scatter\"><figcaption>" + html::text(chart.title) +
         "</figcaption><div class=\"plot\">" + svg_document(kWidth, kHeight, html::text(chart.says), body) +
         "</div></figure>\n";
}

}  // namespace mcit::chart
