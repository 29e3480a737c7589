#include <algorithm>

#include "core/console.hpp"
#include "core/text.hpp"
#include "report/html.hpp"
#include "report/page_parts.hpp"
#include "report/svg.hpp"

namespace mcit::page {
namespace {

std::vector<std::string> row_names(const RunResult& run) {
  std::vector<std::string> names{"base"};
  for (const std::string& stage : run.stage_names()) names.push_back(stage);
  return names;
}

std::string seeds_text(const GroupView& view) {
  const std::size_t n = view.runs.size();
  return n == 1 ? "seed " + std::to_string(view.first().seed) : "mean of " + std::to_string(n) + " runs";
}

std::string more_matrices(const GroupView& view) {
  const std::vector<std::string> rows = row_names(view.first());
  std::string out;
  const AccuracyMatrix restricted = mean_matrix(view.runs, &RunResult::matrix_restricted),
                       oracle = mean_matrix(view.runs, &RunResult::matrix_oracle);
  if (!is_empty(restricted))
    out +=
        heat_table(restricted, rows, "Answers restricted to the task's own answer set, " + seeds_text(view));
  if (!is_empty(oracle))
    out += heat_table(oracle, rows, "With the true task in place of the selected one, " + seeds_text(view));
  if (view.runs.size() > 1)
    for (const ComparedRun* run : view.runs)
      out +=
          heat_table(run->result.matrix, row_names(run->result), "Seed " + std::to_string(run->result.seed));
  return out;
}

}  // namespace

bool is_empty(const AccuracyMatrix& matrix) {
  for (std::int64_t i = 0; i <= matrix.stages(); ++i)
    for (std::int64_t j = 0; j < matrix.tasks(); ++j)
      if (matrix.at(i, j)) return false;
  return true;
}

const char* head_style(const std::vector<std::string>& names) {
  const auto is_long = [](const std::string& name) { return console::columns(name) > 7; };
  return std::any_of(names.begin(), names.end(), is_long) ? " tall" : "";
}

std::optional<Statistic> cell_over(const std::vector<const ComparedRun*>& runs,
                                   AccuracyMatrix RunResult::*matrix, std::int64_t stage, std::int64_t task) {
  std::vector<double> values;
  for (const ComparedRun* run : runs) {
    const AccuracyMatrix& m = run->result.*matrix;
    if (stage <= m.stages() && task < m.tasks())
      if (const auto value = m.at(stage, task)) values.push_back(*value);
  }
  return statistic(values);
}

AccuracyMatrix mean_matrix(const std::vector<const ComparedRun*>& runs, AccuracyMatrix RunResult::*matrix) {
  AccuracyMatrix mean = runs.front()->result.*matrix;
  for (std::int64_t i = 0; i <= mean.stages(); ++i)
    for (std::int64_t j = 0; j < mean.tasks(); ++j) {
      const std::optional<Statistic> cell = cell_over(runs, matrix, i, j);
      mean.set(i, j, cell ? std::optional(cell->mean) : std::nullopt);
    }
  return mean;
}

std::string heat_table(const AccuracyMatrix& matrix, const std::vector<std::string>& rows,
                       const std::string& caption) {
  std::string head = html::column("after"), out;
  for (const std::string& task : matrix.names()) head += html::column(task);
  for (std::int64_t i = 0; i <= matrix.stages(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    out += "<tr>" + html::row_head(at < rows.size() ? rows[at] : std::to_string(i));
    for (std::int64_t j = 0; j < matrix.tasks(); ++j) {
      const AccuracyMatrix::Cell cell = matrix.at(i, j);
      const bool learned = i > 0 && matrix.learned_at(j) == i;
      if (!cell)
        out += "<td class=\"missing\"><span class=\"unseen\">not measured</span></td>";
      else
        out += "<td" + std::string(learned ? " class=\"learned\"" : "") +
               " style=\"background:" + svg::fill(*cell / 100.0) + ";color:" + svg::ink(*cell / 100.0) +
               "\">" + fixed(*cell, 1) + "</td>";
    }
    out += "</tr>\n";
  }
  return html::table("heat" + std::string(head_style(matrix.names())), caption, head, out);
}

std::string matrices_section(const StreamView& stream) {
  std::string body =
      "<div class=\"scale\" aria-hidden=\"true\"><span>0 %</span><i></i><span>100 %</span>"
      "<span class=\"frame\"></span><span>right after the task was learned</span></div>\n<div "
      "class=\"heats\">\n";
  for (const GroupView& view : stream.groups) {
    body += "<div class=\"heat-card\"><h4>" + chart::key_mark(view.colour) + html::text(view.label) + "</h4>";
    body += heat_table(mean_matrix(view.runs, &RunResult::matrix), row_names(view.first()),
                       "Percent, " + seeds_text(view));
    const std::string more = more_matrices(view);
    if (!more.empty())
      body += folded("Each seed, and other ways to answer", "<div class=\"heats\">" + more + "</div>");
    body += "</div>\n";
  }
  return section(stream, "matrices", "What was known when",
                 "Read a column downwards: what became of a task after it was learned. Read a row for "
                 "everything that was known "
                 "at that stage. Above the frames lies what a task gained before its turn.",
                 body + "</div>\n");
}

}  // namespace mcit::page
