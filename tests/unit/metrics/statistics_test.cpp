#include "metrics/statistics.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "core/json.hpp"

namespace mcit {
namespace {

using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;

/// Written by tests/golden/statistics.py: scipy 1.15, or every case counted.
const Json& golden() {
  static const Json json = read_json(std::string(MCIT_SOURCE_DIR) + "/tests/golden/statistics.json");
  return json;
}

TEST_CASE("the studentised range has scipy's quantiles") {
  REQUIRE(golden()["studentized_range"].size() == 40);
  for (const Json& c : golden()["studentized_range"]) {
    INFO(c.dump());
    const auto groups = c["groups"].get<std::int64_t>();
    const double q = c["q"], probability = c["probability"];
    CHECK_THAT(studentized_range_quantile(probability, groups), WithinAbs(q, 1e-6));
    CHECK_THAT(studentized_range(q, groups), WithinAbs(probability, 1e-6));
  }
  // Demšar 2006, table 5a: q_0.05 for 2, 5 and 10 classifiers, printed to three decimals.
  for (const auto& [groups, printed] : {std::pair(2, 1.960), std::pair(5, 2.728), std::pair(10, 3.164)})
    CHECK_THAT(studentized_range_quantile(0.95, groups) / std::sqrt(2.0), WithinAbs(printed, 6e-4));
  CHECK(studentized_range(0.0, 3) == 0.0);
  CHECK_THROWS_AS(studentized_range_quantile(1.0, 3), std::invalid_argument);
}

TEST_CASE("the tail of chi-square is scipy's") {
  for (const Json& c : golden()["chi_square"]) {
    INFO(c.dump());
    CHECK_THAT(chi_square_tail(c["x"], c["degrees"]), WithinRel(c["p"].get<double>(), 1e-10));
  }
  CHECK(chi_square_tail(0.0, 4) == 1.0);
}

TEST_CASE("Friedman's test and Nemenyi's critical difference, ties included") {
  REQUIRE(golden()["friedman"].size() == 5);
  for (const Json& c : golden()["friedman"]) {
    INFO(c.dump());
    const Friedman test = friedman(c["scores"].get<std::vector<std::vector<double>>>());
    const auto ranks = c["mean_ranks"].get<std::vector<double>>();
    REQUIRE(test.mean_ranks.size() == ranks.size());
    for (std::size_t i = 0; i < ranks.size(); ++i) CHECK_THAT(test.mean_ranks[i], WithinAbs(ranks[i], 1e-12));
    CHECK_THAT(test.chi_square, WithinRel(c["chi_square"].get<double>(), 1e-10));
    CHECK_THAT(test.p, WithinRel(c["p"].get<double>(), 1e-9));
    CHECK_THAT(test.critical_difference, WithinAbs(c["critical_difference"].get<double>(), 1e-6));
  }
  const Friedman tied = friedman({{1, 1, 1}, {2, 2, 2}});
  CHECK(tied.mean_ranks == std::vector<double>{2, 2, 2});
  CHECK(tied.p == 1.0);
  CHECK_THROWS_AS(friedman({{1, 2}}), std::invalid_argument);
  CHECK_THROWS_AS(friedman({{1, 2}, {1, 2, 3}}), std::invalid_argument);
}

TEST_CASE("methods that are not told apart form maximal groups") {
  Friedman test;
  test.mean_ranks = {3.0, 1.0, 1.8, 4.2};
  test.critical_difference = 1.2;
  CHECK(indistinct_groups(test) == std::vector<std::vector<std::size_t>>{{1, 2}, {2, 0}, {0, 3}});
  test.critical_difference = 5.0;
  CHECK(indistinct_groups(test) == std::vector<std::vector<std::size_t>>{{1, 2, 0, 3}});
  test.critical_difference = 0.5;
  CHECK(indistinct_groups(test).size() == 4);
}

TEST_CASE("Wilcoxon's signed-rank test, exact with ties, by the normal law for many pairs") {
  REQUIRE(golden()["wilcoxon"].size() == 9);
  for (const Json& c : golden()["wilcoxon"]) {
    INFO(c.dump());
    const Wilcoxon test = wilcoxon_signed_rank(c["d"].get<std::vector<double>>());
    CHECK(test.w == c["w"].get<double>());
    CHECK(test.exact == c["exact"].get<bool>());
    CHECK_THAT(test.p, WithinRel(c["p"].get<double>(), 1e-9));
  }
  const Wilcoxon none = wilcoxon_signed_rank({0.0, 0.0});
  CHECK(none.pairs == 0);
  CHECK(none.p == 1.0);
}

TEST_CASE("the paired bootstrap approaches the distribution over all resamples") {
  const std::map<std::string, Resampled> kinds{
      {"rows", Resampled::rows}, {"seeds", Resampled::seeds}, {"rows_and_seeds", Resampled::rows_and_seeds}};
  for (const Json& c : golden()["bootstrap"]) {
    INFO(c["what"]);
    const auto differences = c["differences"].get<PairedDifferences>();
    CHECK_THAT(mean_difference(differences), WithinAbs(c["mean"].get<double>(), 1e-12));
    BootstrapOptions options{200000, 0.9, 7};
    const Interval interval = paired_bootstrap(differences, kinds.at(c["what"]), options).mean;
    // A quantile of 200,000 draws lies within 0.1 % of its rank; the densest part of these distributions
    // moves less than 3 % of the spread for that. Seeds alone have 27 resamples: the quantile hits one.
    const double near = 0.03 * c["spread"].get<double>();
    CHECK_THAT(interval.low, WithinAbs(c["low"].get<double>(), near));
    CHECK_THAT(interval.high, WithinAbs(c["high"].get<double>(), near));
    const Interval again = paired_bootstrap(differences, kinds.at(c["what"]), options).mean;
    CHECK(again.low == interval.low);
    options = {50, 0.9, 7};
    const Interval few = paired_bootstrap(differences, kinds.at(c["what"]), options).mean;
    options.seed = 8;
    if (c["what"] != "seeds")  // of 27 resamples, both seeds find the same
      CHECK(paired_bootstrap(differences, kinds.at(c["what"]), options).mean.low != few.low);
  }
}

TEST_CASE("the bootstrap refuses what is not paired") {
  CHECK_THROWS_AS(paired_bootstrap({}, Resampled::rows), std::invalid_argument);
  CHECK_THROWS_AS(paired_bootstrap({{{1.0, 2.0}, {1.0}}}, Resampled::rows), std::invalid_argument);
  CHECK_THROWS_AS(paired_bootstrap({{{1.0}}, {{1.0}, {1.0}}}, Resampled::rows), std::invalid_argument);
  CHECK_THROWS_AS(paired_bootstrap({{{}}}, Resampled::rows), std::invalid_argument);
  CHECK_THROWS_AS(paired_bootstrap({{{1.0}}}, Resampled::rows, {100, 1.0, 1}), std::invalid_argument);
  const PairedIntervals two = paired_bootstrap({{{2.0, 2.0, 2.0}}, {{4.0}}}, Resampled::rows);
  CHECK(two.tasks.at(0).low == 2.0);
  CHECK(two.tasks.at(1).high == 4.0);
  CHECK(two.mean.low == 3.0);
}

TEST_CASE("order sensitivity is the spread of the orders' means") {
  CHECK_FALSE(order_sensitivity({50.0}).has_value());
  // By hand: mean 52, deviations -2, 2, 0: sqrt((4 + 4 + 0) / 2) = 2.
  const auto s = order_sensitivity({50.0, 54.0, 52.0});
  CHECK_THAT(s->mean, WithinAbs(52.0, 1e-12));
  CHECK_THAT(s->deviation, WithinAbs(2.0, 1e-12));
  CHECK_THAT(s->range, WithinAbs(4.0, 1e-12));
  CHECK(s->orders == 3);
}

}  // namespace
}  // namespace mcit
