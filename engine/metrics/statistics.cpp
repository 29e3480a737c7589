#include "metrics/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>
#include <stdexcept>

#include "core/random.hpp"

namespace mcit {
namespace {

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double sample_deviation(const std::vector<double>& values, double mean) {
  double squares = 0.0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / static_cast<double>(values.size() - 1));
}

/// Ranks from 1, smallest first; equal values share the mean of their ranks.
/// @param ties receives Σ t³ - t over runs of t equal values
std::vector<double> ranks_of(const std::vector<double>& values, double& ties) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (std::size_t i = 0, end = 0; i < order.size(); i = end) {
    while (end < order.size() && values[order[end]] == values[order[i]]) ++end;
    const auto equal = static_cast<double>(end - i);
    ties += equal * equal * equal - equal;
    for (std::size_t k = i; k < end; ++k) ranks[order[k]] = (static_cast<double>(i + end) + 1.0) / 2.0;
  }
  return ranks;
}

double normal_density(double z) { return std::exp(-0.5 * z * z) / std::sqrt(2.0 * std::numbers::pi); }
double normal_cdf(double z) { return 0.5 * std::erfc(-z / std::numbers::sqrt2); }

void check(const PairedDifferences& differences, const BootstrapOptions& options) {
  if (options.resamples < 1 || !(options.level > 0.0 && options.level < 1.0))
    throw std::invalid_argument("the bootstrap needs at least one resample and a level between 0 and 1");
  if (differences.empty() || differences.front().empty())
    throw std::invalid_argument("the bootstrap needs a task and a seed");
  for (const auto& task : differences)
    for (const auto& rows : task)
      if (task.size() != differences.front().size() || rows.empty() || rows.size() != task.front().size())
        throw std::invalid_argument("the bootstrap needs the same seeds and rows everywhere");
}

/// How often each of n things is drawn in n draws; once each when they stand still. Two draws of 32 bits a
/// word: no thing is favoured by more than n / 2^32.
void draw(Rng& rng, bool moves, std::vector<double>& times) {
  const std::uint64_t n = times.size();
  std::fill(times.begin(), times.end(), moves ? 0.0 : 1.0);
  for (std::uint64_t i = 0; moves && i < n; i += 2) {
    const std::uint64_t bits = rng.next();
    times[(bits >> 32U) * n >> 32U] += 1.0;
    if (i + 1 < n) times[(bits & 0xffffffffU) * n >> 32U] += 1.0;
  }
}

/// Mean over seeds, where seeds stand still.
PairedDifferences over_seeds(const PairedDifferences& differences) {
  PairedDifferences out;
  for (const auto& task : differences) {
    std::vector<double> rows(task.front().size(), 0.0);
    for (const auto& of_seed : task)
      for (std::size_t r = 0; r < rows.size(); ++r) rows[r] += of_seed[r] / static_cast<double>(task.size());
    out.push_back({std::move(rows)});
  }
  return out;
}

/// By linear interpolation between order statistics.
double quantile(const std::vector<double>& sorted, double probability) {
  const double at = probability * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

/// P(rank sum of the positive signs <= w), every pattern of signs equally likely. Twice the ranks are whole.
double exact_tail(const std::vector<double>& ranks, double w) {
  double total = 0.0;
  for (const double rank : ranks) total += 2.0 * rank;
  std::vector<double> ways(static_cast<std::size_t>(std::llround(total)) + 1, 0.0);
  ways[0] = 1.0;
  for (const double rank : ranks) {
    const auto step = static_cast<std::size_t>(std::llround(2.0 * rank));
    for (std::size_t sum = ways.size(); sum-- > step;) ways[sum] += ways[sum - step];
  }
  const auto last = static_cast<std::size_t>(std::llround(2.0 * w));
  double reached = 0.0;
  for (std::size_t sum = 0; sum <= last && sum < ways.size(); ++sum) reached += ways[sum];
  return reached / std::exp2(static_cast<double>(ranks.size()));
}

}  // namespace

std::optional<Statistic> statistic(const std::vector<double>& values) {
  if (values.empty()) return {};
  Statistic out{mean_of(values), {}, static_cast<std::int64_t>(values.size())};
  if (values.size() > 1) out.deviation = sample_deviation(values, out.mean);
  return out;
}

