// Suites of kind "classify": CLIP alone, pictures to classes, every strategy and the same loop.
#include <set>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

/// Two styles of nine things, two of six pictures of each for training.
fs::path class_suite(const Workplace& work) {
  write(work / "classes.toml", R"(
kind = "classify"
class_template = "a picture of a {}"
train_share = 0.34
[mini]
classes = 9
pictures = 6
[[tasks]]
name = "twemoji"
folder = "Twemoji"
expected_train = 18
expected_test = 36
[[tasks]]
name = "sketch"
folder = "Sketch"
)");
  return work / "classes.toml";
}

Arguments class_run(const Workplace& work, const std::string& strategy, const fs::path& out) {
  return {"run",
          "--suite",
          class_suite(work).string(),
          "--strategy",
          strategy,
          "--out",
          out.string(),
          "--set",
          "train.steps=4",
          "--set",
          "train.batch=8",
          "--set",
          "threads=1",
          "--set",
          "run.snapshot_every=2",
          "--set",
          "eval.cell_cache=false"};
}

std::vector<Json> rows_of(const fs::path& file) {
  std::vector<Json> rows;
  for (const std::string& line : lines_of(slurp(file))) rows.push_back(Json::parse(line));
  return rows;
}

}  // namespace

TEST_CASE("Strategies learn classes one task after the other, and resume to the same bytes") {
  const std::vector<std::pair<std::string, Arguments>> strategies = {
      {"mmap", {"--set", "strategy.length=2"}},
      {"maple", {}},
      {"linear_probe", {}},
      {"moe_lora", {"--set", "strategy.rank=8", "--set", "strategy.experts=4"}},
      {"sequential", {"--set", "strategy.full=true", "--set", "strategy.targets=all"}}};
  Workplace work;
  for (const auto& [strategy, settings] : strategies) {
    INFO(strategy);
    const fs::path whole = work / strategy, parts = work / (strategy + "-parts");
    succeeded(work.mcit(class_run(work, strategy, whole) + settings));
    const Json result = result_of(whole);
    CHECK(result.at("complete") == true);
    CHECK(result.at("stages").size() == 2);
    succeeded(work.mcit(class_run(work, strategy, parts) + settings + Arguments{"--stop-after", "1"}));
    succeeded(work.mcit(resumed(parts)));
    same_numbers(numbers_of(whole), parts);
  }
  // A row's answer is one of the classes, whatever the strategy.
  std::set<std::string> classes;
  for (const Json& row : rows_of(work / "mmap" / "predictions" / "00_twemoji.jsonl"))
    classes.insert(row.at("gold").get<std::string>());
  CHECK(classes.size() == 9);
  for (const std::string cell : {"00_twemoji.jsonl", "01_sketch.jsonl", "02_twemoji.jsonl"})
    for (const Json& row : rows_of(work / "mmap" / "predictions" / cell))
      CHECK(classes.contains(row.at("text").get<std::string>()));
}

TEST_CASE("Multi-task learning is one stage with all tasks, which MmAP groups") {
  Workplace work;
  succeeded(
      work.mcit(class_run(work, "mmap", work / "run") +
                Arguments{"--set", "strategy.setting=multi_task", "--set", "strategy.grouping_steps=2"}));
  const Json result = result_of(work / "run");
  REQUIRE(result.at("stages").size() == 1);
  std::set<std::string> tables;
  for (const Json& table : result.at("tables")) {
    tables.insert(table.at("name").get<std::string>());
    CHECK(table.at("rows").size() == 2);
  }
  CHECK(tables == std::set<std::string>{"affinity", "groups"});
  CHECK(fs::exists(work / "run" / "plots" / "01_affinity.svg"));
}

TEST_CASE("What a classify suite cannot be run with is said") {
  Workplace work;
  const Ended wrong = work.mcit({"run", "--suite", "mini4", "--strategy", "linear_probe", "--out",
                                 (work / "probe").string(), "--set", "threads=1"});
  CHECK(wrong.code != 0);
  CHECK(wrong.err.find("classify") != std::string::npos);
  CHECK_FALSE(fs::exists(work / "probe"));
  const Ended deep =
      work.mcit(class_run(work, "mmap", work / "deep") + Arguments{"--set", "strategy.source_width=7"});
  CHECK(deep.code != 0);
  CHECK(deep.err.find("strategy.source_width") != std::string::npos);
  CHECK_FALSE(fs::exists(work / "deep"));
  const Ended data =
      work.mcit(class_run(work, "zero_shot", work / "data") + Arguments{"--data", work.path().string()});
  CHECK(data.code != 0);
  CHECK(data.err.find("Twemoji") != std::string::npos);
}

}  // namespace mcit::test
