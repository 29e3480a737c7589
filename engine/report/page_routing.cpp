#include <algorithm>
#include <cmath>
#include <set>

#include "core/text.hpp"
#include "report/chart_svg.hpp"
#include "report/html.hpp"
#include "report/page_parts.hpp"
#include "report/svg.hpp"

namespace mcit::page {
namespace {

constexpr std::size_t kMostCells = 6000;  // of one table in the page; what is larger stands in result.json

struct Range {
  double low = 0.0, high = 0.0;
  double share(double value) const { return high > low ? (value - low) / (high - low) : 0.0; }
};

/// Of all stages' tables of one name, zero included, so that their colours can be compared.
Range range_of(const std::vector<std::pair<std::string, const ResultTable*>>& tables) {
  Range range;
  for (const auto& [stage, table] : tables)
    for (const auto& row : table->values)
      for (const double value : row) {
        if (!std::isfinite(value)) continue;
        range.low = std::min(range.low, value);
        range.high = std::max(range.high, value);
      }
  return range;
}

/// What all names begin with, up to and with a dot.
std::string common_front(const std::vector<std::string>& names) {
  if (names.size() < 2) return {};
  std::string front = names.front();
  for (const std::string& name : names) {
    std::size_t same = 0;
    while (same < front.size() && same < name.size() && front[same] == name[same]) ++same;
    front.resize(same);
  }
  const std::size_t dot = front.rfind('.');
  return dot == std::string::npos ? std::string() : front.substr(0, dot + 1);
}

std::string mosaic(const std::string& stage, const ResultTable& table, const Range& range, bool labelled) {
  const std::string front = common_front(table.rows);
  const auto columns = static_cast<double>(table.columns.size());
  const double width = std::clamp(96.0 / std::max(columns, 1.0), 2.0, 12.0), height = 11.0;
  const double left = labelled ? 128.0 : 4.0;
  std::string body;
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    const double y = 4.0 + height * static_cast<double>(i);
    if (labelled)
      body +=
          chart::svg_text(left - 4, y + 8.5, html::text(table.rows[i].substr(front.size()), 26), "tiny end");
    for (std::size_t j = 0; j < table.columns.size(); ++j) {
      const double value = table.values[i][j];
      body += "<rect x=\"" + fixed(left + width * static_cast<double>(j), 1) + "\" y=\"" + fixed(y, 1) +
              "\" width=\"" + fixed(width - 0.6, 1) + "\" height=\"" + fixed(height - 0.8, 1) + "\" fill=\"" +
              svg::fill(range.share(value)) + "\"><title>" + html::text(table.rows[i], 120) + ", " +
              html::text(table.columns[j], 60) + ": " + fixed(value, 2) + "</title></rect>";
    }
  }
  const double full = left + width * columns + 4.0,
               tall = 8.0 + height * static_cast<double>(table.rows.size());
  return "<figure class=\"mosaic\" style=\"--w:" + fixed(full, 0) + "px\"><figcaption>after " +
         html::text(stage, 40) + "</figcaption>" +
         chart::svg_document(full, tall, "values after " + html::text(stage, 40), body) + "</figure>\n";
}

std::string numbers(const std::string& stage, const ResultTable& table, const std::string& name) {
  std::string head = html::column("row"), rows;
  for (const std::string& column : table.columns) head += html::column(column);
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    rows += "<tr>" + html::row_head(table.rows[i]);
    for (const double value : table.values[i]) rows += "<td>" + fixed(value, 2) + "</td>";
    rows += "</tr>\n";
  }
  return html::table("data", name + " after " + stage, head, rows);
}

chart::LineChart table_chart(const std::string& id, const std::string& stage, const ResultTable& table,
                             const Range& range) {
  const std::string when = "after " + html::plain(stage, 60);
  chart::LineChart out{.id = id, .title = when, .says = "values " + when, .x = {}, .lines = {}};
  for (const std::string& column : table.columns) out.x.push_back(html::plain(column, 60));
  out.low = range.low;
  out.high = range.high > range.low ? range.high : range.low + 1.0;
  for (std::size_t i = 0; i < table.rows.size() && i < 12; ++i) {
    chart::Line line{html::plain(table.rows[i], 80), static_cast<int>(i), {}};
    for (const double value : table.values[i])
      line.values.push_back(std::isfinite(value) ? std::optional(value) : std::nullopt);
    out.lines.push_back(std::move(line));
  }
  return out;
}

