#pragma once
/// What the runs at hand allow to be said about strategies: ranks, sensitivity to the order of tasks, paired
/// differences.

#include <optional>
#include <string>
#include <vector>

#include "metrics/statistics.hpp"
#include "report/comparison.hpp"
#include "report/document.hpp"

namespace mcit {

/// Strategies ranked by ACC within each block: one suite, order and seed. Bounds take no part.
struct RankTable {
  std::vector<std::string> labels;
  Friedman test;
  double alpha = 0.05;
  std::vector<std::string> notes;
};
/// @return nothing for fewer than 3 strategies or 2 blocks that all of them have
std::optional<RankTable> rank_strategies(const std::vector<Comparison>& comparisons, double alpha = 0.05);

/// ACC, mean over seeds, by order of tasks.
struct OrderTable {
  std::string suite;
  std::vector<std::string> labels;
  std::vector<OrderSensitivity> values;
};
/// One for each suite whose tasks the runs stream in two orders or more.
std::vector<OrderTable> order_tables(const std::vector<Comparison>& comparisons);

/// Final scores of A minus those of B, in runs of the same seeds on the same test rows.
struct PairedLine {
  std::string task;                           ///< "mean" for the mean over tasks
  double a = 0.0, b = 0.0, difference = 0.0;  ///< means over seeds, percent
  std::optional<Interval> rows, seeds, both;  ///< of the difference
};
struct PairedComparison {
  std::string suite, a, b;
  std::vector<std::uint64_t> seed_list;
  double level = 0.95;
  std::vector<PairedLine> lines;  ///< tasks, then the mean
  Wilcoxon wilcoxon;              ///< of the tasks' differences
  std::vector<std::string> notes;
};
/// @param a, b labels of groups as the tables show them, or names of strategies. Row scores are read from the
/// runs' predictions; where there are none, only seeds are drawn.
/// @throws ConfigError for an unknown or ambiguous name or no common seed, DataError for predictions that do
/// not belong together
PairedComparison compare_pair(const Comparison& comparison, const std::vector<ComparedRun>& runs,
                              const std::string& a, const std::string& b,
                              const BootstrapOptions& options = {});

std::vector<Block> rank_blocks(const RankTable& table);
std::vector<Block> order_blocks(const std::vector<OrderTable>& tables);
std::vector<Block> paired_blocks(const PairedComparison& paired);
Json ranks_json(const RankTable& table);
Json orders_json(const std::vector<OrderTable>& tables);
Json paired_json(const PairedComparison& paired);

}  // namespace mcit
