#include "metrics/federated.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "mcit/errors.hpp"
#include "metrics/result.hpp"
#include "unit/core/temporary.hpp"

using namespace mcit;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

AccuracyMatrix matrix_of(const std::vector<std::vector<AccuracyMatrix::Cell>>& rows) {
  AccuracyMatrix out({"one", "two"});
  for (std::size_t i = 0; i < rows.size(); ++i) out.set_row(static_cast<std::int64_t>(i), rows[i]);
  return out;
}

FederatedResult example() {
  FederatedResult out;
  out.rule = "fedavg";
  out.weighting = "examples";
  out.partition = "dirichlet, alpha 0.5";
  out.labels = {"cats", "dogs"};
  out.histogram = {{"ann", {3, 4}}, {"bob", {0, 5}}};
  out.global = matrix_of({{10, 20}, {60, 30}, {50, 70}});  // acc = 60
  // ann: acc 80, forgetting 90 - 70 = 20, transfer 40 - 20 = 20. bob: acc 50, forgetting 5, transfer -10.
  out.clients = {{"ann", 7, matrix_of({{10, 20}, {90, 40}, {70, 90}}), {5, 5}},
                 {"bob", 5, matrix_of({{10, 20}, {45, 10}, {40, 60}}), {}}};
  RoundRecord start;
  start.after = "s0";
  RoundRecord one;
  one.round = 1;
  one.sampled = {"ann", "bob"};
  one.used = {{"ann", "one", 7, 1.5, 1.0, "d", {{"loss", 0.25}}}, {"bob", "two", 5, 9.0, 0.5, "e", {}}};
  one.before = "s0";
  one.after = "s1";
  one.bytes_up = 100;
  one.bytes_down = 300;
  one.redone = true;
  one.notes = R"({"rank":4})";
  RoundRecord two = one;
  two.round = 2;
  two.attempts = 3;
  two.used.resize(1);
  two.missing = {"bob"};
  two.rejected = {{"cid", "w is not finite"}};
  two.late = {{"bob", "came after the deadline"}};
  two.duplicate = {"ann"};
  two.before = "s1";
  two.after = "s2";
  two.bytes_up = 50;
  two.redone.reset();
  out.rounds = {start, one, two};
  out.curve = {{1, 40.0}, {2, 55.0}, {3, 52.0}, {4, 60.0}};
  out.privacy = "epsilon = 1";
  return out;
}

}  // namespace

TEST_CASE("federated metrics by hand") {
  const FederatedMetrics m = federated_metrics(example());
  CHECK(m.global_accuracy == 60.0);
  REQUIRE(m.local_accuracy);
  CHECK(m.local_accuracy->mean == 65.0);
  CHECK(m.local_accuracy->worst == 50.0);
  CHECK(m.local_accuracy->worst_client == "bob");
  CHECK(m.local_accuracy->deviation == 15.0);
  CHECK(m.personalisation == 5.0);
  REQUIRE(m.forgetting);
  CHECK(m.forgetting->mean == 12.5);
  CHECK(m.forgetting->worst == 20.0);
  CHECK(m.forgetting->worst_client == "ann");
  REQUIRE(m.forward_transfer);
  CHECK(m.forward_transfer->mean == 5.0);
  CHECK(m.forward_transfer->worst == -10.0);
  CHECK(m.rounds == 2);
  CHECK(m.retried == 2);
  CHECK(m.survived == 1);
  CHECK(m.dropouts == 1);
  CHECK(m.rejected == 1);
  CHECK(m.late == 1);
  CHECK(m.bytes_up == 75.0);
  CHECK(m.bytes_down == 300.0);
}

TEST_CASE("a client that was not measured has no number, and is no zero") {
  FederatedResult r = example();
  r.clients[1].matrix.set(2, 0, std::nullopt);
  const FederatedMetrics m = federated_metrics(r);
  CHECK(m.local_accuracy->clients == 1);
  CHECK(m.local_accuracy->mean == 80.0);
  CHECK(m.forward_transfer->clients == 2);
  r.clients.clear();
  CHECK(!federated_metrics(r).local_accuracy);
  CHECK(!federated_metrics({}).global_accuracy);
}

TEST_CASE("rounds to reach a score") {
  const auto curve = example().curve;
  CHECK(rounds_to_reach(curve, 40.0) == 1);
  CHECK(rounds_to_reach(curve, 55.1) == 4);
  CHECK(!rounds_to_reach(curve, 60.1));
}

TEST_CASE("a federated run is kept in result.json and reads back equal") {
  RunResult run =
      make_result("mini", "lora", 3, {{"one", 10, {}}, {"two", 10, {}}}, {{"one", {0}}, {"two", {1}}});
  run.federated = example();
  test::TemporaryFolder folder;
  write_result(folder / "result.json", run);
  const std::string text = test::slurp(folder / "result.json");
  const RunResult back = read_result(folder / "result.json");
  REQUIRE(back.federated);
  CHECK(dump_json(federated_to_json(*back.federated)) == dump_json(federated_to_json(example())));
  CHECK(back.federated->rounds[1].used[0].statistics.at("loss") == 0.25);
  CHECK(back.federated->rounds[1].redone == true);
  CHECK(back.federated->rounds[2].late[0].client == "bob");
  CHECK(back.federated->clients[0].matrix == example().clients[0].matrix);
  write_result(folder / "again.json", back);
  CHECK(test::slurp(folder / "again.json") == text);
  run.federated.reset();
  write_result(folder / "plain.json", run);
  CHECK(!read_result(folder / "plain.json").federated);
}

TEST_CASE("a damaged federated part is refused with its key") {
  const auto refuses = [](auto change, const std::string& why) {
    Json json = federated_to_json(example());
    change(json);
    CHECK_THROWS_MATCHES(federated_from_json(json, "r.json: federated"), DataError,
                         MessageMatches(ContainsSubstring("r.json: federated") && ContainsSubstring(why)));
  };
  refuses([](Json& j) { j.erase("rounds"); }, "rounds");
  refuses([](Json& j) { j["rounds"][1]["used"][0].erase("norm"); }, "norm");
  refuses([](Json& j) { j["rounds"][1]["bytes_up"] = -1; }, "negative");
  refuses([](Json& j) { j["clients"][0]["learned_at"] = {1, 9}; }, "not there");
  refuses([](Json& j) { j["clients"][0]["learned_at"] = {1}; }, "does not fit");
  refuses([](Json& j) { j["clients"][0]["matrix"] = Json::array(); }, "no row");
  refuses([](Json& j) { j["labels"] = {1}; }, "no list of texts");
  refuses([](Json& j) { j["histogram"]["ann"] = "x"; }, "integers");
}
