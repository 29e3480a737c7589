#include "report/comparison.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::WithinAbs;

/// A finished run over tasks a and b: {row 0, row 1, row 2}.
ComparedRun run(const std::string& strategy, std::uint64_t seed, const std::vector<std::vector<double>>& rows,
                const std::string& config = {}) {
  RunResult result =
      make_result("mini2", strategy, seed, {{"a", 100, 10.0}, {"b", 100, 25.0}}, {{"a", {0}}, {"b", {1}}});
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (std::size_t j = 0; j < rows[i].size(); ++j)
      result.matrix.set(static_cast<std::int64_t>(i), static_cast<std::int64_t>(j), rows[i][j]);
  result.complete = true;
  result.stages[0].cost = {1500000, 2000000, 10, 100, 4000, 5.0, 1.0, 100.0};
  result.stages[1].cost = {1500000, 2500000, 10, 100, 4000, 5.0, 1.0, 120.0};
  result.provenance.config = "seed = " + std::to_string(seed) + "\nout = \"runs/" + strategy +
                             std::to_string(seed) + "\"\n" + config;
  return {"runs/" + strategy + std::to_string(seed), std::move(result)};
}

const std::optional<Statistic>& value(const Comparison& comparison, std::size_t group,
                                      const std::string& key) {
  const auto at = std::find_if(comparison.columns.begin(), comparison.columns.end(),
                               [&key](const ComparedColumn& column) { return column.key == key; });
  REQUIRE(at != comparison.columns.end());
  return comparison.groups.at(group).values.at(static_cast<std::size_t>(at - comparison.columns.begin()));
}

std::vector<ComparedRun> set_of_runs() {
  return {run("sequential", 1, {{10, 20}, {60, 22}, {40, 56}}),
          run("sequential", 2, {{10, 20}, {64, 24}, {50, 60}}), run("ewc", 1, {{10, 20}, {58, 21}, {55, 50}}),
          run("single", 1, {{10, 20}, {62, 0}, {0, 60}})};
}

bool has_note(const Comparison& comparison, const std::string& part) {
  return std::any_of(comparison.notes.begin(), comparison.notes.end(),
                     [&part](const std::string& note) { return note.find(part) != std::string::npos; });
}

TEST_CASE("seeds of one strategy are averaged, with the deviation of a sample") {
  const auto comparisons = compare_runs(set_of_runs());
  REQUIRE(comparisons.size() == 1);
  const Comparison& c = comparisons.front();
  REQUIRE(c.groups.size() == 3);
  CHECK(c.groups[0].label == "sequential");
  CHECK(c.groups[0].seeds == std::vector<std::uint64_t>{1, 2});
  const auto& acc = value(c, 0, "acc");
  REQUIRE(acc.has_value());
  CHECK_THAT(acc->mean, WithinAbs((48.0 + 55.0) / 2, 1e-9));
  CHECK_THAT(acc->deviation.value(),
             WithinAbs(7.0 / std::sqrt(2.0), 1e-9));  // two values d apart: d / sqrt(2)
  CHECK_THAT(value(c, 0, "bwt_T-1")->mean, WithinAbs(((40 - 60) + (50 - 64)) / 2.0, 1e-9));
  CHECK_THAT(value(c, 0, "bwt_T")->mean, WithinAbs(((40 - 60) + (50 - 64)) / 4.0, 1e-9));
  CHECK_THAT(value(c, 0, "final:b")->mean, WithinAbs(58.0, 1e-9));
  CHECK_FALSE(value(c, 1, "acc")->deviation.has_value());  // one seed has none
  CHECK(value(c, 0, "train_seconds")->mean == 10.0);
  CHECK(value(c, 0, "examples_per_second")->mean == 20.0);
  CHECK(value(c, 0, "stored_parameters")->mean == 2500000.0);
  CHECK(value(c, 0, "peak_memory_mb")->mean == 120.0);
}

