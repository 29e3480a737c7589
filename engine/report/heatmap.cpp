#include "report/heatmap.hpp"

#include <algorithm>

#include "core/text.hpp"
#include "report/svg.hpp"

namespace mcit {
namespace {

using svg::kCellHeight, svg::kCellWidth, svg::kEnd, svg::kMiddle, svg::kPad, svg::text_width;

void draw_cell(svg::Canvas& canvas, int x, int y, const AccuracyMatrix::Cell& cell, bool learned) {
  const std::string frame = learned ? " stroke=\"#d62728\" stroke-width=\"2\"" : " stroke=\"#fff\"";
  const int inset = learned ? 1 : 0;
  if (!cell) {
    canvas.rectangle(x + inset, y + inset, kCellWidth - 2 * inset, kCellHeight - 2 * inset, "url(#missing)",
                     frame);
    return;
  }
  const double share = *cell / 100.0;
  canvas.rectangle(x + inset, y + inset, kCellWidth - 2 * inset, kCellHeight - 2 * inset, svg::fill(share),
                   frame);
  canvas.text(x + kCellWidth / 2, y + kCellHeight / 2 + 5, fixed(*cell, 1),
              std::string(kMiddle) + " fill=\"" + svg::ink(share) + "\"");
}

void draw_scale(svg::Canvas& canvas, int x, int y, int height) {
  for (int i = 0; i < 50; ++i) {  // fifty steps, each as tall as the rounding leaves it
    const int top = y + height * i / 50;
    canvas.rectangle(x, top, 14, y + height * (i + 1) / 50 - top, svg::fill(0.99 - 0.02 * i));
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

  svg::Canvas canvas;
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

  return canvas.document(width, height, title);
}

}  // namespace mcit
