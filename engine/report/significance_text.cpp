#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/text.hpp"
#include "report/significance.hpp"

namespace mcit {
namespace {

std::string interval_text(const std::optional<Interval>& interval) {
  return interval ? "[" + fixed(interval->low, 2) + ", " + fixed(interval->high, 2) + "]" : "–";
}

std::string p_text(double p) {
  constexpr double kSmall = 1e-4;
  constexpr int kDecimals = 4;
  return p < kSmall ? "< 0.0001" : "= " + fixed(p, kDecimals);
}

std::vector<std::size_t> by_rank(const Friedman& test) {
  std::vector<std::size_t> order(test.mean_ranks.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&test](std::size_t a, std::size_t b) { return test.mean_ranks[a] < test.mean_ranks[b]; });
  return order;
}

Json interval_json(const std::optional<Interval>& interval) {
  return interval ? Json::array({interval->low, interval->high}) : Json(nullptr);
}

std::string percent(double share) { return shortest(std::round(share * 1e4) / 1e2) + " %"; }

}  // namespace

std::vector<Block> rank_blocks(const RankTable& table) {
  Block block{"Mean ranks by ACC", {}, {}, {}};
  const Friedman& test = table.test;
  block.text.push_back("Over " + std::to_string(test.blocks) +
                       " blocks; 1 is best. Friedman: χ² = " + fixed(test.chi_square, 2) + ", p " +
                       p_text(test.p) + ". Critical difference (Nemenyi, α = " + shortest(table.alpha) +
                       "): " + fixed(test.critical_difference, 2) + ".");
  const auto groups = indistinct_groups(test);
  const bool lines = std::any_of(groups.begin(), groups.end(), [](const auto& g) { return g.size() > 1; });
  std::vector<TableColumn> columns{{"strategy", false}, {"mean rank", true}};
  for (const auto& group : groups)
    if (group.size() > 1) columns.push_back({"", false});
  Table out(columns);
  for (const std::size_t method : by_rank(test)) {
    std::vector<TableCell> cells{{table.labels[method], false}, {fixed(test.mean_ranks[method], 2), false}};
    for (const auto& group : groups)
      if (group.size() > 1)
        cells.push_back({std::find(group.begin(), group.end(), method) != group.end() ? "|" : "", false});
    out.row(std::move(cells));
  }
  block.table = std::move(out);
  block.notes.emplace_back(lines ? "strategies on one vertical line are not told apart"
                                 : "all strategies are told apart");
  block.notes.insert(block.notes.end(), table.notes.begin(), table.notes.end());
  return {block};
}

std::vector<Block> order_blocks(const std::vector<OrderTable>& tables) {
  std::vector<Block> blocks;
  for (const OrderTable& table : tables) {
    Table out({{"strategy", false}, {"orders", true}, {"ACC", true}, {"std", true}, {"max - min", true}});
    for (std::size_t i = 0; i < table.labels.size(); ++i) {
      const OrderSensitivity& value = table.values[i];
      out.row({{table.labels[i], false},
               {std::to_string(value.orders), false},
               {fixed(value.mean, 2), false},
               {fixed(value.deviation, 2), false},
               {fixed(value.range, 2), false}});
    }
    blocks.push_back({table.suite + ": sensitivity to the order of tasks",
                      {},
                      out,
                      {"over the means of seeds by order; std is the sample's"}});
  }
  return blocks;
}

std::vector<Block> paired_blocks(const PairedComparison& paired) {
  std::string seeds;
  for (const std::uint64_t seed : paired.seed_list)
    seeds.append(seeds.empty() ? "" : ", ").append(std::to_string(seed));
  Block block{paired.suite + ": " + paired.a + " - " + paired.b, {}, {}, paired.notes};
  block.text.push_back("Final scores in runs of the same seeds (" + seeds + "); " + percent(paired.level) +
                       " bootstrap intervals of the difference.");
  const bool rows =
      std::any_of(paired.lines.begin(), paired.lines.end(), [](const auto& l) { return l.rows.has_value(); });
  const bool by_seed = paired.seed_list.size() > 1;
  std::vector<TableColumn> columns{{"task", false}, {paired.a, true}, {paired.b, true}, {"difference", true}};
  if (rows) columns.push_back({"over rows", true});
  if (by_seed) columns.push_back({"over seeds", true});
  if (rows && by_seed) columns.push_back({"over both", true});
  Table table(columns);
  for (const PairedLine& line : paired.lines) {
    std::vector<TableCell> cells{{line.task, false},
                                 {fixed(line.a, 2), false},
                                 {fixed(line.b, 2), false},
                                 {fixed(line.difference, 2), false}};
    if (rows) cells.push_back({interval_text(line.rows), false});
    if (by_seed) cells.push_back({interval_text(line.seeds), false});
    if (rows && by_seed) cells.push_back({interval_text(line.both), false});
    table.row(std::move(cells));
  }
  block.table = std::move(table);
  block.notes.push_back("Wilcoxon's signed ranks over the " + std::to_string(paired.wilcoxon.pairs) +
                        " tasks that differ: W = " + shortest(paired.wilcoxon.w) + ", p " +
                        p_text(paired.wilcoxon.p));
  return {block};
}

Json ranks_json(const RankTable& table) {
  Json strategies = Json::array(), groups = Json::array();
  for (const std::size_t method : by_rank(table.test))
    strategies.push_back({{"label", table.labels[method]}, {"mean_rank", table.test.mean_ranks[method]}});
  for (const auto& group : indistinct_groups(table.test)) {
    Json labels = Json::array();
    for (const std::size_t method : group) labels.push_back(table.labels[method]);
    if (group.size() > 1) groups.push_back(labels);
  }
  return {{"metric", "acc"},
          {"blocks", table.test.blocks},
          {"strategies", strategies},
          {"chi_square", table.test.chi_square},
          {"p", table.test.p},
          {"alpha", table.alpha},
          {"critical_difference", table.test.critical_difference},
          {"not_told_apart", groups},
          {"notes", table.notes}};
}

Json orders_json(const std::vector<OrderTable>& tables) {
  Json out = Json::array();
  for (const OrderTable& table : tables)
    for (std::size_t i = 0; i < table.labels.size(); ++i)
      out.push_back({{"suite", table.suite},
                     {"label", table.labels[i]},
                     {"orders", table.values[i].orders},
                     {"acc", table.values[i].mean},
                     {"std", table.values[i].deviation},
                     {"range", table.values[i].range}});
  return out;
}

Json paired_json(const PairedComparison& paired) {
  Json lines = Json::array();
  for (const PairedLine& line : paired.lines)
    lines.push_back({{"task", line.task},
                     {"a", line.a},
                     {"b", line.b},
                     {"difference", line.difference},
                     {"over_rows", interval_json(line.rows)},
                     {"over_seeds", interval_json(line.seeds)},
                     {"over_both", interval_json(line.both)}});
  return {{"suite", paired.suite},
          {"a", paired.a},
          {"b", paired.b},
          {"seeds", paired.seed_list},
          {"level", paired.level},
          {"tasks", lines},
          {"wilcoxon",
           {{"w", paired.wilcoxon.w},
            {"p", paired.wilcoxon.p},
            {"pairs", paired.wilcoxon.pairs},
            {"exact", paired.wilcoxon.exact}}},
          {"notes", paired.notes}};
}

}  // namespace mcit
