#include "report/significance.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/run_dir.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"
#include "unit/report/latex_check.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Catch::Matchers::WithinAbs;

/// A finished run over two tasks that ends at these scores.
ComparedRun run(const std::string& strategy, std::uint64_t seed, double a, double b,
                const std::vector<std::string>& tasks = {"a", "b"}) {
  ComparedRun out{"runs/" + strategy + std::to_string(seed) + tasks[0],
                  make_result("two", strategy, seed, {{tasks[0], 4, {}}, {tasks[1], 4, {}}},
                              {{tasks[0], {0}}, {tasks[1], {1}}})};
  out.result.matrix.set(1, 0, 90.0);
  out.result.matrix.set(2, 0, a);
  out.result.matrix.set(2, 1, b);
  out.result.complete = true;
  return out;
}

/// Three strategies, two seeds: ACC 50 40 30 and 60 55 20.
std::vector<ComparedRun> three() {
  return {run("x", 1, 50, 50), run("y", 1, 40, 40), run("z", 1, 30, 30),
          run("x", 2, 60, 60), run("y", 2, 55, 55), run("z", 2, 20, 20)};
}

TEST_CASE("strategies are ranked within each seed, bounds are not") {
  auto runs = three();
  runs.push_back(run("joint", 1, 99, 99));
  runs.push_back(run("joint", 2, 99, 99));
  const auto ranks = rank_strategies(compare_runs(runs));
  REQUIRE(ranks.has_value());
  CHECK(ranks->labels == std::vector<std::string>{"x", "y", "z"});
  CHECK(ranks->test.mean_ranks == std::vector<double>{1, 2, 3});
  CHECK(ranks->test.blocks == 2);
  CHECK_THAT(ranks->test.chi_square, WithinAbs(4.0, 1e-12));    // 12·2/(3·4)·(1+0+1)
  CHECK_THAT(ranks->test.p, WithinAbs(std::exp(-2.0), 1e-12));  // two degrees of freedom
  // Demšar 2006, table 5a: q_0.05 of three is 2.343; times sqrt(3·4/(6·2)) = 1.
  CHECK_THAT(ranks->test.critical_difference, WithinAbs(2.343, 1.5e-3));
  const std::string text = blocks_markdown(rank_blocks(*ranks));
  CHECK_THAT(text, ContainsSubstring("| x | 1.00 | \\| |"));
  CHECK_THAT(text, ContainsSubstring("not told apart"));
  CHECK(test::latex_fault(blocks_latex(rank_blocks(*ranks))) == "");
  CHECK(ranks_json(*ranks)["not_told_apart"][0] == Json::array({"x", "y", "z"}));
}

TEST_CASE("ranks need three strategies and two blocks that all have") {
  auto runs = three();
  runs.erase(runs.begin() + 5);  // z of seed 2
  CHECK_FALSE(rank_strategies(compare_runs(runs)).has_value());
  for (const ComparedRun& more : {run("x", 3, 1, 1), run("y", 3, 2, 2), run("z", 3, 3, 3)})
    runs.push_back(more);
  const auto ranks = rank_strategies(compare_runs(runs));
  REQUIRE(ranks.has_value());
  CHECK(ranks->test.blocks == 2);
  CHECK_THAT(ranks->notes.front(), ContainsSubstring("1 blocks are left out"));
  CHECK_FALSE(rank_strategies(
      compare_runs({run("x", 1, 1, 1), run("y", 1, 2, 2), run("x", 2, 1, 1), run("y", 2, 2, 2)})));
}

