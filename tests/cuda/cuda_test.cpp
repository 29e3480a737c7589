// The same binary on a GPU: bfloat16 there, float32 here, and the same story told by both.
#include <cmath>

#include "integration/runs.hpp"

using namespace mcit::test;

namespace {

/// A small run on one device. Skips the test where a GPU is asked for and none can be opened.
Json run_on(const Workplace& work, const std::string& device, const std::string& name) {
  const fs::path out = work / name;
  const Ended ended = work.mcit(small_run(work, "sequential", out) + Arguments{"--device", device});
  if (device != "cpu" && ended.code == 2 && ended.err.find("CUDA") != std::string::npos)
    SKIP("no GPU: " << ended.lines("error: ").front());
  succeeded(ended);
  return result_of(out);
}

std::vector<double> losses_of(const fs::path& run) {
  std::vector<double> out;
  for (const Json& step : steps_of(run)) out.push_back(step.at("loss").get<double>());
  return out;
}

}  // namespace

TEST_CASE("a run on the GPU is bfloat16 and follows the run on the CPU") {
  patience = std::chrono::minutes(5);
  const Workplace work;
  const Json gpu = run_on(work, "cuda", "gpu"), cpu = run_on(work, "cpu", "cpu");
  CHECK(gpu.at("provenance").at("device") == "cuda:0");
  CHECK(gpu.at("provenance").at("dtype") == "BFloat16");
  CHECK(cpu.at("provenance").at("dtype") == "Float");
  const auto there = losses_of(work / "gpu"), here = losses_of(work / "cpu");
  REQUIRE(there.size() == here.size());
  for (std::size_t i = 0; i < here.size(); ++i) {
    INFO("step " << i << ": " << there[i] << " on the GPU, " << here[i] << " on the CPU");
    CHECK(std::abs(there[i] - here[i]) <= 0.05 * std::abs(here[i]) + 0.05);  // bfloat16 has 8 bits
  }
}

TEST_CASE("a run on the GPU that was stopped goes on there") {
  patience = std::chrono::minutes(5);
  const Workplace work;
  const Json whole = run_on(work, "cuda", "whole");
  const fs::path part = work / "part";
  succeeded(
      work.mcit(small_run(work, "sequential", part) + Arguments{"--device", "cuda", "--stop-after", "1"}));
  succeeded(work.mcit(resumed(part)));
  CHECK(result_of(part).at("complete") == true);
  CHECK(result_of(part).at("matrix").size() == whole.at("matrix").size());
}
