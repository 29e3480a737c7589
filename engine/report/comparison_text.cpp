#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/text.hpp"
#include "report/comparison.hpp"

namespace mcit {
namespace {

/// 1234567 -> "1.23 M": parameters are compared by magnitude.
std::string count_text(double value) {
  constexpr double kThousand = 1e3;
  constexpr double kMillion = 1e6;
  constexpr double kBillion = 1e9;
  if (value >= kBillion) return fixed(value / kBillion, 2) + " G";
  if (value >= kMillion) return fixed(value / kMillion, 2) + " M";
  if (value >= 10 * kThousand) return fixed(value / kThousand, 1) + " k";
  return fixed(value, 0);
}

bool is_count(const ComparedColumn& column) { return column.key.ends_with("_parameters"); }

std::string cell_text(const ComparedColumn& column, const std::optional<Statistic>& value) {
  if (value && is_count(column)) return count_text(value->mean);
  return statistic_text(value, column.digits);
}

/// The best value of a column among the methods; nothing when they all have the same.
std::optional<double> best_of(const Comparison& comparison, std::size_t column) {
  std::vector<double> means;
  for (const ComparedGroup& group : comparison.groups)
    if (!group.bound && group.values[column]) means.push_back(group.values[column]->mean);
  if (means.empty()) return {};
  const auto [lowest, highest] = std::minmax_element(means.begin(), means.end());
  if (*lowest == *highest) return {};
  return comparison.columns[column].better == Better::lower ? *lowest : *highest;
}

bool has_value(const Comparison& comparison, std::size_t column) {
  return std::any_of(comparison.groups.begin(), comparison.groups.end(),
                     [column](const ComparedGroup& group) { return group.values[column].has_value(); });
}

std::vector<std::size_t> shown_columns(const Comparison& comparison, bool costs) {
  std::vector<std::size_t> shown;
  for (std::size_t c = 0; c < comparison.columns.size(); ++c) {
    const Section section = comparison.columns[c].section;
    if ((section == Section::cost) == costs && (section == Section::task || has_value(comparison, c)))
      shown.push_back(c);
  }
  return shown;
}

Table make_table(const Comparison& comparison, bool costs) {
  const std::vector<std::size_t> shown = shown_columns(comparison, costs);
  const bool seeds = std::any_of(comparison.groups.begin(), comparison.groups.end(),
                                 [](const ComparedGroup& group) { return group.seeds.size() > 1; });
  std::vector<TableColumn> columns{{"strategy", false}};
  if (seeds) columns.push_back({"seeds", true});
  for (const std::size_t c : shown) columns.push_back({comparison.columns[c].title, true});
  Table table(columns);
  for (const ComparedGroup& group : comparison.groups) {
    std::vector<TableCell> cells{{group.label, false}};
    if (seeds) cells.push_back({std::to_string(group.seeds.size()), false});
    for (const std::size_t c : shown) {
      const std::optional<double> best = group.bound ? std::nullopt : best_of(comparison, c);
      cells.push_back({cell_text(comparison.columns[c], group.values[c]),
                       best && group.values[c] && group.values[c]->mean == *best});
    }
    table.row(std::move(cells));
  }
  const bool chance = std::any_of(comparison.chance.begin(), comparison.chance.end(),
                                  [](const auto& c) { return c.has_value(); });
  if (!costs && chance) {
    std::vector<TableCell> cells{{"(chance)", false}};
    if (seeds) cells.push_back({"", false});
    for (const std::size_t c : shown) {
      const bool task = comparison.columns[c].section == Section::task;  // tasks come first, in order
      cells.push_back({task && comparison.chance[c] ? fixed(*comparison.chance[c], 2) : "", false});
    }
    table.row(std::move(cells));
  }
  return table;
}

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json value_json(const std::optional<Statistic>& value) {
  if (!value) return nullptr;
  return {{"mean", value->mean}, {"std", optional_json(value->deviation)}, {"runs", value->runs}};
}

}  // namespace

std::string statistic_text(const std::optional<Statistic>& value, int digits) {
  if (!value) return "–";
  const std::string mean = fixed(value->mean, digits);
  return value->deviation ? mean + " ± " + fixed(*value->deviation, digits) : mean;
}

Table scores_table(const Comparison& comparison) { return make_table(comparison, false); }
Table costs_table(const Comparison& comparison) { return make_table(comparison, true); }

std::string comparison_terminal(const std::vector<Comparison>& comparisons, int width, bool colours) {
  std::string out;
  if (comparisons.size() > 1)
    out += "The runs belong to " + std::to_string(comparisons.size()) +
           " different streams; each has its own tables.\n\n";
  for (const Comparison& comparison : comparisons) {
    if (&comparison != &comparisons.front()) out += '\n';
    out += comparison.suite + ": " + joined(comparison.tasks, " → ") + "\n\n";
    out += scores_table(comparison).terminal(width, colours) + '\n';
    out += costs_table(comparison).terminal(width, colours);
    for (const std::string& note : comparison.notes)
      out += (&note == &comparison.notes.front() ? "\nnote: " : "note: ") + note + '\n';
  }
  return out;
}

std::string comparison_markdown(const std::vector<Comparison>& comparisons) {
  std::string out;
  for (const Comparison& comparison : comparisons) {
    if (!out.empty()) out += '\n';
    out += "## " + comparison.suite + "\n\n" + joined(comparison.tasks, " → ") + "\n\n";
    out += scores_table(comparison).markdown() + '\n' + costs_table(comparison).markdown();
    for (const std::string& note : comparison.notes) out += "\n- " + note;
    out += '\n';
  }
  return out;
}

std::string comparison_csv(const std::vector<Comparison>& comparisons) {
  std::string out = "suite,strategy,label,seeds,column,mean,std,runs\n";
  for (const Comparison& comparison : comparisons) {
    for (const ComparedGroup& group : comparison.groups) {
      std::string seeds;
      for (const std::uint64_t seed : group.seeds)
        seeds.append(seeds.empty() ? "" : " ").append(std::to_string(seed));
      const std::string front = csv_field(comparison.suite) + "," + csv_field(group.strategy) + "," +
                                csv_field(group.label) + "," + seeds + ",";
      for (std::size_t c = 0; c < comparison.columns.size(); ++c) {
        const auto& value = group.values[c];
        if (!value) continue;
        out += front + csv_field(comparison.columns[c].key) + "," + shortest(value->mean) + "," +
               (value->deviation ? shortest(*value->deviation) : "") + "," + std::to_string(value->runs) +
               "\n";
      }
    }
  }
  return out;
}

Json comparison_json(const std::vector<Comparison>& comparisons) {
  Json out = Json::array();
  for (const Comparison& comparison : comparisons) {
    Json groups = Json::array();
    for (const ComparedGroup& group : comparison.groups) {
      Json values = Json::object();
      for (std::size_t c = 0; c < comparison.columns.size(); ++c)
        values[comparison.columns[c].key] = value_json(group.values[c]);
      groups.push_back({{"label", group.label},
                        {"strategy", group.strategy},
                        {"bound", group.bound},
                        {"seeds", group.seeds},
                        {"runs", group.runs},
                        {"values", values}});
    }
    Json chance = Json::array();
    for (const auto& value : comparison.chance) chance.push_back(optional_json(value));
    out.push_back({{"suite", comparison.suite},
                   {"tasks", comparison.tasks},
                   {"chance", chance},
                   {"groups", groups},
                   {"notes", comparison.notes}});
  }
  return {{"comparisons", out}};
}

std::vector<Block> comparison_blocks(const std::vector<Comparison>& comparisons) {
  std::vector<Block> blocks;
  for (const Comparison& comparison : comparisons) {
    blocks.push_back({comparison.suite + ": scores in percent",
                      {joined(comparison.tasks, " → ")},
                      scores_table(comparison),
                      comparison.notes});
    blocks.push_back({comparison.suite + ": costs", {}, costs_table(comparison), {}});
  }
  return blocks;
}

}  // namespace mcit
