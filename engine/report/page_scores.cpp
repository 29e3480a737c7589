#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>

#include "core/text.hpp"
#include "metrics/metrics.hpp"
#include "report/html.hpp"
#include "report/page_parts.hpp"

namespace mcit::page {
namespace {

/// What columns mean that are no metrics of the catalogue.
const std::map<std::string, std::string>& column_meanings() {
  static const std::map<std::string, std::string> all = {
      {"acc_restricted", "ACC where answers are restricted to the task's own answer set"},
      {"bwt_T-1_restricted", "BWT/(T-1) where answers are restricted to the task's own answer set"},
      {"selector_accuracy",
       "percent of test rows, after the last stage, for which the right task was selected"},
      {"acc_oracle", "ACC with the true task in place of the selected one"},
      {"client_accuracy", "federated: ACC of each client's own model, mean over clients"},
      {"client_worst", "federated: ACC of the client that is worst off"},
      {"client_deviation", "federated: standard deviation of ACC over clients"},
      {"client_forgetting", "federated: forgetting of each client's own model, mean over clients"},
      {"round_mb_up", "federated: megabytes that clients send in a round, mean over rounds"},
      {"round_mb_down", "federated: megabytes that clients are sent in a round, mean over rounds"},
      {"trainable_parameters", "parameters that a stage trains, the most of all stages"},
      {"stored_parameters", "parameters kept for inference besides the base, after the last stage"},
      {"train_seconds", "seconds of training, all stages"},
      {"eval_seconds", "seconds of evaluation, all stages and the base"},
      {"examples_per_second", "training examples a second"},
      {"tokens_per_second", "rows through the decoder a second in training"},
      {"peak_memory_mb", "largest memory of the process, MiB"},
  };
  return all;
}

const MetricInfo* metric_named(const std::string& name) {
  for (const MetricInfo& info : metric_catalogue())
    if (info.name == name) return &info;
  return nullptr;
}

std::string metric_meaning(const MetricInfo& info) {
  std::string out = std::string(info.title) + ": " + std::string(info.formula);
  out += info.better == Better::lower ? "; lower is better" : "; higher is better";
  return out;
}

std::string meaning_of(const std::string& key) {
  if (const MetricInfo* info = metric_named(key)) return metric_meaning(*info);
  if (key.starts_with("final:")) return "score on this task after the last stage, percent";
  const auto found = column_meanings().find(key);
  return found == column_meanings().end() ? std::string() : found->second;
}

/// The best of the methods in this column, by its mean.
const ComparedGroup* leader(const Comparison& comparison, const std::string& key, Better better) {
  const std::size_t c = column_of(comparison, key);
  const ComparedGroup* best = nullptr;
  for (const ComparedGroup& group : comparison.groups) {
    if (group.bound || !group.values[c]) continue;
    const double value = group.values[c]->mean;
    const bool wins = best == nullptr || (better == Better::higher ? value > best->values[c]->mean
                                                                   : value < best->values[c]->mean);
    if (wins) best = &group;
  }
  return best;
}

std::string value_text(const Comparison& comparison, const ComparedGroup& group, const std::string& key) {
  return "<b class=\"num\">" + statistic_text(group.values[column_of(comparison, key)], 1) + "</b>";
}

std::string name_of(const ComparedGroup& group) { return "<b>" + html::text(group.label, 80) + "</b>"; }

/// One metric of a group over its seeds; why there is none where there is none.
struct Summary {
  std::optional<Statistic> value;
  std::string missing;
};

Summary summary_of(const StreamView& stream, const GroupView& view, const MetricInfo& info) {
  const auto& columns = stream.comparison->columns;
  for (std::size_t c = 0; c < columns.size(); ++c)  // with the single-task scores of the runs of "single"
    if (columns[c].key == info.name && view.group->values[c]) return {view.group->values[c], {}};
  if (view.group->strategy == "single") return {{}, "each task was trained alone: there is no stream"};
  std::vector<double> values;
  Summary out;
  for (const ComparedRun* run : view.runs) {
    const MetricValue value = compute_metric(info.name, run->result.inputs(run->result.matrix));
    if (value.value)
      values.push_back(*value.value);
    else
      out.missing = value.missing;
  }
  out.value = statistic(values);
  return out;
}

std::string metric_rows(const StreamView& stream) {
  std::string out;
  for (const MetricInfo& info : metric_catalogue()) {
    std::string cells;
    bool any = false;
    for (const GroupView& view : stream.groups) {
      const Summary summary = summary_of(stream, view, info);
      any = any || summary.value.has_value();
      cells += summary.value ? "<td>" + statistic_text(summary.value, 2) + "</td>"
                             : "<td class=\"none\" title=\"" + html::text(summary.missing) + "\">–</td>";
    }
    if (!any) continue;
    const std::string name(info.name);
    out += "<tr><th scope=\"row\">" +
           defined("<code>" + name + "</code>", metric_meaning(info), stream.id + "-m-" + html::id(name)) +
           "</th>" + cells + "</tr>\n";
  }
  return out;
}

std::string metric_legend(const StreamView& stream) {
  std::string out =
      "<p>T tasks; R[i][j] is the score on task j after stage i, R[0] the untrained base; S[j] the score of "
      "task j when it "
      "alone is trained from the base; b[j] that of a random model; n[j] the size of its test set.</p><dl "
      "class=\"metrics\">";
  for (const MetricInfo& info : metric_catalogue()) {
    const std::string name(info.name);
    out += "<div id=\"" + stream.id + "-m-" + html::id(name) + "\"><dt><code>" + name + "</code> " +
           html::text(info.title) + "</dt><dd><span class=\"formula\">" + html::text(info.formula) +
           "</span><br><span class=\"soft\">" +
           (info.better == Better::lower ? "lower is better" : "higher is better") + " · " +
           html::text(info.source) + (info.needs.empty() ? "" : " · needs " + html::text(info.needs)) +
           "</span></dd></div>\n";
  }
  return out + "</dl>";
}

/// A row a strategy, a column a task. @param value of a task by the mean matrix; tinted by its share of 100
template <class Value>
std::string task_table(const StreamView& stream, const char* caption, const char* tint, const Value& value) {
  std::string head = html::column("strategy"), rows;
  for (const std::string& task : stream.comparison->tasks) head += html::column(task);
  for (const GroupView& view : stream.groups) {
    if (view.group->bound) continue;
    const AccuracyMatrix mean = mean_matrix(view.runs, &RunResult::matrix);
    std::string cells;
    bool any = false;
    for (std::int64_t j = 0; j < mean.tasks(); ++j) {
      const std::optional<double> number = value(mean, j);
      any = any || number.has_value();
      const std::string share = number ? fixed(std::clamp(std::abs(*number), 0.0, 100.0), 0) : "0";
      cells += number ? "<td class=\"tint " + std::string(*number >= 0 ? tint : "other") +
                            "\" style=\"--w:" + share + "%\">" + fixed(*number, 1) + "</td>"
                      : std::string("<td class=\"none\">–</td>");
    }
    if (any) rows += "<tr>" + html::row_head(view.label) + cells + "</tr>\n";
  }
  return rows.empty() ? std::string() : html::table("data", caption, head, rows);
}

}  // namespace

std::size_t column_of(const Comparison& comparison, const std::string& key) {
  for (std::size_t c = 0; c < comparison.columns.size(); ++c)
    if (comparison.columns[c].key == key) return c;
  throw std::out_of_range("no column '" + key + "'");
}

std::string defined(const std::string& words, const std::string& meaning, const std::string& describes) {
  if (meaning.empty()) return words;
  return "<span class=\"def\" tabindex=\"0\"" +
         (describes.empty() ? std::string() : " aria-describedby=\"" + describes + "\"") + ">" + words +
         "<span class=\"tip\"" + (describes.empty() ? " role=\"tooltip\"" : " aria-hidden=\"true\"") + ">" +
         html::text(meaning) + "</span></span>";
}

std::string table_html(const Comparison& comparison, const Table& table, const std::string& caption,
                       const std::set<Section>& sections) {
  std::string head, rows;
  std::vector<std::size_t> kept;
  std::size_t known = 0;  // columns of the table stand in the order of the comparison's
  for (std::size_t c = 0; c < table.columns().size(); ++c) {
    const std::string& title = table.columns()[c].title;
    std::size_t k = known;
    while (k < comparison.columns.size() && comparison.columns[k].title != title) ++k;
    const bool is_value = k < comparison.columns.size();
    if (is_value) known = k + 1;
    if (is_value && !sections.contains(comparison.columns[k].section)) continue;
    kept.push_back(c);
    head += "<th scope=\"col\">" +
            defined(html::text(title, 40), is_value ? meaning_of(comparison.columns[k].key) : "") + "</th>";
  }
  for (const auto& cells : table.cells()) {
    std::string row;
    bool empty = true;
    for (const std::size_t c : kept) {
      if (c == 0) {
        row += html::row_head(cells[c].text);
        continue;
      }
      const std::string words = html::text(cells[c].text, 120);
      empty = empty && words.empty();
      row += cells[c].best ? "<td class=\"best\"><b>" + words + "</b></td>" : "<td>" + words + "</td>";
    }
    if (!empty) rows += "<tr>" + row + "</tr>\n";
  }
  return html::table("data sortable", caption, head, rows);
}

std::string findings(const StreamView& stream) {
  const Comparison& comparison = *stream.comparison;
  const ComparedGroup* const best = leader(comparison, "acc", Better::higher);
  if (best == nullptr) return {};
  std::string out = name_of(*best) + " ends with " +
                    (comparison.groups.size() > 1 ? "the highest mean score, " : "a mean score of ") +
                    value_text(comparison, *best, "acc") + " %";
  if (best->values[column_of(comparison, "mft")])
    out += ", down from " + value_text(comparison, *best, "mft") + " % as each task was learned";
  out += ". ";
  const ComparedGroup* const keeps = leader(comparison, "forgetting_chaudhry", Better::lower);
  if (keeps != nullptr && keeps != best)
    out += name_of(*keeps) + " forgets least: " + value_text(comparison, *keeps, "forgetting_chaudhry") +
           " points below the best earlier score, against " +
           value_text(comparison, *best, "forgetting_chaudhry") + ".";
  else if (keeps != nullptr)
    out += "It " + std::string(comparison.groups.size() > 1 ? "also forgets least: " : "forgets ") +
           value_text(comparison, *keeps, "forgetting_chaudhry") +
           " points against the best earlier score of each task.";
  return "<p class=\"lead\">" + out + "</p>\n";
}

std::string scores_section(const StreamView& stream) {
  const Comparison& comparison = *stream.comparison;
  const Table table = scores_table(comparison);
  std::string body =
      table_html(comparison, table, "Over all tasks, percent", {Section::quality}) +
      table_html(comparison, table, "Each task after the last stage, percent", {Section::task});
  if (!comparison.notes.empty()) {
    body += "<ul class=\"notes\">";
    for (const std::string& note : comparison.notes) body += "<li>" + html::text(note, 400) + "</li>";
    body += "</ul>\n";
  }
  return section(
      stream, "scores", "Scores",
      "Mean over seeds ± standard deviation. The best method of a column is bold; bounds do not compete.",
      body);
}

std::string metrics_section(const StreamView& stream) {
  std::string head = html::column("metric");
  for (const GroupView& view : stream.groups) head += html::column(view.label);
  const std::string rows = metric_rows(stream);
  std::string body =
      task_table(stream, "Forgotten of each task: best score before the last stage, less the last one",
                 "loss", [](const AccuracyMatrix& r, std::int64_t j) -> std::optional<double> {
                   const std::int64_t learned = r.learned_at(j), last = r.stages();
                   if (learned == 0 || learned >= last || !r.at(last, j)) return {};
                   std::optional<double> best;
                   for (std::int64_t i = learned; i < last; ++i)
                     if (r.at(i, j)) best = std::max(best.value_or(*r.at(i, j)), *r.at(i, j));
                   return best ? std::optional(*best - *r.at(last, j)) : std::nullopt;
                 });
  body += task_table(stream,
                     "Forward transfer to each task: score just before it is learned, less that of the base",
                     "gain", [](const AccuracyMatrix& r, std::int64_t j) -> std::optional<double> {
                       const std::int64_t learned = r.learned_at(j);
                       if (learned < 2 || !r.at(learned - 1, j) || !r.at(0, j)) return {};
                       return *r.at(learned - 1, j) - *r.at(0, j);
                     });
  if (!rows.empty()) body += html::table("data", "All metrics, each by its named definition", head, rows);
  body += folded("What each metric means", metric_legend(stream));
  return section(stream, "metrics", "Forgetting and transfer",
                 "Definitions of one word differ between papers; compare only numbers of one name.", body);
}

}  // namespace mcit::page
