#include <algorithm>

#include "core/text.hpp"
#include "report/html.hpp"
#include "report/page_parts.hpp"

namespace mcit::page {
namespace {

double share(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

/// Sum over the runs of a group.
std::optional<FateCount> count_of(const GroupView& view, std::int64_t stage, std::int64_t task) {
  FateCount sum;
  bool any = false;
  for (const RunFates& run : view.fates) {
    if (static_cast<std::size_t>(task) >= run.tasks.size()) continue;
    const auto& stages = run.tasks[static_cast<std::size_t>(task)].stages;
    if (static_cast<std::size_t>(stage) >= stages.size() || !stages[static_cast<std::size_t>(stage)])
      continue;
    sum += *stages[static_cast<std::size_t>(stage)];
    any = true;
  }
  return any ? std::optional(sum) : std::nullopt;
}

/// Of all tasks learned before the last stage, after it.
FateCount total_of(const GroupView& view) {
  FateCount total;
  const AccuracyMatrix& shape = view.first().matrix;
  for (std::int64_t j = 0; j < shape.tasks(); ++j)
    if (shape.learned_at(j) > 0 && shape.learned_at(j) < shape.stages())
      if (const auto count = count_of(view, shape.stages(), j)) total += *count;
  return total;
}

std::string words(const FateCount& count) {
  return std::to_string(count.learned) +
         " right when learned: " + fixed(share(count.kept(), count.learned), 0) + " % kept, " +
         fixed(share(count.knowledge_loss, count.learned), 0) + " % knowledge lost, " +
         fixed(share(count.format_drift, count.learned), 0) + " % format drift";
}

std::string bar(const FateCount& count) {
  const auto part = [&](const char* name, std::int64_t n) {
    return n == 0 ? std::string()
                  : "<i class=\"" + std::string(name) +
                        "\" style=\"width:" + fixed(share(n, count.learned), 2) + "%\"></i>";
  };
  return "<span class=\"bar\" title=\"" + words(count) + "\" aria-hidden=\"true\">" +
         part("kept", count.kept()) + part("loss", count.knowledge_loss) + part("drift", count.format_drift) +
         "</span>";
}

std::string overview(const StreamView& stream) {
  std::string out;
  for (const GroupView& view : stream.groups) {
    const FateCount total = total_of(view);
    if (total.learned == 0) continue;
    out += "<tr>" + html::row_head(view.label) + "<td class=\"wide\">" + bar(total) + "</td><td>" +
           fixed(share(total.kept(), total.learned), 1) + "</td><td>" +
           fixed(share(total.knowledge_loss, total.learned), 1) + "</td><td>" +
           fixed(share(total.format_drift, total.learned), 1) + "</td><td>" + std::to_string(total.learned) +
           "</td></tr>\n";
  }
  if (out.empty()) return {};
  const auto key = [](const char* style, const char* words) {
    return "<th scope=\"col\"><span class=\"swatch " + std::string(style) + "\"></span>" + words + "</th>";
  };
  return html::table(
      "data fates",
      "After the last stage, percent of the answers that were right when their task was learned",
      html::column("strategy") + "<th><span class=\"unseen\">shares</span></th>" +
          key("kept", "still right") + key("loss", "knowledge lost") + key("drift", "format drift") +
          html::column("answers"),
      out);
}

/// A row a stage, a column a task, each cell a small bar.
std::string grid(const GroupView& view) {
  const RunResult& run = view.first();
  const AccuracyMatrix& shape = run.matrix;
  std::string head = html::column("after"), out;
  for (const std::string& task : shape.names()) head += html::column(task);
  for (std::int64_t i = 2; i <= shape.stages(); ++i) {
    out += "<tr>" + html::row_head(run.stages[static_cast<std::size_t>(i - 1)].name);
    for (std::int64_t j = 0; j < shape.tasks(); ++j) {
      const std::int64_t learned = shape.learned_at(j);
      const auto count = learned > 0 && learned < i ? count_of(view, i, j) : std::nullopt;
      out += count && count->learned > 0
                 ? "<td>" + bar(*count) + "<span class=\"unseen\">" + words(*count) + "</span></td>"
                 : std::string("<td></td>");
    }
    out += "</tr>\n";
  }
  return html::table("bars" + std::string(head_style(shape.names())),
                     view.label + ": each task after each later stage", head, out);
}

std::string faults_of(const StreamView& stream) {
  std::string out;
  for (const GroupView& view : stream.groups)
    for (const RunFates& run : view.fates) {
      if (run.faults.lines > 0)
        out += "<li>" + std::to_string(run.faults.lines) +
               " lines of predictions could not be used; the first: " + html::text(run.faults.first, 300) +
               "</li>";
      if (run.repeated > 0)
        out += "<li>" + std::to_string(run.repeated) +
               " rows of predictions repeat an id; the first of each counts</li>";
    }
  return out.empty() ? out : "<ul class=\"notes\">" + out + "</ul>\n";
}

}  // namespace

std::string fates_section(const StreamView& stream) {
  std::string body = overview(stream) + faults_of(stream);
  if (body.empty()) return {};
  std::string grids;
  for (const GroupView& view : stream.groups)
    if (total_of(view).learned > 0) grids += "<div class=\"heat-card\">" + grid(view) + "</div>";
  if (!grids.empty())
    body += folded("Stage by stage and task by task", "<div class=\"heats\">" + grids + "</div>", true);
  return section(stream, "drift", "Lost, or only in the wrong form?",
                 "An answer that was right when its task was learned and is wrong later has either left the "
                 "form that the task asks "
                 "for (format drift: often the habits of a later task) or kept the form and lost the content "
                 "(knowledge lost).",
                 body);
}

}  // namespace mcit::page