TEST_CASE("a federated run has its clients' scores and the bytes of a round beside the global model's") {
  ComparedRun federated = run("pilot", 1, {{10, 20}, {60, 22}, {40, 56}});
  FederatedResult& f = federated.result.federated.emplace();
  f.global = federated.result.matrix;
  const auto client = [&](const char* name, double a_then, double a, double b) {
    AccuracyMatrix m = federated.result.matrix;
    m.set(1, 0, a_then);
    m.set(2, 0, a);
    m.set(2, 1, b);
    f.clients.push_back({name, 10, m, {}});
  };
  client("c1", 60, 50, 70);  // ACC 60, forgets 10
  client("c2", 50, 20, 60);  // ACC 40, forgets 30
  for (const std::int64_t round : {0, 1, 2}) {
    RoundRecord& record = f.rounds.emplace_back();
    record.round = round;
    record.after = "x";
    record.bytes_up = round == 0 ? 0 : 2000000;
    record.bytes_down = round == 0 ? 0 : static_cast<std::uint64_t>(round) * 1000000;
  }
  const auto comparisons = compare_runs({federated, run("ewc", 1, {{10, 20}, {58, 21}, {55, 50}})});
  const Comparison& c = comparisons.front();
  CHECK_THAT(value(c, 0, "acc")->mean, WithinAbs(48.0, 1e-9));
  CHECK_THAT(value(c, 0, "client_accuracy")->mean, WithinAbs(50.0, 1e-9));
  CHECK_THAT(value(c, 0, "client_worst")->mean, WithinAbs(40.0, 1e-9));
  CHECK_THAT(value(c, 0, "client_deviation")->mean, WithinAbs(10.0, 1e-9));
  CHECK_THAT(value(c, 0, "client_forgetting")->mean, WithinAbs(20.0, 1e-9));
  CHECK_THAT(value(c, 0, "round_mb_up")->mean, WithinAbs(2.0, 1e-9));
  CHECK_THAT(value(c, 0, "round_mb_down")->mean, WithinAbs(1.5, 1e-9));
  CHECK_FALSE(value(c, 1, "client_accuracy").has_value());
  CHECK_THAT(comparison_terminal(comparisons, 200, false), ContainsSubstring("worst client"));
  // Without a federated run the columns are not shown.
  CHECK(comparison_terminal(compare_runs(set_of_runs()), 200, false).find("worst client") ==
        std::string::npos);
}

TEST_CASE("plasticity is measured against the run of strategy single") {
  const auto comparisons = compare_runs(set_of_runs());
  const Comparison& c = comparisons.front();
  CHECK_THAT(value(c, 1, "fwt_plasticity")->mean, WithinAbs(((58 - 62) + (50 - 60)) / 2.0, 1e-9));
  // Its own row shows each task right after it was trained alone, not the last model, and nothing that needs
  // a stream.
  CHECK(value(c, 2, "final:a")->mean == 62.0);
  CHECK(value(c, 2, "acc")->mean == 61.0);
  CHECK_FALSE(value(c, 2, "bwt_T").has_value());
  CHECK(has_note(c, "single: each task trained alone"));
  const auto without = compare_runs({run("ewc", 1, {{10, 20}, {58, 21}, {55, 50}})});
  CHECK_FALSE(value(without.front(), 0, "fwt_plasticity").has_value());
  CHECK(has_note(without.front(), "plasticity needs a run of strategy single"));
}

TEST_CASE("plasticity takes the single run of the same seed") {
  const auto comparisons =
      compare_runs({run("single", 1, {{0, 0}, {10, 0}, {0, 10}}),
                    run("single", 2, {{0, 0}, {30, 0}, {0, 30}}), run("ewc", 2, {{0, 0}, {35, 0}, {0, 35}})});
  CHECK_THAT(value(comparisons.front(), 1, "fwt_plasticity")->mean, WithinAbs(5.0, 1e-9));
}

TEST_CASE("different settings of one strategy are never averaged, and are named by what differs") {
  const std::vector<std::vector<double>> rows{{10, 20}, {60, 22}, {40, 56}};
  const auto comparisons = compare_runs(
      {run("ewc", 1, rows, "[strategy]\nlambda = 10\n"), run("ewc", 2, rows, "[strategy]\nlambda = 10\n"),
       run("ewc", 1, rows, "[strategy]\nlambda = 100\n"), run("replay", 1, rows)});
  const Comparison& c = comparisons.front();
  REQUIRE(c.groups.size() == 3);
  CHECK(c.groups[0].label == "ewc (lambda=10)");
  CHECK(c.groups[0].seeds.size() == 2);
  CHECK(c.groups[1].label == "ewc (lambda=100)");
  CHECK(c.groups[2].label == "replay");
}

TEST_CASE("a row that was given a name takes seeds of versions that know other settings, and says so") {
  const std::vector<std::vector<double>> rows{{10, 20}, {60, 22}, {40, 56}};
  const std::string old = "label = \"mine\"\n[strategy]\nlambda = 10\n";
  const Comparison c = compare_runs({run("ewc", 1, rows, old), run("ewc", 2, rows, old + "gamma = 1\n"),
                                     run("ewc", 3, rows, "label = \"mine\"\n[strategy]\nlambda = 100\n")})
                           .front();
  REQUIRE(c.groups.size() == 2);
  CHECK(c.groups[0].seeds.size() == 2);
  CHECK(has_note(c, "different versions of mcit; only some know strategy.gamma"));
  // Without a name nobody has said that they are the same.
  const auto unnamed = compare_runs({run("ewc", 1, rows, "[strategy]\nlambda = 10\n"),
                                     run("ewc", 2, rows, "[strategy]\nlambda = 10\ngamma = 1\n")});
  CHECK(unnamed.front().groups.size() == 2);
}

