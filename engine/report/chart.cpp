#include "report/chart.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/console.hpp"
#include "core/text.hpp"
#include "report/chart_svg.hpp"
#include "report/html.hpp"

namespace mcit::chart {
namespace {

struct Frame {
  double left = 34.0, right = 8.0, top = 8.0, bottom = 34.0, width = 320.0, height = 190.0;
  double low = 0.0, high = 100.0;
  std::size_t places = 1;

  double x(std::size_t place) const {
    const double inner = width - left - right - 12.0;  // points at the ends keep clear of the axes
    return left + 6.0 +
           (places > 1 ? inner * static_cast<double>(place) / static_cast<double>(places - 1) : inner / 2);
  }
  double y(double value) const {
    const double share = high > low ? (value - low) / (high - low) : 0.5;
    return top + (height - top - bottom) * (1.0 - std::clamp(share, 0.0, 1.0));
  }
};

void draw_axes(std::string& out, const LineChart& chart, const Frame& f) {
  for (const double t : ticks(f.low, f.high, 4)) {
    out += svg_line(f.left, f.y(t), f.width - f.right, f.y(t), "grid");
    out += svg_text(f.left - 5, f.y(t) + 3.5, tick_text(t), "tick end");
  }
  const std::size_t n = chart.x.size();
  const double room = (f.width - f.left - f.right) / static_cast<double>(std::max<std::size_t>(n, 1));
  int widest = 1;
  for (const std::string& name : chart.x) widest = std::max(widest, console::columns(name));
  const bool slanted = widest * 5.6 > room - 4 && n <= 24;
  const std::size_t step = n <= 24 ? 1 : (n + 7) / 8;
  for (std::size_t i = 0; i < n; i += step) {
    const std::string name = html::text(console::fit(chart.x[i], 9));
    const double y = f.height - f.bottom + (slanted ? 11 : 14);
    out += slanted ? svg_slanted(f.x(i) + 3, y, name, "tick end") : svg_text(f.x(i), y, name, "tick mid");
  }
}

void draw_band(std::string& out, const Line& line, const Frame& f) {
  std::string upper, lower;
  const auto close = [&] {
    if (!upper.empty()) out += "<polygon class=\"band\" points=\"" + upper + lower + "\"/>";
    upper.clear();
    lower.clear();
  };
  for (std::size_t i = 0; i < line.values.size(); ++i) {
    if (!line.values[i] || i >= line.deviations.size() || !line.deviations[i]) {
      close();
      continue;
    }
    const double value = *line.values[i], off = *line.deviations[i];
    upper += svg_pair(f.x(i), f.y(value + off));
    lower = svg_pair(f.x(i), f.y(value - off)) + lower;
  }
  close();
}

void draw_line(std::string& out, const LineChart& chart, const Line& line, const Frame& f) {
  out += "<g class=\"" + series_class(line.colour) + "\">";
  draw_band(out, line, f);
  std::string path, points;
  bool drawing = false;
  for (std::size_t i = 0; i < line.values.size(); ++i) {
    if (!line.values[i]) {
      drawing = false;
      continue;
    }
    path += (drawing ? "L" : "M") + svg_pair(f.x(i), f.y(*line.values[i]));
    drawing = true;
    if (line.values.size() > 24) continue;  // a curve of many places needs no points
    points += "<path class=\"point\" d=\"" + marker(line.colour, f.x(i), f.y(*line.values[i]), 3.0) +
              "\"><title>" + html::text(line.label) + ", " + html::text(chart.x[i]) + ": " +
              fixed(*line.values[i], 1) + "</title></path>";
  }
  out += "<path class=\"line\" d=\"" + path + "\"/>" + points + "</g>";
}

}  // namespace

std::vector<double> ticks(double low, double high, int count) {
  if (!(high > low) || count < 1) return {low};
  const double raw = (high - low) / count, magnitude = std::pow(10.0, std::floor(std::log10(raw)));
  double step = 10.0 * magnitude;
  for (const double nice : {1.0, 2.0, 2.5, 5.0})
    if (raw <= nice * magnitude * (1 + 1e-9)) {
      step = nice * magnitude;
      break;
    }
  std::vector<double> out;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k) out.push_back(k * step);
  return out;
}

std::string line_chart(const LineChart& chart) {
  Frame f;
  f.low = chart.low;
  f.high = chart.high;
  f.places = chart.x.size();
  if (chart.wide) {
    f.width = 680.0;
    f.height = 260.0;
  }
  std::string body;
  draw_axes(body, chart, f);
  if (chart.mark) body += svg_line(f.x(*chart.mark), f.top, f.x(*chart.mark), f.height - f.bottom, "mark");
  if (chart.level) body += svg_line(f.left, f.y(*chart.level), f.width - f.right, f.y(*chart.level), "level");
  for (const Line& line : chart.lines) draw_line(body, chart, line, f);
  return "<figure class=\"chart" + std::string(chart.wide ? " wide" : "") + "\" id=\"" + chart.id +
         "\"><figcaption>" + html::text(chart.title, 120) + "</figcaption><div class=\"plot\">" +
         svg_document(f.width, f.height, html::text(chart.says), body) + "</div></figure>\n";
}

Json chart_json(const LineChart& chart) {
  const auto numbers = [](const std::vector<std::optional<double>>& values) {
    Json out = Json::array();
    for (const auto& value : values)
      out.push_back(value ? Json(std::round(*value * 1e4) / 1e4) : Json(nullptr));
    return out;
  };
  Json lines = Json::array();
  for (const Line& line : chart.lines) {
    Json entry{{"label", line.label}, {"colour", line.colour}, {"values", numbers(line.values)}};
    if (std::any_of(line.deviations.begin(), line.deviations.end(),
                    [](const auto& d) { return d.has_value(); }))
      entry["deviations"] = numbers(line.deviations);
    lines.push_back(std::move(entry));
  }
  return {{"id", chart.id},
          {"x", chart.x},
          {"low", chart.low},
          {"high", chart.high},
          {"level", chart.level ? Json(*chart.level) : Json(nullptr)},
          {"mark", chart.mark ? Json(*chart.mark) : Json(nullptr)},
          {"lines", std::move(lines)}};
}

}  // namespace mcit::chart
