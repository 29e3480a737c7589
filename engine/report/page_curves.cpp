#include <algorithm>
#include <cmath>

#include "core/text.hpp"
#include "report/html.hpp"
#include "report/page_parts.hpp"

namespace mcit::page {
namespace {

using Values = std::vector<std::optional<double>>;

/// A group's score on a task at each place. A run with fewer stages, such as joint training, is a level; a
/// task that was trained alone is a point.
chart::Line task_line(const StreamView& stream, const GroupView& view, std::int64_t task) {
  chart::Line line{view.label, view.colour, Values(stream.places.size()), Values(stream.places.size())};
  const AccuracyMatrix& shape = view.first().matrix;
  const auto put = [&](std::size_t place, std::int64_t stage) {
    const std::optional<Statistic> cell = cell_over(view.runs, &RunResult::matrix, stage, task);
    if (!cell) return;
    line.values[place] = cell->mean;
    line.deviations[place] = cell->deviation;
  };
  const bool alone = view.group->strategy == "single";
  const bool level = shape.stages() + 1 != static_cast<std::int64_t>(stream.places.size());
  for (std::size_t place = 0; place < stream.places.size(); ++place) {
    const auto stage = static_cast<std::int64_t>(place);
    if (level)
      put(place, shape.stages());
    else if (!alone || stage == shape.learned_at(task))
      put(place, stage);
  }
  return line;
}

/// Mean over the tasks learned by then; the deviation is over the runs.
chart::Line seen_line(const StreamView& stream, const GroupView& view) {
  chart::Line line{view.label, view.colour, Values(stream.places.size()), Values(stream.places.size())};
  for (std::int64_t i = 1; i <= view.first().matrix.stages(); ++i) {
    std::vector<double> means;
    for (const ComparedRun* run : view.runs) {
      const AccuracyMatrix& r = run->result.matrix;
      double sum = 0.0;
      std::int64_t tasks = 0, measured = 0;
      for (std::int64_t j = 0; i <= r.stages() && j < r.tasks(); ++j) {
        if (r.learned_at(j) == 0 || r.learned_at(j) > i) continue;
        ++tasks;
        if (const auto cell = r.at(i, j)) {
          sum += *cell;
          ++measured;
        }
      }
      if (tasks > 0 && measured == tasks) means.push_back(sum / static_cast<double>(tasks));
    }
    if (const auto mean = statistic(means)) {
      line.values[static_cast<std::size_t>(i)] = mean->mean;
      line.deviations[static_cast<std::size_t>(i)] = mean->deviation;
    }
  }
  return line;
}

bool has_values(const chart::Line& line) {
  return std::any_of(line.values.begin(), line.values.end(), [](const auto& v) { return v.has_value(); });
}

std::string end_points(const chart::LineChart& chart) {
  std::string out;
  for (const chart::Line& line : chart.lines) {
    const auto last =
        std::find_if(line.values.rbegin(), line.values.rend(), [](const auto& v) { return v.has_value(); });
    if (last != line.values.rend())
      out.append(out.empty() ? "" : ", ").append(line.label).append(" ends at ").append(fixed(**last, 1));
  }
  return out;
}

chart::Scatter cost_chart(const StreamView& stream, const char* key, const char* title, const char* x_title,
                          bool parameters) {
  const Comparison& comparison = *stream.comparison;
  const std::size_t x = column_of(comparison, key), y = column_of(comparison, "acc");
  chart::Scatter out{
      title, std::string("mean final score against ") + x_title + ": ", x_title, "ACC", parameters, {}};
  for (const GroupView& view : stream.groups) {
    const auto &cost = view.group->values[x], &score = view.group->values[y];
    if (!cost || !score) continue;
    out.points.push_back({view.label, view.colour, cost->mean, score->mean, score->deviation});
    out.says += view.label + " " + (parameters ? html::count(cost->mean) : fixed(cost->mean, 1)) + ", " +
                fixed(score->mean, 1) + "; ";
  }
  return out;
}

}  // namespace

std::string series_legend(const StreamView& stream) {
  std::string out = "<ul class=\"series\" data-stream=\"" + stream.id + "\">";
  for (const GroupView& view : stream.groups)
    out += "<li data-series=\"" + html::text(view.label) + "\">" + chart::key_mark(view.colour) + "<span>" +
           html::text(view.label) + "</span></li>";
  return out + "</ul>\n";
}

std::string curves_section(const StreamView& stream, Draft& draft) {
  const Comparison& comparison = *stream.comparison;
  std::vector<chart::LineChart> charts;
  chart::LineChart seen{.id = stream.id + "-seen",
                        .title = "Mean over the tasks learned so far",
                        .says = "",
                        .x = stream.places,
                        .lines = {}};
  seen.wide = true;
  for (const GroupView& view : stream.groups) {
    const bool level = view.first().matrix.stages() + 1 != static_cast<std::int64_t>(stream.places.size());
    if (level || view.group->strategy == "single") continue;
    if (chart::Line line = seen_line(stream, view); has_values(line)) seen.lines.push_back(std::move(line));
  }
  if (!seen.lines.empty()) charts.push_back(std::move(seen));
  for (std::size_t j = 0; j < comparison.tasks.size(); ++j) {
    const auto task = static_cast<std::int64_t>(j);
    chart::LineChart one{.id = stream.id + "-task-" + std::to_string(j),
                         .title = html::plain(comparison.tasks[j], 60),
                         .says = "",
                         .x = stream.places,
                         .lines = {}};
    one.level = comparison.chance[j];
    for (const GroupView& view : stream.groups) {
      if (chart::Line line = task_line(stream, view, task); has_values(line))
        one.lines.push_back(std::move(line));
      const AccuracyMatrix& r = view.first().matrix;
      if (!one.mark && r.stages() + 1 == static_cast<std::int64_t>(stream.places.size()) &&
          r.learned_at(task) > 0)
        one.mark = static_cast<std::size_t>(r.learned_at(task));
    }
    if (!one.lines.empty()) charts.push_back(std::move(one));
  }
  std::string body;
  for (chart::LineChart& one : charts) {
    one.says = one.title + ", percent over the stages: " + end_points(one);
    body += chart::line_chart(one);
    draft.charts.push_back(one);
  }
  if (body.empty()) return {};
  return section(stream, "curves", "Task by task",
                 "Percent after each stage; the band is one standard deviation over seeds. The upright line "
                 "marks the stage that "
                 "learns the task, the dotted line the best guess without the picture.",
                 series_legend(stream) + "<div class=\"charts\">\n" + body + "</div>\n");
}

std::string costs_section(const StreamView& stream) {
  const Comparison& comparison = *stream.comparison;
  std::string charts;
  charts += chart::scatter(
      cost_chart(stream, "stored_parameters", "Parameters to keep", "parameters besides the base", true));
  charts += chart::scatter(
      cost_chart(stream, "train_seconds", "Time to train", "seconds of training, all stages", false));
  charts += chart::scatter(cost_chart(stream, "peak_memory_mb", "Memory", "largest memory, MiB", false));
  return section(stream, "costs", "What it costs",
                 "Mean final score (ACC, percent) against cost: up and to the left is better. Whiskers: one "
                 "standard deviation over seeds.",
                 "<div class=\"charts thirds\">\n" + charts + "</div>\n" +
                     table_html(comparison, costs_table(comparison), "Costs of a run, mean over seeds",
                                {Section::cost}));
}

}  // namespace mcit::page
