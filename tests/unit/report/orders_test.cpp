// Several orders of the same tasks: numbers stay with their order, and what it changes is measured.
#include "report/orders.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;
using Order = std::vector<std::string>;

const std::vector<Order> kOrders = {{"a", "b"}, {"b", "a"}};

/// Two stages in this order; `last` is the matrix's last row and so gives ACC.
OrderedRun run(const std::string& strategy, std::uint64_t seed, const Order& order, double first,
               double second, bool every = true) {
  RunResult result = make_result("two", strategy, seed, {{order[0], 10, {}}, {order[1], 10, {}}},
                                 {{order[0], {0}}, {order[1], {1}}});
  for (std::int64_t i = 0; i <= 2; ++i) {
    result.matrix.set(i, 0, first);
    result.matrix.set(i, 1, second);
  }
  result.complete = true;
  const std::string path = strategy + std::to_string(seed) + order[0];
  result.provenance.config = "seed = " + std::to_string(seed) + "\nout = \"" + path + "\"\n";
  return {{path, std::move(result)}, every};
}

double value(const Comparison& comparison, std::size_t group, const std::string& key) {
  for (std::size_t c = 0; c < comparison.columns.size(); ++c)
    if (comparison.columns[c].key == key) return comparison.groups.at(group).values.at(c).value().mean;
  FAIL(key);
  return 0.0;
}

TEST_CASE("mean, deviation between seeds, deviation between orders and range") {
  // ACC of the orders: (40, 44) and (50, 58); their means 42 and 54.
  const OrderStudy study = study_orders(
      {run("x", 1, kOrders[0], 30, 50), run("x", 2, kOrders[0], 40, 48), run("x", 1, kOrders[1], 60, 40),
       run("x", 2, kOrders[1], 70, 46), run("single", 1, kOrders[0], 80, 90, false)},
      kOrders);
  REQUIRE(study.orders.size() == 2);
  CHECK(study.names == Order{"o1", "o2"});
  CHECK(study.orders[1].tasks == kOrders[1]);
  REQUIRE(study.sensitivity.size() == 1);
  const OrderLine& x = study.sensitivity.front();
  CHECK_THAT(x.mean.value(), WithinAbs(48.0, 1e-12));
  CHECK_THAT(x.range.value(), WithinAbs(12.0, 1e-12));
  CHECK_THAT(x.over_orders.value(), WithinAbs(12.0 / std::sqrt(2.0), 1e-12));  // two values d apart: d / √2
  CHECK_THAT(x.over_seeds.value(), WithinAbs(std::sqrt((8.0 + 32.0) / 2.0), 1e-12));  // variances 4²/2, 8²/2

  // Tasks by name, whatever their column: a is 35 and 43 in the two orders.
  REQUIRE(study.overall.has_value());
  CHECK_THAT(value(*study.overall, 0, "final:a"), WithinAbs((35.0 + 43.0) / 2.0, 1e-12));
  CHECK_THAT(value(*study.overall, 0, "final:b"), WithinAbs((49.0 + 65.0) / 2.0, 1e-12));
  // single ran in the first order and stands in both, its tasks in their places.
  CHECK(study.orders[1].groups[1].strategy == "single");
  CHECK_THAT(value(study.orders[1], 1, "final:b"), WithinAbs(90.0, 1e-12));
  // Plasticity of the second order is measured by the task's name: (60 - 90 + 40 - 80) / 2 and 10 more each.
  CHECK_THAT(value(study.orders[1], 0, "fwt_plasticity"), WithinAbs((-35.0 - 27.0) / 2.0, 1e-12));

  CHECK_THAT(orders_terminal(study, 200, false), ContainsSubstring("o2: b → a"));
  CHECK_THAT(orders_terminal(study, 200, false), ContainsSubstring("12.00"));
  const std::string markdown = orders_markdown(study);
  CHECK_THAT(markdown, ContainsSubstring("## Order o2\n\nb → a"));
  CHECK_THAT(markdown, ContainsSubstring("± orders"));
  const std::string csv = orders_csv(study);
  CHECK_THAT(csv, ContainsSubstring("order,suite,strategy,"));
  CHECK_THAT(csv, ContainsSubstring("o2,two,x,x,1 2,final:a,43,"));
  CHECK_THAT(csv, ContainsSubstring("all,two,x,x,1 2,acc,48,"));
}

TEST_CASE("what trains nothing meets the tasks in each order") {
  // ACC is (50 + 10) / 2 in both; MAA, the mean over stages of the mean over tasks met so far, is not.
  const OrderStudy study = study_orders({run("zero_shot", 1, kOrders[0], 50, 10, false),
                                         run("x", 1, kOrders[0], 1, 2), run("x", 1, kOrders[1], 3, 4)},
                                        kOrders);
  CHECK_THAT(value(study.orders[0], 0, "maa"), WithinAbs((50.0 + 30.0) / 2.0, 1e-12));
  CHECK_THAT(value(study.orders[1], 0, "maa"), WithinAbs((10.0 + 30.0) / 2.0, 1e-12));
  CHECK_THAT(value(*study.overall, 0, "maa"), WithinAbs(30.0, 1e-12));
  CHECK_THAT(value(*study.overall, 0, "acc"), WithinAbs(30.0, 1e-12));
  CHECK(study.sensitivity.size() == 1);
}

TEST_CASE("one order is a plain comparison, and an order without runs is left out") {
  const OrderStudy study = study_orders({run("x", 1, kOrders[1], 30, 50)}, kOrders);
  CHECK(study.names == Order{"o2"});
  CHECK_FALSE(study.overall.has_value());
  CHECK(orders_terminal(study, 100, false) == comparison_terminal(study.orders, 100, false));
  CHECK(orders_markdown(study) == comparison_markdown(study.orders));
}

}  // namespace
}  // namespace mcit