TEST_CASE("different streams get tables of their own") {
  auto runs = set_of_runs();
  ComparedRun other = run("ewc", 1, {{10, 20}, {58, 21}, {55, 50}});
  std::swap(other.result.tasks[0], other.result.tasks[1]);
  runs.push_back(other);
  other = run("ewc", 1, {{1, 2}, {3, 4}, {5, 6}});
  other.result.suite = "mini8";
  runs.push_back(other);
  const auto comparisons = compare_runs(runs);
  REQUIRE(comparisons.size() == 3);
  CHECK(comparisons[1].tasks == std::vector<std::string>{"b", "a"});
  CHECK(comparisons[2].suite == "mini8");
  CHECK_THAT(comparison_terminal(comparisons, 100, false),
             ContainsSubstring("The runs belong to 3 different streams"));
}

TEST_CASE("what makes numbers doubtful is noted") {
  auto runs = set_of_runs();
  for (ComparedRun& r : runs) {
    r.result.provenance.model_hash = "same";
    r.result.provenance.hardware.cpu = "cpu";
  }
  runs[0].result.provenance.model_hash = "other";
  runs[1].result.complete = false;
  runs[2].result.provenance.threads = 8;
  runs[3].result.tasks[0].test_examples = 7;
  runs.push_back(runs[2]);
  const auto comparisons = compare_runs(runs);
  const Comparison& c = comparisons.front();
  CHECK(has_note(c, "different base models"));
  CHECK(has_note(c, "runs/sequential2 is not finished"));
  CHECK(has_note(c, "numbers of threads"));
  CHECK(has_note(c, "test sets differ in size"));
  CHECK(has_note(c, "seed 1 of ewc is there twice (runs/ewc1)"));
  CHECK_FALSE(has_note(c, "different data files"));
}

TEST_CASE("the tables show means with deviations, bounds are never the best") {
  const auto comparisons = compare_runs(set_of_runs());
  const std::string markdown = comparison_markdown(comparisons);
  CHECK_THAT(markdown, ContainsSubstring("## mini2\n\na → b\n"));
  CHECK_THAT(markdown,
             ContainsSubstring("| sequential | 2 | 45.00 ± 7.07 | **58.00 ± 2.83** | 51.50 ± 4.95 |"));
  CHECK_THAT(markdown, ContainsSubstring("| ewc | 1 | **55.00** | 50.00 | **52.50** |"));
  CHECK_THAT(markdown, ContainsSubstring("| single | 1 | 62.00 | 60.00 | 61.00 | – |"));
  CHECK_THAT(markdown, ContainsSubstring("| (chance) |  | 10.00 | 25.00 |"));
  CHECK_THAT(markdown, ContainsSubstring("| ewc | 1 | 1.50 M | 2.50 M | 10.0 |"));
  CHECK_THAT(markdown, !ContainsSubstring("selector"));  // no run has one
  const std::string terminal = comparison_terminal(comparisons, 60, false);
  std::size_t start = 0;
  for (std::size_t end = terminal.find('\n'); end != std::string::npos; end = terminal.find('\n', start)) {
    const std::string line = terminal.substr(start, end - start);
    INFO(line);
    CHECK((line.starts_with("note: ") || line.size() <= 70));  // bytes; ± and → take two or three
    start = end + 1;
  }
}

TEST_CASE("CSV and JSON hold every value") {
  const auto comparisons = compare_runs(set_of_runs());
  const std::string csv = comparison_csv(comparisons);
  CHECK_THAT(csv, ContainsSubstring("suite,strategy,label,seeds,column,mean,std,runs\n"));
  CHECK_THAT(csv, ContainsSubstring("mini2,ewc,ewc,1,acc,52.5,,1\n"));
  CHECK_THAT(csv, ContainsSubstring("mini2,sequential,sequential,1 2,train_seconds,10,0,2\n"));
  CHECK_THAT(csv, !ContainsSubstring("ewc,1,selector_accuracy"));
  const Json json = comparison_json(comparisons)["comparisons"][0];
  CHECK(json["groups"][1]["values"]["acc"]["mean"] == 52.5);
  CHECK(json["groups"][1]["values"]["acc"]["std"].is_null());
  CHECK(json["groups"][1]["values"]["selector_accuracy"].is_null());
  CHECK(json["groups"][0]["values"]["acc"]["runs"] == 2);
  CHECK(json["groups"][2]["bound"] == true);
  CHECK(json["chance"] == Json::array({10.0, 25.0}));
}

TEST_CASE("statistics") {
  CHECK_FALSE(statistic({}).has_value());
  // Deviation of 2, 4, 4, 4, 5, 5, 7, 9 as a sample: sqrt(32 / 7).
  const auto s = statistic({2, 4, 4, 4, 5, 5, 7, 9});
  CHECK_THAT(s->mean, WithinAbs(5.0, 1e-12));
  CHECK_THAT(s->deviation.value(), WithinAbs(std::sqrt(32.0 / 7.0), 1e-12));
  CHECK(statistic_text(s, 2) == "5.00 ± 2.14");
  CHECK(statistic_text({}, 2) == "–");
}

}  // namespace
}  // namespace mcit