std::optional<OrderSensitivity> order_sensitivity(const std::vector<double>& mean_by_order) {
  if (mean_by_order.size() < 2) return {};
  const double mean = mean_of(mean_by_order);
  const auto [least, most] = std::minmax_element(mean_by_order.begin(), mean_by_order.end());
  return OrderSensitivity{mean, sample_deviation(mean_by_order, mean), *most - *least,
                          static_cast<std::int64_t>(mean_by_order.size())};
}

double mean_difference(const PairedDifferences& differences) {
  double sum = 0.0;
  for (const auto& task : differences)
    for (const auto& rows : task) sum += mean_of(rows) / static_cast<double>(task.size());
  return sum / static_cast<double>(differences.size());
}

PairedIntervals paired_bootstrap(const PairedDifferences& given, Resampled what,
                                 const BootstrapOptions& options) {
  check(given, options);
  const PairedDifferences differences = what == Resampled::rows ? over_seeds(given) : given;
  Rng rng(derive(options.seed, {"paired bootstrap"}));
  const std::size_t seeds = differences.front().size(), tasks = differences.size();
  std::vector<double> seed_times(seeds), row_times;
  std::vector<std::vector<double>> resampled(tasks + 1);  // the last: the mean over tasks
  for (std::int64_t b = 0; b < options.resamples; ++b) {
    draw(rng, what != Resampled::rows, seed_times);
    double sum = 0.0;
    for (std::size_t t = 0; t < tasks; ++t) {
      row_times.resize(differences[t].front().size());
      draw(rng, what != Resampled::seeds, row_times);
      double task_sum = 0.0;
      for (std::size_t s = 0; s < seeds; ++s)
        if (seed_times[s] > 0.0)
          task_sum += seed_times[s] *
                      std::inner_product(row_times.begin(), row_times.end(), differences[t][s].begin(), 0.0);
      resampled[t].push_back(task_sum / static_cast<double>(seeds * row_times.size()));
      sum += resampled[t].back();
    }
    resampled[tasks].push_back(sum / static_cast<double>(tasks));
  }
  std::vector<Interval> intervals;
  const double tail = (1.0 - options.level) / 2.0;
  for (std::vector<double>& values : resampled) {
    std::sort(values.begin(), values.end());
    intervals.push_back({quantile(values, tail), quantile(values, 1.0 - tail)});
  }
  PairedIntervals out{{}, intervals.back()};
  intervals.pop_back();
  out.tasks = std::move(intervals);
  return out;
}

Wilcoxon wilcoxon_signed_rank(const std::vector<double>& differences) {
  constexpr std::int64_t kMostExact = 50;
  std::vector<double> sizes, signs;
  for (const double difference : differences) {
    if (difference == 0.0) continue;
    sizes.push_back(std::abs(difference));
    signs.push_back(difference);
  }
  Wilcoxon out;
  out.pairs = static_cast<std::int64_t>(sizes.size());
  if (sizes.empty()) return out;
  double ties = 0.0, positive = 0.0;
  const std::vector<double> ranks = ranks_of(sizes, ties);
  for (std::size_t i = 0; i < ranks.size(); ++i) positive += signs[i] > 0.0 ? ranks[i] : 0.0;
  const auto n = static_cast<double>(out.pairs);
  out.w = std::min(positive, n * (n + 1.0) / 2.0 - positive);
  out.exact = out.pairs <= kMostExact;
  if (out.exact) {
    out.p = std::min(1.0, 2.0 * exact_tail(ranks, out.w));
  } else {
    const double variance = (n * (n + 1.0) * (2.0 * n + 1.0) - ties / 2.0) / 24.0;
    out.p = 2.0 * normal_cdf((out.w - n * (n + 1.0) / 4.0) / std::sqrt(variance));
  }
  return out;
}