TEST_CASE("orders of one suite: spread of the means over seeds") {
  auto runs = three();
  for (const ComparedRun& more :
       {run("x", 1, 40, 50, {"b", "a"}), run("x", 2, 44, 54, {"b", "a"}), run("y", 1, 40, 55, {"b", "a"})})
    runs.push_back(more);
  const auto tables = order_tables(compare_runs(runs));
  REQUIRE(tables.size() == 1);
  CHECK(tables.front().labels == std::vector<std::string>{"x", "y"});  // z knows one order only
  // x: (50 + 60) / 2 = 55 and (45 + 49) / 2 = 47: mean 51, deviation 8 / sqrt(2), range 8.
  CHECK_THAT(tables.front().values[0].mean, WithinAbs(51.0, 1e-9));
  CHECK_THAT(tables.front().values[0].deviation, WithinAbs(8.0 / std::sqrt(2.0), 1e-9));
  CHECK_THAT(tables.front().values[0].range, WithinAbs(8.0, 1e-9));
  CHECK_THAT(blocks_markdown(order_blocks(tables)), ContainsSubstring("| x | 2 | 51.00 | 5.66 | 8.00 |"));
  CHECK(orders_json(tables)[1]["label"] == "y");
  CHECK(order_tables(compare_runs(three())).empty());
}

/// Runs in a folder, with their last predictions. Scores are 0 or 1 by row.
class Written {
 public:
  ComparedRun add(const std::string& strategy, std::uint64_t seed,
                  const std::vector<std::vector<int>>& scores, const std::string& prefix = "q") {
    ComparedRun out = run(strategy, seed, percent(scores[0]), percent(scores[1]));
    out.path = folder_ / (strategy + std::to_string(seed));
    for (std::size_t j = 0; j < scores.size(); ++j) {
      std::string lines;
      for (std::size_t r = 0; r < scores[j].size(); ++r)
        lines += "{\"question_id\":\"" + prefix + std::to_string(r) +
                 "\",\"score\":" + std::to_string(scores[j][r]) + "}\n";
      const auto file = predictions_file(out.path, 2, j == 0 ? "a" : "b");
      std::filesystem::create_directories(file.parent_path());
      test::write(file, lines);
    }
    return out;
  }

 private:
  static double percent(const std::vector<int>& scores) {
    double sum = 0;
    for (const int score : scores) sum += score;
    return 100.0 * sum / static_cast<double>(scores.size());
  }
  test::TemporaryFolder folder_;
};

PairedComparison pair(const std::vector<ComparedRun>& runs, const std::string& a = "x",
                      const std::string& b = "y") {
  return compare_pair(compare_runs(runs).front(), runs, a, b);
}

TEST_CASE("paired differences over rows, seeds and both") {
  Written files;
  const auto paired =
      pair({files.add("x", 1, {{1, 1, 1, 0}, {1, 1, 1, 1}}), files.add("x", 2, {{1, 1, 1, 1}, {1, 1, 1, 1}}),
            files.add("y", 2, {{0, 0, 1, 1}, {1, 1, 1, 1}}), files.add("y", 1, {{0, 1, 1, 0}, {1, 1, 1, 1}}),
            files.add("y", 3, {{0, 0, 0, 0}, {0, 0, 0, 0}})});
  CHECK(paired.seed_list == std::vector<std::uint64_t>{1, 2});  // 3 is not in both
  REQUIRE(paired.lines.size() == 3);
  const PairedLine& a = paired.lines[0];
  // Task a: 75 - 50 = 25 with seed 1, 100 - 50 = 50 with seed 2.
  CHECK_THAT(a.difference, WithinAbs(37.5, 1e-9));
  REQUIRE(a.seeds.has_value());
  CHECK_THAT(a.seeds->low, WithinAbs(25.0, 1e-9));
  CHECK_THAT(a.seeds->high, WithinAbs(50.0, 1e-9));
  // Rows differ by 100 and 0 with seed 1 ... per row, mean over seeds: 100, 50, 0, 0. All four draws hit
  // rows 3 or 4 in 1/16 of the resamples: the 2.5 % quantile is 0. Means above 75 come in 5 of 256, means of
  // 75 and more in 15: the 97.5 % quantile is 75.
  REQUIRE(a.rows.has_value());
  CHECK_THAT(a.rows->low, WithinAbs(0.0, 1e-9));
  CHECK_THAT(a.rows->high, WithinAbs(75.0, 1e-9));
  REQUIRE(a.both.has_value());
  CHECK(a.both->high >= a.rows->high);
  // Task b: always right in both.
  CHECK(paired.lines[1].difference == 0.0);
  CHECK(paired.lines[1].rows->high == 0.0);
  CHECK_THAT(paired.lines[2].difference, WithinAbs(18.75, 1e-9));
  CHECK(paired.wilcoxon.pairs == 1);
  const std::string text = blocks_markdown(paired_blocks(paired));
  CHECK_THAT(text, ContainsSubstring("| task | x | y | difference | over rows | over seeds | over both |"));
  CHECK_THAT(text, ContainsSubstring("| a | 87.50 | 50.00 | 37.50 | [0.00, "));
  CHECK_THAT(text, ContainsSubstring("2 seeds are too narrow"));
  CHECK(paired_json(paired)["tasks"][2]["over_seeds"] == Json::array({12.5, 25.0}));
  CHECK(test::latex_fault(blocks_latex(paired_blocks(paired))) == "");
}

