#include "metrics/result.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"
#include "unit/core/temporary.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

RunResult example() {
  RunResult run = make_result("mini2", "ewc", 18446744073709551615ULL,
                              {{"naming", 100, 10.0}, {"vqa", 50, {}}}, {{"naming", {0}}, {"vqa", {1}}});
  run.complete = true;
  run.matrix.set(0, 0, 10.0);
  run.matrix.set(0, 1, 20.0);
  run.matrix.set(1, 0, 60.0);
  run.matrix.set(1, 1, 22.0);
  run.matrix.set(2, 0, 40.0);
  run.matrix.set(2, 1, 56.0);
  run.matrix_restricted.set(2, 0, 45.5);
  run.counts[2][0] = CellCount{40.0, 100};
  run.stages[0].cost = {1000, 2000, 30, 240, 9600, 12.5, 3.25, 512.0};
  run.stages[1].cost = {1500, 2500, 30, 240, 9000, 12.5, 3.25, 640.0};
  run.stages[1].selector_accuracy = 97.5;
  run.base_eval_seconds = 1.5;
  run.provenance.command = "mcit run";
  run.provenance.config = "seed = 1\n";
  run.provenance.seeds = {{"run", "1"}};
  run.provenance.data = {{"naming/train.json", "abc"}};
  run.provenance.plugin_file = "ewc.so";
  run.provenance.model_hash = "ffff";
  run.provenance.hardware = {"CPU", 4, 2, 7.5, "Linux"};
  run.provenance.threads = 1;
  run.provenance.started = "2026-01-02T03:04:05Z";
  return run;
}

TEST_CASE("a run reads back as it was written") {
  const test::TemporaryFolder folder;
  const RunResult run = example();
  write_result(folder / "result.json", run);
  const RunResult back = read_result(folder.path());
  CHECK(back.suite == "mini2");
  CHECK(back.strategy == "ewc");
  CHECK(back.seed == run.seed);
  CHECK(back.complete);
  CHECK(back.matrix == run.matrix);
  CHECK(back.matrix_restricted == run.matrix_restricted);
  CHECK(back.counts == run.counts);
  CHECK(back.tasks[0].chance == 10.0);
  CHECK_FALSE(back.tasks[1].chance.has_value());
  CHECK(back.stages[1].tasks == std::vector<std::int64_t>{1});
  CHECK(back.selector_accuracy() == 97.5);
  CHECK(back.provenance.hardware.cpu == "CPU");
  CHECK(back.provenance.data == run.provenance.data);
  CHECK(back.provenance.finished.empty());
  write_result(folder / "again.json", back);
  CHECK(test::slurp(folder / "again.json") == test::slurp(folder / "result.json"));
}

TEST_CASE("scorers and the split of forgetting read back") {
  const test::TemporaryFolder folder;
  RunResult run = example();
  run.tasks[0].scorer = "exact";
  ForgettingSplit& split = run.forgetting.emplace();
  split.format_drift = split.knowledge_loss = split.regained = AccuracyMatrix(run.task_names(), 2, {1, 2});
  split.format_drift.set(2, 0, 12.5);
  split.knowledge_loss.set(2, 0, 10.0);
  split.regained.set(2, 0, 2.5);
  write_result(folder / "result.json", run);
  const RunResult back = read_result(folder.path());
  CHECK(back.tasks[0].scorer == "exact");
  CHECK(back.tasks[1].scorer.empty());
  REQUIRE(back.forgetting);
  CHECK(back.forgetting->format_drift == split.format_drift);
  CHECK(back.forgetting->regained == split.regained);
  CHECK(read_json(folder / "result.json")["forgetting_split"]["knowledge_loss"][2] ==
        Json::array({10.0, nullptr}));
}

