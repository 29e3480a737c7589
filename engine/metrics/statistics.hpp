#pragma once
/// What several runs say about a difference: deviations, intervals, ranks. No number here is random beyond
/// the seed it is given.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace mcit {

/// Mean over runs. The deviation is the sample's (divided by n - 1) and needs two runs.
struct Statistic {
  double mean = 0.0;
  std::optional<double> deviation;
  std::int64_t runs = 0;
};
/// @return nothing for no values
std::optional<Statistic> statistic(const std::vector<double>& values);

/// How much a result depends on the order of tasks: of the means by order, the sample's deviation and
/// max - min.
struct OrderSensitivity {
  double mean = 0.0;
  double deviation = 0.0;
  double range = 0.0;
  std::int64_t orders = 0;
};
/// @return nothing for fewer than two orders
std::optional<OrderSensitivity> order_sensitivity(const std::vector<double>& mean_by_order);

struct Interval {
  double low = 0.0, high = 0.0;
};

/// differences[task][seed][row]: score of A minus score of B on a test row, both of the run with that seed.
/// The rows of a task are the same in every seed.
using PairedDifferences = std::vector<std::vector<std::vector<double>>>;
/// Mean over tasks of the mean over seeds and rows.
double mean_difference(const PairedDifferences& differences);

/// What is drawn anew, with replacement. Rows are drawn within each task, the same for all seeds; seeds are
/// drawn for all tasks together.
enum class Resampled { rows, seeds, rows_and_seeds };
struct BootstrapOptions {
  std::int64_t resamples = 10000;
  double level = 0.95;  ///< of the interval, between 0 and 1
  std::uint64_t seed = 1;
};
/// Intervals of each task's mean difference and of their mean, all from the same resamples.
struct PairedIntervals {
  std::vector<Interval> tasks;
  Interval mean;
};
/// Percentile intervals (Efron 1979), quantiles interpolated linearly. Time: resamples x rows x seeds.
/// @throws std::invalid_argument for no task, an empty or ragged one, or options out of range.
PairedIntervals paired_bootstrap(const PairedDifferences& differences, Resampled what,
                                 const BootstrapOptions& options = {});

/// Wilcoxon's signed-rank test of paired differences, two-sided. Zeros are left out, ties share their rank.
struct Wilcoxon {
  double w = 0.0;  ///< the smaller of the two rank sums
  double p = 1.0;
  std::int64_t pairs = 0;  ///< without zeros
  bool exact = true;       ///< over all signs, up to 50 pairs; then by the normal law with ties corrected
};
Wilcoxon wilcoxon_signed_rank(const std::vector<double>& differences);

/// Friedman's test with Nemenyi's critical difference, as Demšar (JMLR 2006) has them for comparing methods.
struct Friedman {
  std::vector<double> mean_ranks;  ///< by method; 1 is best
  std::int64_t blocks = 0;
  double chi_square = 0.0;  ///< corrected for ties
  double p = 1.0;           ///< by the chi-square law with methods - 1 degrees of freedom
  double critical_difference = 0.0;
};
/// @param scores [block][method], higher is better; ties share the mean rank
/// @throws std::invalid_argument for fewer than 2 methods or blocks, or a ragged table
Friedman friedman(const std::vector<std::vector<double>>& scores, double alpha = 0.05);

/// Maximal sets of methods whose mean ranks lie within the critical difference, best first; indices by rank.
std::vector<std::vector<std::size_t>> indistinct_groups(const Friedman& test);

/// P(range of `groups` standard normals <= q), and its inverse: the studentised range with infinitely many
/// degrees of freedom, by quadrature to 1e-9.
double studentized_range(double q, std::int64_t groups);
double studentized_range_quantile(double probability, std::int64_t groups);
/// q_α √(k (k + 1) / (6 N)), q_α the quantile of the studentised range over √2.
double nemenyi_critical_difference(std::int64_t methods, std::int64_t blocks, double alpha);
/// P(χ² >= x) for whole degrees of freedom.
double chi_square_tail(double x, std::int64_t degrees);

}  // namespace mcit
