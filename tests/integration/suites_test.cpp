// Every published suite through the whole program, on miniatures that have its folders, names and forms of
// rows.

#include <regex>
#include <set>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

const fs::path kMiniatures = fs::path(MCIT_SOURCE_DIR) / "tests/fixtures/suites";

Json listed(const Workplace& work) {
  const Ended ended = work.mcit({"suites", "--root", kMiniatures.string(), "--json"});
  succeeded(ended);
  return Json::parse(ended.out);
}

/// The suites whose data is not built in and that have questions.
std::vector<Json> published(const Workplace& work) {
  std::vector<Json> out;
  for (const Json& suite : listed(work))
    if (!suite.at("built_in") && suite.at("kind") == "instruct") out.push_back(suite);
  return out;
}

Arguments short_run(const std::string& suite, const fs::path& data, const fs::path& out) {
  return {"run",
          "--suite",
          suite,
          "--root",
          data.string(),
          "--strategy",
          "sequential",
          "--out",
          out.string(),
          "--set",
          "threads=1",
          "--set",
          "train.batch=2",
          "--set",
          "loader.template=plain",
          "--set",
          "eval.max_new_tokens=2",
          "--set",
          "eval.base=false"};
}

TEST_CASE("every published suite is checked and run on its miniature") {
  const Workplace work;
  const std::vector<Json> suites = published(work);
  CHECK(suites.size() == 16);
  for (const Json& suite : suites) {
    const std::string name = suite.at("name");
    INFO(name);
    CHECK(suite.at("files_found") == suite.at("files_wanted"));
    const fs::path data = suite.at("data").get<std::string>();
    const Ended checked = work.mcit({"check-data", name, "--root", data.string(), "--excerpt", "--deep"});
    succeeded(checked);
    CHECK(checked.out.find("nothing is wrong") != std::string::npos);

    const fs::path run = work / name;
    succeeded(work.mcit(short_run(name, data, run) + Arguments{"--set", "train.max_steps=1"}));
    const Json result = result_of(run);
    CHECK(result.at("complete") == true);
    REQUIRE(result.at("tasks").size() == suite.at("tasks").size());
    for (std::size_t i = 0; i < suite.at("tasks").size(); ++i) {
      CHECK(result.at("tasks")[i].at("name") == suite.at("tasks")[i].at("name"));
      CHECK(result.at("tasks")[i].at("test_examples") == 2);  // rows of each test file of the miniatures
    }
    const std::size_t stages =
        suite.at("stages").empty() ? suite.at("tasks").size() : suite.at("stages").size();
    CHECK(steps_of(run).size() == (suite.at("stages").empty() ? stages : suite.at("tasks").size()));
    CHECK(result.at("stages").size() == stages);
  }
}

TEST_CASE("a task is trained for the suite's epochs, unless a run says otherwise") {
  const Workplace work;
  const fs::path data = kMiniatures / "mllm_dcl";
  succeeded(work.mcit(short_run("mllm_dcl", data, work / "epochs")));
  std::vector<int> steps(5);
  for (const Json& step : steps_of(work / "epochs")) ++steps.at(step.at("stage").get<std::size_t>() - 1);
  // 4 rows in batches of 2: two steps a pass; passes 1, 3, 1, 2, 1 (MLLM-CL's training scripts).
  CHECK(steps == std::vector<int>{2, 6, 2, 4, 2});
  succeeded(work.mcit(short_run("mllm_dcl", data, work / "own") +
                      Arguments{"--order", "med", "--set", "train.epochs=0.5"}));
  CHECK(steps_of(work / "own").size() == 1);
  succeeded(work.mcit(short_run("mllm_dcl", data, work / "most") +
                      Arguments{"--order", "med,rs", "--set", "train.max_steps=3"}));
  CHECK(steps_of(work / "most").size() == 5);  // 3 of 6, and 2
}

TEST_CASE("suites are described with their files, counts and what is known to disagree") {
  const Workplace work;
  const Ended ended = work.mcit({"suites", "coin", "--root", kMiniatures.string()});
  succeeded(ended);
  const std::string said = std::regex_replace(ended.out, std::regex("\\s+"), " ");  // however lines are cut
  for (const char* text : {"CoIN: 8 tasks", "129833 or 117715", "Instruction_Type1/ScienceQA/train.json",
                           "Hugging Face data set Zacks-Chen/CoIN", "a version of the paper says 117,715"}) {
    INFO(text);
    CHECK(said.find(text) != std::string::npos);
  }
  const Ended nowhere = work.mcit({"suites", "coin"});
  succeeded(nowhere);
  CHECK(nowhere.out.find("not found") != std::string::npos);
  failed(work.mcit({"suites", "coim"}), {"there is no suite 'coim'", "did you mean 'coin'?"});
  failed(work.mcit({"suites", "--root", (work / "none").string()}), {"--root", "is no folder"});
}

TEST_CASE("check-data names what is missing of a published folder, without a model") {
  const Workplace work;
  fs::copy(kMiniatures / "ucit", work / "UCIT", fs::copy_options::recursive);
  fs::remove_all(work / "UCIT/datasets/VizWiz");
  fs::remove(work / "UCIT/instructions/IconQA/test_3000.json");
  const Ended ended = work.mcit({"check-data", "ucit", "--root", work.path().string()});
  CHECK(ended.code == 2);
  for (const std::string& text :
       {"ucit in " + (work / "UCIT").string(),
        std::string("vizwiz: 2 pictures are missing, there is no folder ") +
            (work / "UCIT/datasets/VizWiz").string(),
        (work / "UCIT/instructions/IconQA/test_3000.json").string() + ": does not exist",
        std::string("holds 4 rows, the suite expects 23998")}) {
    INFO(text << " in " << ended.out);
    CHECK(ended.out.find(text) != std::string::npos);
  }
  failed(ended, {"suite 'ucit'", "faults", "mcit suites ucit"});
  failed(work.mcit({"check-data", "coin"}), {"suite 'coin'", "its data was not found", "MCIT_DATA"});
}

}  // namespace
}  // namespace mcit::test