TEST_CASE("one seed has no interval over seeds, a run without predictions none over rows") {
  Written files;
  const auto one = pair({files.add("x", 1, {{1, 0}, {1, 1}}), files.add("y", 1, {{0, 0}, {1, 1}})});
  CHECK(one.lines[0].rows.has_value());
  CHECK_FALSE(one.lines[0].seeds.has_value());
  CHECK_FALSE(one.lines[0].both.has_value());
  const auto bare = pair(three());
  CHECK_FALSE(bare.lines[0].rows.has_value());
  CHECK(bare.lines[2].seeds.has_value());
  CHECK_THAT(bare.notes.front(), ContainsSubstring("keeps no predictions"));
  ComparedRun caption = files.add("y", 1, {{0, 1}, {1, 1}});
  caption.result.matrix.set(2, 0, 61.5);  // as CIDEr: not the mean of its rows
  const auto corpus = pair({files.add("x", 1, {{1, 0}, {1, 1}}), caption});
  CHECK_FALSE(corpus.lines[0].rows.has_value());
  CHECK(corpus.lines[1].rows.has_value());
  CHECK_FALSE(corpus.lines[2].rows.has_value());
  CHECK_THAT(corpus.notes.front(), ContainsSubstring("not the mean of its rows"));
}

TEST_CASE("what cannot be paired is said") {
  Written files;
  const auto fails = [](const std::vector<ComparedRun>& runs, const std::string& a, const std::string& b,
                        const std::string& text) {
    CHECK_THROWS_WITH(pair(runs, a, b), ContainsSubstring(text));
  };
  fails(three(), "x", "w", "has no row 'w'");
  fails(three(), "x", "x", "the same row");
  fails({run("x", 1, 1, 1), run("y", 2, 1, 1)}, "x", "y", "no seed in common");
  auto twice = three();
  twice[0].result.provenance.config = "[strategy]\nrank = 4\n";
  fails(twice, "x", "y", "names several rows");
  fails({files.add("x", 1, {{1, 0}, {1, 1}}), files.add("y", 1, {{0, 0}, {1, 1}}, "other")}, "x", "y",
        "other test rows");
  auto unfinished = three();
  unfinished[0].result.matrix.set(2, 0, {});
  fails(unfinished, "x", "y", "has no final score of 'a'");
  const ComparedRun broken = files.add("x", 5, {{1, 0}, {1, 1}});
  test::write(predictions_file(broken.path, 2, "a"), "{\"question_id\":\"q0\"}\n");
  fails({broken, files.add("y", 5, {{0, 0}, {1, 1}})}, "x", "y", "02_a.jsonl:1");
  test::write(predictions_file(broken.path, 2, "a"),
              "{\"question_id\":\"q\",\"score\":1}\n{\"question_id\":\"q\",\"score\":1}\n");
  fails({broken, files.add("y", 5, {{0, 0}, {1, 1}})}, "x", "y", "twice");
}

}  // namespace
}  // namespace mcit
