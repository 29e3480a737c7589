#include "report/orders.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/text.hpp"
#include "metrics/reorder.hpp"

namespace mcit {
namespace {

constexpr int kDigits = 2;

/// A run that holds for every order, as it would have been in this one. Where nothing was trained all rows
/// are the same, and its stages are those of this order: what counts tasks met so far needs that.
RunResult in_order(const RunResult& run, const std::vector<std::string>& order) {
  RunResult out = with_tasks_in_order(run, order);
  if (run.total_cost().trainable_parameters > 0 || run.stages.size() != order.size()) return out;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> stages;
  for (const std::string& task : order)
    stages.emplace_back(task, std::vector<std::int64_t>{static_cast<std::int64_t>(stages.size())});
  RunResult staged = make_result(run.suite, run.strategy, run.seed, out.tasks, stages);
  copy_rows(out, static_cast<std::int64_t>(order.size()), staged);
  staged.complete = run.complete;
  staged.provenance = run.provenance;
  return staged;
}

const ComparedGroup* find_group(const Comparison& comparison, const std::string& label) {
  const auto found = std::find_if(comparison.groups.begin(), comparison.groups.end(),
                                  [&](const ComparedGroup& group) { return group.label == label; });
  return found == comparison.groups.end() ? nullptr : &*found;
}

std::optional<Statistic> value_of(const Comparison& comparison, const std::string& label,
                                  const std::string& key) {
  const ComparedGroup* const group = find_group(comparison, label);
  for (std::size_t c = 0; group != nullptr && c < comparison.columns.size(); ++c)
    if (comparison.columns[c].key == key) return group->values[c];
  return {};
}

/// Lines of all orders, in the order in which they first appear.
std::vector<const ComparedGroup*> lines_of(const std::vector<Comparison>& orders) {
  std::vector<const ComparedGroup*> lines;
  for (const Comparison& order : orders)
    for (const ComparedGroup& group : order.groups)
      if (std::none_of(lines.begin(), lines.end(),
                       [&](const ComparedGroup* known) { return known->label == group.label; }))
        lines.push_back(&group);
  return lines;
}

Comparison over(const std::vector<Comparison>& orders) {
  Comparison out = orders.front();
  out.groups.clear();
  for (const ComparedGroup* const line : lines_of(orders)) {
    ComparedGroup group = *line;
    group.values.clear();
    for (const ComparedColumn& column : out.columns) {
      std::vector<double> means;
      std::optional<Statistic> first;
      for (const Comparison& order : orders) {
        const auto value = value_of(order, line->label, column.key);
        if (!value) continue;
        if (!first) first = value;
        means.push_back(value->mean);
      }
      if (line->bound && first) {
        first->mean = statistic(means)->mean;
        group.values.push_back(first);
      } else {
        group.values.push_back(statistic(means));
      }
    }
    out.groups.push_back(std::move(group));
  }
  out.notes = {"mean over " + std::to_string(orders.size()) +
               " orders of the means over seeds; ± is the deviation between orders, for lines that do not "
               "depend on the order (zero_shot, single, joint) that between seeds"};
  for (const Comparison& order : orders)
    for (const std::string& note : order.notes)
      if (std::find(out.notes.begin(), out.notes.end(), note) == out.notes.end()) out.notes.push_back(note);
  return out;
}

OrderLine sensitivity_of(const std::vector<Comparison>& orders, const std::string& label) {
  OrderLine out{label, {}, {}, {}, {}, {}};
  std::vector<double> means, variances;
  for (const Comparison& order : orders) {
    const auto acc = value_of(order, label, "acc");
    out.orders.push_back(acc);
    if (!acc) continue;
    means.push_back(acc->mean);
    if (acc->deviation) variances.push_back(*acc->deviation * *acc->deviation);
  }
  if (const auto overall = statistic(means)) out.mean = overall->mean;
  if (const auto variance = statistic(variances)) out.over_seeds = std::sqrt(variance->mean);
  if (const auto between = order_sensitivity(means)) {
    out.over_orders = between->deviation;
    out.range = between->range;
  }
  return out;
}

std::string number(const std::optional<double>& value) { return value ? fixed(*value, kDigits) : "–"; }

}  // namespace

OrderStudy study_orders(const std::vector<OrderedRun>& runs,
                        const std::vector<std::vector<std::string>>& orders) {
  OrderStudy study;
  for (std::size_t i = 0; i < orders.size(); ++i) {
    std::vector<ComparedRun> members;
    for (const OrderedRun& one : runs) {
      if (!one.every_order)
        members.push_back({one.run.path, in_order(one.run.result, orders[i])});
      else if (one.run.result.task_names() == orders[i])
        members.push_back(one.run);
    }
    if (members.empty()) continue;
    study.names.push_back("o" + std::to_string(i + 1));
    study.orders.push_back(compare_runs(members).front());
  }
  if (study.orders.size() < 2) return study;
  study.overall = over(study.orders);
  for (const ComparedGroup* const line : lines_of(study.orders))
    if (!line->bound) study.sensitivity.push_back(sensitivity_of(study.orders, line->label));
  return study;
}

Table sensitivity_table(const OrderStudy& study) {
  std::vector<TableColumn> columns{{"ACC", false}};
  for (const std::string& name : study.names) columns.push_back({name, true});
  for (const char* title : {"mean", "± seeds", "± orders", "range"}) columns.push_back({title, true});
  Table table(columns);
  for (const OrderLine& line : study.sensitivity) {
    std::vector<TableCell> cells{{line.label, false}};
    for (const auto& order : line.orders) cells.push_back({statistic_text(order, kDigits), false});
    for (const auto* value : {&line.mean, &line.over_seeds, &line.over_orders, &line.range})
      cells.push_back({number(*value), false});
    table.row(std::move(cells));
  }
  return table;
}

std::string orders_terminal(const OrderStudy& study, int width, bool colours) {
  if (!study.overall) return comparison_terminal(study.orders, width, colours);
  const Comparison& overall = *study.overall;
  std::string out = overall.suite + ", " + std::to_string(study.orders.size()) + " orders of its tasks\n\n";
  for (std::size_t i = 0; i < study.orders.size(); ++i)
    out += study.names[i] + ": " + joined(study.orders[i].tasks, " → ") + '\n';
  out += '\n' + scores_table(overall).terminal(width, colours) + '\n';
  out += costs_table(overall).terminal(width, colours) + '\n';
  if (!study.sensitivity.empty()) out += sensitivity_table(study).terminal(width, colours) + '\n';
  for (const std::string& note : overall.notes) out += "note: " + note + '\n';
  return out;
}

std::string orders_markdown(const OrderStudy& study) {
  if (!study.overall) return comparison_markdown(study.orders);
  const Comparison& overall = *study.overall;
  std::string out = "# " + overall.suite + ", " + std::to_string(study.orders.size()) + " orders\n\n";
  for (std::size_t i = 0; i < study.orders.size(); ++i)
    out += "- " + study.names[i] + ": " + joined(study.orders[i].tasks, " → ") + '\n';
  out += "\n## Over orders\n\n" + scores_table(overall).markdown() + '\n' + costs_table(overall).markdown();
  if (!study.sensitivity.empty())
    out += "\n### Sensitivity to the order\n\n" + sensitivity_table(study).markdown();
  for (const std::string& note : overall.notes) out += "\n- " + note;
  out += '\n';
  for (std::size_t i = 0; i < study.orders.size(); ++i) {
    // Its heading names the suite; here it is the order that tells them apart.
    const std::string table = comparison_markdown({study.orders[i]});
    out += "\n## Order " + study.names[i] + table.substr(table.find('\n'));
  }
  return out;
}

std::string orders_csv(const OrderStudy& study) {
  std::string out;
  const auto add = [&out](const std::string& name, const Comparison& comparison) {
    std::istringstream lines(comparison_csv({comparison}));
    std::string line;
    std::getline(lines, line);
    if (out.empty()) out = "order," + line + '\n';
    while (std::getline(lines, line)) out += name + "," + line + '\n';
  };
  for (std::size_t i = 0; i < study.orders.size(); ++i) add(study.names[i], study.orders[i]);
  if (study.overall) add("all", *study.overall);
  return out;
}

}  // namespace mcit