Friedman friedman(const std::vector<std::vector<double>>& scores, double alpha) {
  if (scores.size() < 2 || scores.front().size() < 2)
    throw std::invalid_argument("Friedman's test needs two blocks and two methods");
  const std::size_t methods = scores.front().size();
  Friedman out;
  out.blocks = static_cast<std::int64_t>(scores.size());
  out.mean_ranks.assign(methods, 0.0);
  double ties = 0.0;
  for (const std::vector<double>& block : scores) {
    if (block.size() != methods)
      throw std::invalid_argument("Friedman's test needs every method in every block");
    std::vector<double> lost(block);
    for (double& score : lost) score = -score;  // the highest score has rank 1
    const std::vector<double> ranks = ranks_of(lost, ties);
    for (std::size_t m = 0; m < methods; ++m)
      out.mean_ranks[m] += ranks[m] / static_cast<double>(scores.size());
  }
  const auto k = static_cast<double>(methods), n = static_cast<double>(scores.size());
  double squares = 0.0;
  for (const double rank : out.mean_ranks) squares += (rank - (k + 1.0) / 2.0) * (rank - (k + 1.0) / 2.0);
  const double correction = 1.0 - ties / (n * k * (k * k - 1.0));
  const auto whole = static_cast<std::int64_t>(methods);
  if (correction > 0.0) {  // 0: everybody ties everywhere
    out.chi_square = 12.0 * n / (k * (k + 1.0)) * squares / correction;
    out.p = chi_square_tail(out.chi_square, whole - 1);
  }
  out.critical_difference = nemenyi_critical_difference(whole, out.blocks, alpha);
  return out;
}

std::vector<std::vector<std::size_t>> indistinct_groups(const Friedman& test) {
  constexpr double kRounding = 1e-9;  // mean ranks are sums of fractions
  std::vector<std::size_t> order(test.mean_ranks.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return test.mean_ranks[a] < test.mean_ranks[b]; });
  std::vector<std::vector<std::size_t>> out;
  std::size_t covered = 0;
  for (std::size_t first = 0; first < order.size(); ++first) {
    std::size_t end = first + 1;
    while (end < order.size() && test.mean_ranks[order[end]] - test.mean_ranks[order[first]] <=
                                     test.critical_difference + kRounding)
      ++end;
    if (end <= covered) continue;  // inside of the one before
    covered = end;
    out.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(first),
                     order.begin() + static_cast<std::ptrdiff_t>(end));
  }
  return out;
}

double studentized_range(double q, std::int64_t groups) {
  if (q <= 0.0) return 0.0;
  // The largest lies at z, the others within q below it. The trapezoidal rule is exact to rounding for so
  // smooth an integrand that vanishes at both ends.
  constexpr double kEnd = 9.0, kStep = 1.0 / 64.0;
  double sum = 0.0;
  for (double z = -kEnd; z <= kEnd; z += kStep)
    sum += normal_density(z) * std::pow(normal_cdf(z) - normal_cdf(z - q), static_cast<double>(groups - 1));
  return std::min(1.0, static_cast<double>(groups) * sum * kStep);
}

double studentized_range_quantile(double probability, std::int64_t groups) {
  if (!(probability > 0.0 && probability < 1.0) || groups < 2)
    throw std::invalid_argument("a quantile needs a probability between 0 and 1 and two groups");
  double low = 0.0, high = 40.0;  // far beyond any range of 18 standard deviations
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (studentized_range(middle, groups) < probability ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

double nemenyi_critical_difference(std::int64_t methods, std::int64_t blocks, double alpha) {
  const auto k = static_cast<double>(methods);
  return studentized_range_quantile(1.0 - alpha, methods) / std::numbers::sqrt2 *
         std::sqrt(k * (k + 1.0) / (6.0 * static_cast<double>(blocks)));
}

double chi_square_tail(double x, std::int64_t degrees) {
  if (x <= 0.0) return 1.0;
  // Integration by parts down to one or two degrees of freedom leaves a finite sum.
  const double half = 0.5 * x;
  const bool odd = degrees % 2 != 0;
  double tail = odd ? std::erfc(std::sqrt(half)) : 0.0;
  for (std::int64_t i = 0; i < degrees / 2; ++i) {
    const double power = static_cast<double>(i) + (odd ? 0.5 : 0.0);
    tail += std::exp(power * std::log(half) - half - std::lgamma(power + 1.0));
  }
  return std::min(1.0, tail);
}

}  // namespace mcit
