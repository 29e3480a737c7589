// The built-in base must know its own world, the stream must be learnable from it, and forgetting must be
// real: lost also when answers are restricted to the task's own. Limits are those that
// benchmarks/mcit/mini/README.md states.
#include <numeric>

#include "integration/runs.hpp"

using namespace mcit::test;

namespace {

/// Runs one strategy with the default settings and gives back its result.
Json stream(const Workplace& work, const std::string& suite, const std::string& strategy) {
  const fs::path out = work / (suite + "-" + strategy);
  if (!fs::exists(out))
    succeeded(work.mcit({"run", "--suite", suite, "--strategy", strategy, "--out", out.string()}));
  return result_of(out);
}

/// Score of each task in the last row.
std::vector<double> final_scores(const Json& result) {
  return result.at("matrix").back().get<std::vector<double>>();
}

std::vector<double> chances(const Json& result) {
  std::vector<double> out;
  for (const Json& task : result.at("tasks")) out.push_back(task.at("chance").get<double>());
  return out;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Score of each task right after the stage that trained it.
std::vector<double> learnt_scores(const Json& result) {
  std::vector<double> out;
  for (std::size_t j = 0; j < result.at("tasks").size(); ++j)
    out.push_back(result.at("matrix").at(j + 1).at(j).get<double>());
  return out;
}

const Workplace& shared() {
  static const Workplace work;
  return work;
}

}  // namespace

TEST_CASE("the base answers on its own style of pictures") {
  patience = std::chrono::minutes(30);
  const Ended ended =
      shared().mcit({"pretrain", (fs::path(MCIT_SOURCE_DIR) / "configs/pretrain/mini.toml").string(),
                     "--measure", "mini", "--json"});
  succeeded(ended);
  const Json scores = Json::parse(ended.out);
  CHECK(scores.at("name").get<double>() >= 90.0);
  CHECK(scores.at("shape").get<double>() >= 85.0);
  CHECK(scores.at("flag").get<double>() >= 75.0);
}

TEST_CASE("six of the eight tasks, those of mini4 among them, are learnt alone: 15 points above chance") {
  patience = std::chrono::minutes(60);
  const Json result = stream(shared(), "mini", "single");
  const std::vector<double> learnt = learnt_scores(result), chance = chances(result);
  std::size_t good = 0;
  for (std::size_t j = 0; j < learnt.size(); ++j) {
    INFO(result.at("tasks").at(j).at("name") << ": " << learnt[j] << ", chance " << chance[j]);
    good += learnt[j] >= chance[j] + 15.0 ? 1 : 0;
    if (j < 4) CHECK(learnt[j] >= chance[j] + 15.0);
  }
  CHECK(good >= 6);
}

TEST_CASE(
    "sequential LoRA forgets what it knew, not only how to say it, and joint training comes near the single "
    "runs") {
  patience = std::chrono::minutes(60);
  for (const std::string suite : {"mini4", "mini"}) {
    INFO(suite);
    const Json sequential = stream(shared(), suite, "sequential");
    CHECK(sequential.at("metrics").at("bwt_T-1").get<double>() <= -15.0);
    CHECK(sequential.at("metrics_restricted").at("bwt_T-1").get<double>() <= -15.0);
    const Json joint = stream(shared(), suite, "joint"), single = stream(shared(), suite, "single");
    CHECK(mean(final_scores(joint)) >= mean(learnt_scores(single)) - 10.0);
    CHECK(joint.at("metrics").at("acc").get<double>() > sequential.at("metrics").at("acc").get<double>());
  }
}