/// One name's tables of one run, all stages.
std::string tables_of(const std::string& id, const RunResult& run, const std::string& name, Draft& draft) {
  std::vector<std::pair<std::string, const ResultTable*>> tables;
  for (const StageResult& stage : run.stages)
    if (const auto found = stage.tables.find(name); found != stage.tables.end())
      if (!found->second.rows.empty() && !found->second.columns.empty())
        tables.emplace_back(stage.name, &found->second);
  if (tables.empty()) return {};
  const auto& [last_stage, last] = tables.back();
  if (last->rows.size() * last->columns.size() > kMostCells)
    return "<p class=\"soft\">" + html::text(name, 60) +
           ": too large to be drawn; its numbers stand in result.json.</p>\n";
  const Range range = range_of(tables);
  std::string body;
  for (std::size_t k = 0; k < tables.size(); ++k) {
    const auto& [stage, table] = tables[k];
    if (table->lines) {
      const chart::LineChart one = table_chart(id + "-" + std::to_string(k), stage, *table, range);
      body += chart::line_chart(one);
      draft.charts.push_back(one);
    } else {
      body += mosaic(stage, *table, range, k == 0);
    }
  }
  const std::string front = common_front(last->rows);
  const std::string scale = last->lines ? ""
                                        : ", colours from " + fixed(range.low, 1) + " (dark) to " +
                                              fixed(range.high, 1) + " (bright)";
  return "<h5>" + html::text(name, 60) + "</h5><p class=\"soft\">" +
         (front.empty() ? "" : "Names of rows begin with <code>" + html::text(front, 80) + "</code> ") +
         "Seed " + std::to_string(run.seed) + scale + ".</p><div class=\"" +
         (last->lines ? "charts" : "mosaics") + "\">" + body + "</div>" +
         folded("Numbers after " + html::text(last_stage, 40), numbers(last_stage, *last, name));
}

std::string selector_table(const StreamView& stream) {
  const Comparison& comparison = *stream.comparison;
  std::string rows;
  for (const GroupView& view : stream.groups) {
    const auto value = [&](const char* key) { return view.group->values[column_of(comparison, key)]; };
    if (!value("selector_accuracy") && !value("acc_oracle")) continue;
    rows += "<tr>" + html::row_head(view.label) + "<td>" + statistic_text(value("selector_accuracy"), 1) +
            "</td><td>" + statistic_text(value("acc"), 1) + "</td><td>" +
            statistic_text(value("acc_oracle"), 1) + "</td></tr>\n";
  }
  if (rows.empty()) return {};
  return html::table(
      "data", "How often the right task was selected, and what that is worth, percent after the last stage",
      html::column("strategy") + html::column("right task selected") + html::column("ACC") +
          html::column("ACC with the true task"),
      rows);
}

std::string selector_matrices(const StreamView& stream) {
  std::string out;
  for (const GroupView& view : stream.groups) {
    const AccuracyMatrix mean = mean_matrix(view.runs, &RunResult::matrix_selector);
    if (is_empty(mean)) continue;
    std::vector<std::string> rows{"base"};
    for (const std::string& stage : view.first().stage_names()) rows.push_back(stage);
    out += "<div class=\"heat-card\">" +
           heat_table(mean, rows, view.label + ": rows for which the right task was selected, percent") +
           "</div>\n";
  }
  return out.empty() ? out : "<div class=\"heats\">" + out + "</div>\n";
}

}  // namespace

std::string routing_section(const StreamView& stream, Draft& draft) {
  std::string body = selector_table(stream) + selector_matrices(stream);
  for (std::size_t g = 0; g < stream.groups.size(); ++g) {
    const GroupView& view = stream.groups[g];
    std::set<std::string> names;
    for (const StageResult& stage : view.first().stages)
      for (const auto& [name, table] : stage.tables) names.insert(name);
    std::string tables;
    for (const std::string& name : names)
      tables +=
          tables_of(stream.id + "-t" + std::to_string(g) + "-" + html::id(name), view.first(), name, draft);
    if (!tables.empty())
      body += "<h4>" + chart::key_mark(view.colour) + html::text(view.label) + "</h4>\n" + tables;
  }
  return section(stream, "routing", "Inside the strategies",
                 "What strategies kept of their stages: routers, experts, selectors.", body);
}

}  // namespace mcit::page
