// Answers that a run has stored, scored again: by files, by the rules of other projects, and split into what
// was forgotten in form and in content.

#include <cmath>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

/// A workplace with one run of three tasks.
class Runs : public Workplace {
 public:
  Runs() { succeeded(mcit(small_run(*this, "sequential", run()))); }
  fs::path run() const { return *this / "run"; }
};

const Runs& runs() {
  static const Runs one;
  return one;
}

double cell(const Json& matrix, std::size_t i, std::size_t j) { return matrix.at(i).at(j).get<double>(); }

/// A copy of the run that may be changed.
fs::path copy_of_run(const std::string& name) {
  const fs::path copy = runs() / name;
  fs::remove_all(copy);
  fs::copy(runs().run(), copy, fs::copy_options::recursive);
  return copy;
}

}  // namespace

TEST_CASE("a run's result names the scorers and splits its forgetting") {
  const Json result = result_of(runs().run());
  for (const Json& task : result.at("tasks")) CHECK(task.at("scorer") == "exact");
  const Json& split = result.at("forgetting_split");
  for (const char* part : {"format_drift", "knowledge_loss", "regained"}) {
    REQUIRE(split.at(part).size() == 4);
    CHECK(split.at(part).at(1).at(0).is_null());  // just learned
    CHECK(split.at(part).at(3).at(2).is_null());
  }
  for (const auto& [i, j] : std::vector<std::pair<std::size_t, std::size_t>>{{2, 0}, {3, 0}, {3, 1}}) {
    INFO("stage " << i << ", task " << j);
    const double lost = cell(split.at("format_drift"), i, j) + cell(split.at("knowledge_loss"), i, j) -
                        cell(split.at("regained"), i, j);
    CHECK(std::abs(lost - (cell(result.at("matrix"), j + 1, j) - cell(result.at("matrix"), i, j))) < 1e-9);
  }
}

TEST_CASE("mcit score gives a run's predictions the score that the run has") {
  const Json result = result_of(runs().run());
  const Ended ended =
      runs().mcit({"score", "--pred", (runs().run() / "predictions/03_geo.jsonl").string(), "--json"});
  succeeded(ended);
  const Json report = Json::parse(ended.out);
  CHECK(report.at("score") == result.at("matrix").at(3).at(1));
  CHECK(report.at("scored") == 12);
  CHECK(report.at("faults").empty());
  // The same against the task's test file, found by id.
  const fs::path gold = runs() / "gold.json";
  Json rows = Json::array();
  for (const std::string& line : lines_of(slurp(runs().run() / "predictions/03_geo.jsonl"))) {
    const Json row = Json::parse(line);
    rows.push_back(
        {{"question_id", row.at("question_id")}, {"text", row.at("prompt")}, {"answer", row.at("gold")}});
  }
  std::reverse(rows.begin(), rows.end());
  write(gold, rows.dump());
  const Ended again = runs().mcit({"score", "--gold", gold.string(), "--pred",
                                   (runs().run() / "predictions/03_geo.jsonl").string(), "--json"});
  succeeded(again);
  CHECK(Json::parse(again.out).at("score") == report.at("score"));
}

TEST_CASE("mcit score says what is wrong with an invocation") {
  const std::string pred = (runs().run() / "predictions/03_geo.jsonl").string();
  failed(runs().mcit({"score", "--pred", pred, "--scorer", "exakt"}), {"exakt", "exact"});
  failed(runs().mcit({"score", "--pred", pred, "--profile", "coim"}), {"coim", "coin"});
  failed(runs().mcit({"score", "--pred", "none.jsonl"}), {"none.jsonl", "No such file"});
  CHECK(runs().mcit({"score"}).code == 2);
  const Ended list = runs().mcit({"score", "--list"});
  succeeded(list);
  for (const char* text : {"vqa_soft", "mcitlib", "eval_grounding.py"})
    CHECK(list.out.find(text) != std::string::npos);
}

TEST_CASE("rescoring under the same rules changes nothing") {
  const fs::path run = copy_of_run("same");
  const Ended ended = runs().mcit({"rescore", run.string()});
  succeeded(ended);
  const Json before = result_of(run), after = Json::parse(slurp(run / "rescored/strict.json"));
  for (const char* key :
       {"matrix", "matrix_restricted", "counts", "metrics", "metrics_restricted", "forgetting_split"})
    CHECK(after.at(key) == before.at(key));
  CHECK(after.at("profile") == "strict");
}

TEST_CASE("rescoring under a profile tells what changed and why") {
  const fs::path run = copy_of_run("coin");
  // Every answer of geo after the last stage is right but for a full stop, and that to the first row is
  // empty.
  std::string lines;
  for (const std::string& line : lines_of(slurp(run / "predictions/03_geo.jsonl"))) {
    Json row = Json::parse(line);
    row["text"] = lines.empty() ? std::string() : row.at("gold").get<std::string>() + ".";
    row["score"] = lines.empty() ? 0.0 : 1.0;
    row["well_formed"] = !lines.empty();
    lines += row.dump() + "\n";
  }
  write(run / "predictions/03_geo.jsonl", lines);
  const Ended ended = runs().mcit({"rescore", run.string(), "--profile", "coin"});
  succeeded(ended);
  CHECK(ended.out.find("case or stop") != std::string::npos);
  const Json after = Json::parse(slurp(run / "rescored/coin.json"));
  CHECK(after.at("matrix").at(3).at(1) == 0.0);
  const Json& geo = after.at("rules").at(1);
  CHECK(geo.at("scorer") == "exact");
  CHECK(geo.at("as_strict") == false);
  CHECK(geo.at("changed").at("case or stop") == Json{{"better", 0}, {"worse", 11}});
  CHECK_FALSE(geo.at("changed").contains("empty answer"));  // wrong before, wrong now
  const Ended metrics = runs().mcit({"metrics", (run / "rescored/coin.json").string(), "--json"});
  succeeded(metrics);
  CHECK(Json::parse(metrics.out).at("acc") == after.at("metrics").at("acc"));
  // Beside the run itself it is a row of its own.
  const Ended both =
      runs().mcit({"compare", run.string(), (run / "rescored/coin.json").string(), "--json", "-"});
  succeeded(both);
  CHECK(both.out.find("\"sequential\"") != std::string::npos);
  CHECK(both.out.find("\"sequential, scored as coin\"") != std::string::npos);
  // The folder is still one that a run may overwrite.
  succeeded(runs().mcit(small_run(runs(), "sequential", run, 1) + Arguments{"--overwrite"}));
  CHECK_FALSE(fs::exists(run / "rescored"));
}

TEST_CASE("mcit rescore says what is wrong with a run") {
  const fs::path run = copy_of_run("faulty");
  failed(runs().mcit({"rescore", run.string(), "--profile", "prysm"}), {"prysm", "prism"});
  failed(runs().mcit({"rescore", run.string(), "--scorer", "vqq=exact"}), {"vqq", "vqa"});
  failed(runs().mcit({"rescore", run.string(), "--scorer", "geo=iou"}), {"geo", "iou", "is no box"});
  CHECK(runs().mcit({"rescore", run.string(), "--scorer", "geo"}).code == 2);
  Json result = result_of(run);
  for (Json& task : result["tasks"]) task.erase("scorer");
  write(run / "result.json", result.dump());
  failed(runs().mcit({"rescore", run.string()}), {"vqa", "--scorer vqa=exact"});
  fs::remove_all(run / "predictions");
  write(run / "result.json", result_of(runs().run()).dump());
  failed(runs().mcit({"rescore", run.string()}), {"no predictions"});
}

}  // namespace mcit::test
