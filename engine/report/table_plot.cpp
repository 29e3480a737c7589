#include "report/table_plot.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/text.hpp"
#include "report/svg.hpp"

namespace mcit {
namespace {

using svg::kCellHeight, svg::kCellWidth, svg::kEnd, svg::kMiddle, svg::kPad, svg::text_width;

constexpr int kTop = kPad + 26;

struct Range {
  double low = 0.0, high = 0.0;
  double share(double value) const { return high > low ? (value - low) / (high - low) : 0.0; }
};

/// From the smallest to the largest value, zero included.
Range range_of(const ResultTable& table) {
  Range range;
  for (const auto& row : table.values)
    for (const double value : row) {
      range.low = std::min(range.low, value);
      range.high = std::max(range.high, value);
    }
  return range;
}

int widest(const std::vector<std::string>& texts) {
  int width = 0;
  for (const std::string& text : texts) width = std::max(width, text_width(text));
  return width;
}

std::string heat_map(const ResultTable& table, const std::string& title) {
  const Range range = range_of(table);
  const int left = kPad + widest(table.rows) + 10, top = kTop + 24, height = 20;
  const auto rows = static_cast<int>(table.rows.size()), columns = static_cast<int>(table.columns.size());
  svg::Canvas canvas;
  for (int j = 0; j < columns; ++j)
    canvas.text(left + j * kCellWidth + kCellWidth / 2, top - 8, table.columns[static_cast<std::size_t>(j)],
                kMiddle);
  for (int i = 0; i < rows; ++i) {
    const int y = top + i * height;
    canvas.text(left - 10, y + height / 2 + 5, table.rows[static_cast<std::size_t>(i)], kEnd);
    for (int j = 0; j < columns; ++j) {
      const double value = table.values[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)];
      const double share = range.share(value);
      canvas.rectangle(left + j * kCellWidth, y, kCellWidth, height, svg::fill(share), " stroke=\"#fff\"");
      canvas.text(left + j * kCellWidth + kCellWidth / 2, y + height / 2 + 5, fixed(value, 1),
                  std::string(kMiddle) + " fill=\"" + svg::ink(share) + "\"");
    }
  }
  return canvas.document(std::max(left + columns * kCellWidth + kPad, 2 * kPad + text_width(title) * 5 / 4),
                         top + rows * height + kPad, title);
}

std::string line_plot(const ResultTable& table, const std::string& title) {
  constexpr int kWidth = 560, kHeight = 300, kTicks = 5;
  const Range range = range_of(table);
  const int left = kPad + 64, top = kTop + 8;
  svg::Canvas canvas;
  for (int t = 0; t <= kTicks; ++t) {
    const int y = top + kHeight - kHeight * t / kTicks;
    canvas.rectangle(left, y, kWidth, 1, "#e5e5e5");
    canvas.text(left - 8, y + 4, fixed(range.low + (range.high - range.low) * t / kTicks, 3), kEnd);
  }
  const std::size_t columns = table.columns.size(), step = std::max<std::size_t>(1, (columns + 7) / 8);
  const auto place = [&](std::size_t column) {
    return left + (columns > 1 ? static_cast<double>(kWidth) * static_cast<double>(column) /
                                     static_cast<double>(columns - 1)
                               : kWidth / 2.0);
  };
  for (std::size_t j = 0; j < columns; j += step)
    canvas.text(static_cast<int>(place(j)), top + kHeight + 20, table.columns[j], kMiddle);
  const auto rows = static_cast<double>(std::max<std::size_t>(1, table.rows.size()));
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    const std::string colour = svg::fill(0.85 * static_cast<double>(i) / rows);  // yellow is lost on white
    std::vector<std::pair<double, double>> points;
    for (std::size_t j = 0; j < columns; ++j)
      points.emplace_back(place(j), top + kHeight * (1.0 - range.share(table.values[i][j])));
    canvas.polyline(points, colour);
    const int y = top + 14 + 20 * static_cast<int>(i);
    canvas.rectangle(left + kWidth + 16, y - 5, 18, 3, colour);
    canvas.text(left + kWidth + 40, y, table.rows[i]);
  }
  return canvas.document(left + kWidth + 40 + widest(table.rows) + kPad,
                         std::max(top + kHeight + 28, top + 20 * static_cast<int>(table.rows.size())) + kPad,
                         title);
}

}  // namespace

std::string table_svg(const ResultTable& table, const std::string& title) {
  return table.lines ? line_plot(table, title) : heat_map(table, title);
}

}  // namespace mcit
