// Columns in another order: every number stays with its task.
#include "metrics/reorder.hpp"

#include <catch2/catch_test_macros.hpp>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

/// Cell (i, j) is 10 i + j: it says where it was.
RunResult run() {
  RunResult out = make_result("s", "x", 1, {{"a", 10, 1.0}, {"b", 20, {}}, {"c", 30, {}}},
                              {{"a", {0}}, {"b", {1}}, {"c", {2}}});
  for (std::int64_t i = 0; i <= 3; ++i)
    for (std::int64_t j = 0; j < 3; ++j) {
      out.matrix.set(i, j, static_cast<double>(10 * i + j));
      out.counts[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)] =
          CellCount{static_cast<double>(i), 100 + j};
    }
  out.stages[0].cost.steps = 7;
  out.stages[1].cost.steps = 8;
  return out;
}

TEST_CASE("tasks in another order keep their numbers, sizes and the stage that learns them") {
  const RunResult out = with_tasks_in_order(run(), {"c", "a", "b"});
  CHECK(out.task_names() == std::vector<std::string>{"c", "a", "b"});
  CHECK(out.stage_names() == std::vector<std::string>{"a", "b", "c"});
  CHECK(out.tasks[1].test_examples == 10);
  CHECK(out.stages[0].tasks == std::vector<std::int64_t>{1});
  CHECK(out.stages[2].tasks == std::vector<std::int64_t>{0});
  CHECK(out.matrix.learned_at(0) == 3);
  CHECK(out.matrix.at(2, 0) == 22.0);
  CHECK(out.matrix.at(2, 1) == 20.0);
  CHECK(out.counts[1][2]->examples == 101);
  CHECK(scores_when_learned(out.matrix) == std::vector<std::optional<double>>{32.0, 10.0, 21.0});
  CHECK(with_tasks_in_order(out, {"a", "b", "c"}).matrix == run().matrix);
  CHECK_THROWS_AS(with_tasks_in_order(run(), {"a", "b"}), DataError);
  CHECK_THROWS_AS(with_tasks_in_order(run(), {"a", "b", "d"}), DataError);
  CHECK_THROWS_AS(with_tasks_in_order(run(), {"a", "b", "b"}), DataError);
}

TEST_CASE("the first rows go over to a run with its own later stages") {
  RunResult to = make_result("s", "x", 1, {{"a", 10, {}}, {"c", 30, {}}, {"b", 20, {}}},
                             {{"a", {0}}, {"c", {1}}, {"b", {2}}});
  copy_rows(run(), 1, to);
  CHECK(to.matrix.at(0, 1) == 2.0);
  CHECK(to.matrix.at(1, 2) == 11.0);
  CHECK_FALSE(to.matrix.at(2, 0).has_value());
  CHECK(to.matrix.learned_at(1) == 2);
  CHECK(to.counts[1][1]->examples == 102);
  CHECK_FALSE(to.counts[2][0].has_value());
  CHECK(to.stages[0].cost.steps == 7);
  CHECK(to.stages[1].cost.steps == 0);
  CHECK_THROWS_AS(copy_rows(run(), 4, to), DataError);
}

}  // namespace
}  // namespace mcit
