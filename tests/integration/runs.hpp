#pragma once
/// Runs that take a second or two, and what of them must be the same to the byte.

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "integration/mcit_process.hpp"

namespace mcit::test {

using Json = nlohmann::ordered_json;

inline constexpr const char* kTasks = R"(
[[tasks]]
name = "vqa"
train = "vqa/train.json"
test = "vqa/test.json"
max_new_tokens = 4
answers = ["yes", "no"]

[[tasks]]
name = "geo"
train = "geo/train.json"
test = "geo/test.json"
max_new_tokens = 4

[[tasks]]
name = "count"
train = "count/train.json"
test = "count/test.json"
max_new_tokens = 4
)";

/// A suite of three tasks with a handful of rows each.
inline fs::path small_suite(const Workplace& work) {
  write(work / "small.toml",
        std::string("probe = \"cap/train.json\"\n[mini]\ntrain = 32\ntest = 12\n") + kTasks);
  return work / "small.toml";
}

/// mcit run, with snapshots after every second step.
inline Arguments small_run(const Workplace& work, const std::string& strategy, const fs::path& out,
                           int steps = 6) {
  return {"run",        "--suite",       small_suite(work).string(),
          "--strategy", strategy,        "--out",
          out.string(), "--set",         "train.steps=" + std::to_string(steps),
          "--set",      "train.batch=8", "--set",
          "threads=1",  "--set",         "run.snapshot_every=2"};
}

inline Arguments resumed(const fs::path& run) { return {"run", "--resume", run.string()}; }

inline Json result_of(const fs::path& run) { return Json::parse(slurp(run / "result.json")); }

inline std::vector<Json> steps_of(const fs::path& run) {
  std::vector<Json> steps;
  for (const std::string& line : lines_of(slurp(run / "metrics.jsonl"))) steps.push_back(Json::parse(line));
  return steps;
}

inline std::size_t lines_in(const fs::path& file) {
  const std::string text = slurp(file);
  return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n'));
}

inline std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  if (!fs::is_directory(folder)) return names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// Newest last.
inline std::vector<fs::path> snapshots_of(const fs::path& run) {
  std::vector<fs::path> files;
  for (const std::string& name : names_in(run / "snapshots"))
    if (name.ends_with(".safetensors")) files.push_back(run / "snapshots" / name);
  return files;
}

/// Every number of a run but times: file -> bytes.
inline std::map<std::string, std::string> numbers_of(const fs::path& run) {
  std::map<std::string, std::string> files = {{"matrix.csv", slurp(run / "matrix.csv")},
                                              {"matrix.svg", slurp(run / "matrix.svg")}};
  for (const std::string& name : names_in(run / "predictions"))
    files["predictions/" + name] = slurp(run / "predictions" / name);
  for (Json step : steps_of(run)) {
    step.erase("seconds");
    files["metrics.jsonl"] += step.dump() + "\n";
  }
  const Json result = result_of(run);
  for (const char* key :
       {"complete", "matrix", "matrix_restricted", "counts", "metrics", "metrics_restricted"})
    files[std::string("result.json: ") + key] = result.at(key).dump();
  for (const Json& stage : result.at("costs").at("stages"))
    for (const char* key : {"trainable_parameters", "stored_parameters", "steps", "examples", "tokens"})
      files["result.json: costs"] += stage.at(key).dump() + " ";
  return files;
}

inline void same_numbers(const std::map<std::string, std::string>& expected, const fs::path& run) {
  const std::map<std::string, std::string> found = numbers_of(run);
  for (const auto& [file, bytes] : expected) {
    INFO(run << ": " << file);
    REQUIRE(found.contains(file));
    CHECK(found.at(file) == bytes);
  }
  CHECK(found.size() == expected.size());
}

}  // namespace mcit::test