TEST_CASE("result.json carries the metrics of its matrix and null for what is missing") {
  const test::TemporaryFolder folder;
  write_result(folder / "result.json", example());
  const Json json = read_json(folder / "result.json");
  CHECK(json["schema"] == 1);
  CHECK(json["metrics"]["acc"] == 48.0);       // (40 + 56) / 2
  CHECK(json["metrics"]["bwt_T-1"] == -20.0);  // 40 - 60
  CHECK(json["metrics"]["fwt_zero"] == 2.0);   // 22 - 20
  CHECK(json["metrics"]["faa_weighted"] == (100 * 40.0 + 50 * 56.0) / 150);
  CHECK(json["metrics"]["fwt_plasticity"].is_null());
  CHECK(json["metrics_restricted"]["acc"].is_null());
  CHECK(json["matrix_restricted"][2][0] == 45.5);
  CHECK(json["counts"][2][0]["score"] == 40.0);
  CHECK(json["counts"][0][0].is_null());
  CHECK(json["selector_accuracy"] == Json::array({nullptr, 97.5}));
  CHECK(json["costs"]["stages"][0]["examples_per_second"] == 240 / 12.5);
  CHECK(json["costs"]["total"]["stored_parameters"] == 2500);
  CHECK(json["costs"]["total"]["eval_seconds"] == 8.0);  // 1.5 + 2 * 3.25
  CHECK(json["provenance"]["finished"].is_null());
}

TEST_CASE("metrics need only the file of a run, or any matrix") {
  const test::TemporaryFolder folder;
  write_result(folder / "result.json", example());
  CHECK(read_metric_inputs(folder.path()).test_examples == std::vector<std::int64_t>{100, 50});
  CHECK(read_metric_inputs(folder.path(), true).matrix.at(2, 0) == 45.5);
  CHECK(read_matrix(folder.path()) == example().matrix);
  test::write(folder / "m.txt", "50\n40 60\n");
  CHECK(read_metric_inputs(folder / "m.txt").matrix.at(2, 0) == 40.0);
  CHECK_THROWS_MATCHES(read_metric_inputs(folder / "m.txt", true), DataError,
                       MessageMatches(ContainsSubstring("no matrix of restricted answers")));
}

TEST_CASE("a stage for all tasks is known as such") {
  const test::TemporaryFolder folder;
  RunResult joint = make_result("mini2", "joint", 1, {{"a", 1, {}}, {"b", 1, {}}}, {{"joint", {0, 1}}});
  joint.matrix.set(1, 0, 50.0);
  joint.matrix.set(1, 1, 70.0);
  write_result(folder / "result.json", joint);
  const RunResult back = read_result(folder / "result.json");
  CHECK(back.matrix.stages() == 1);
  CHECK(back.matrix.learned_at(1) == 1);
  CHECK(compute_metric("acc", back.inputs(back.matrix)).value == 60.0);
}

TEST_CASE("a damaged result is refused with the key that is wrong") {
  const test::TemporaryFolder folder;
  write_result(folder / "result.json", example());
  const Json good = read_json(folder / "result.json");
  const auto fault = [&](const char* key, const Json& value) {
    Json bad = good;
    if (value.is_discarded())
      bad.erase(key);
    else
      bad[key] = value;
    test::write(folder / "bad.json", dump_json(bad));
    try {
      read_result(folder / "bad.json");
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const Json gone = Json(Json::value_t::discarded);
  CHECK_THAT(fault("schema", 2), ContainsSubstring("newer schema"));
  CHECK_THAT(fault("schema", gone), ContainsSubstring("'schema' is missing"));
  CHECK_THAT(fault("suite", 3), ContainsSubstring("'suite': expected a text"));
  CHECK_THAT(fault("seed", "one"), ContainsSubstring("'seed' has the wrong type"));
  CHECK_THAT(fault("matrix", Json::array({Json::array({1.0})})), ContainsSubstring("1 rows for 2 stages"));
  CHECK_THAT(fault("matrix", Json::array({"x"})), ContainsSubstring("expected an array of numbers"));
  CHECK_THAT(fault("matrix_restricted", Json::array()), ContainsSubstring("matrix"));
  CHECK_THAT(fault("counts", Json::array({1})), ContainsSubstring("'counts'"));
  CHECK_THAT(fault("tasks", Json::array({3})), ContainsSubstring("tasks"));
  CHECK_THAT(fault("stages", Json::array({Json::object()})), ContainsSubstring("stages"));
  CHECK(fault("provenance", gone) == "accepted");  // another program's result need not explain itself
  CHECK(fault("costs", gone) == "accepted");
}

}  // namespace
}  // namespace mcit
