// mcit bench: many runs, shared work, the numbers of runs of their own.
#include "integration/runs.hpp"

using namespace mcit::test;

namespace {

constexpr int kSteps = 3;
const std::vector<std::string> kOrders = {"vqa,geo,count", "vqa,count,geo", "geo,vqa,count"};

Arguments bench(const Workplace& work, const std::string& strategies, std::size_t orders,
                const Arguments& more = {}) {
  Arguments out = {"bench",        small_suite(work).string(),
                   "--strategies", strategies,
                   "--out",        (work / "runs").string(),
                   "--jobs",       "2",
                   "--set",        "threads=1",
                   "--set",        "train.batch=8",
                   "--set",        "run.snapshot_every=2",
                   "--set",        "train.steps=" + std::to_string(kSteps)};
  for (std::size_t i = 0; i < orders; ++i) out = out + Arguments{"--order", kOrders[i]};
  return out + more;
}

/// The run that stands for a cell of the grid, by itself and with nothing from a cache.
std::map<std::string, std::string> alone(const Workplace& work, const std::string& strategy,
                                         const std::string& order) {
  const fs::path out = work / "alone" / (strategy + order);
  if (!fs::exists(out))
    succeeded(work.mcit(small_run(work, strategy, out, kSteps) +
                        Arguments{"--order", order, "--set", "eval.cell_cache=false"}));
  return numbers_of(out);
}

std::string said(const fs::path& run) { return slurp(run / "log.txt"); }

}  // namespace

TEST_CASE("runs that share a beginning have the bytes of runs of their own") {
  const Workplace work;
  // Together these keep adapters, buffers, Fisher information, routers, keys and prompts from stage to stage.
  const std::vector<std::string> strategies = {"sequential",  "replay",     "ewc",
                                               "branch_lora", "fwd_prompt", "mmap"};
  std::string names;
  for (const std::string& strategy : strategies) names += (names.empty() ? "" : ",") + strategy;
  const Ended ended = work.mcit(bench(work, names, 3, {"--bounds", "none"}));
  succeeded(ended);
  CHECK(ended.err.find("o2: vqa, count, geo") != std::string::npos);
  CHECK(ended.err.find("6 beginnings shared") != std::string::npos);
  for (const std::string& strategy : strategies) {
    const fs::path trunk = work / "runs/shared" / (strategy + "-1-o1-1");
    CHECK(result_of(trunk)["complete"] == false);
    CHECK(steps_of(trunk).size() >= kSteps);
    for (std::size_t i = 0; i < kOrders.size(); ++i) {
      const fs::path run = work / "runs" / (strategy + "-1-o" + std::to_string(i + 1));
      INFO(run);
      CHECK(result_of(run)["complete"] == true);
      const bool shared =
          said(run).find("begins with the first 1 stage of " + trunk.string()) != std::string::npos;
      CHECK(shared == (i < 2));
      same_numbers(alone(work, strategy, kOrders[i]), run);
    }
  }
  // The provenance holds the order.
  const Json result = result_of(work / "runs/ewc-1-o2");
  CHECK(result["tasks"][1]["name"] == "count");
  CHECK(result["provenance"]["config"].get<std::string>().find("order = [\"vqa\", \"count\", \"geo\"]") !=
        std::string::npos);
}

TEST_CASE("bounds run once for what they depend on, tables hold every order, and a grid may grow") {
  const Workplace work;
  succeeded(work.mcit(bench(work, "sequential", 1, {"--seeds", "1"})));
  CHECK(names_in(work / "runs") == std::vector<std::string>{".mcit-grid", ".mcit-grid-runs", "grid.json",
                                                            "joint-1", "sequential-1-o1", "single-1",
                                                            "table.csv", "table.md", "zero_shot-1"});
  const std::string first = slurp(work / "runs/sequential-1-o1/result.json");
  const Ended grown = work.mcit(bench(work, "sequential", 2, {"--seeds", "2"}));
  succeeded(grown);
  CHECK(grown.err.find("4 done before") != std::string::npos);
  CHECK(slurp(work / "runs/sequential-1-o1/result.json") == first);
  for (const char* run : {"zero_shot-1", "single-1", "single-2", "joint-1", "joint-2", "sequential-2-o2"})
    CHECK(result_of(work / "runs" / run)["complete"] == true);
  CHECK_FALSE(fs::exists(work / "runs/zero_shot-2"));
  const std::string table = slurp(work / "runs/table.md"), csv = slurp(work / "runs/table.csv");
  for (const char* text : {"## Over orders", "### Sensitivity to the order", "## Order o2",
                           "vqa → count → geo", "plasticity", "zero_shot", "joint"}) {
    INFO(text);
    CHECK(table.find(text) != std::string::npos);
  }
  // Plasticity of the second order is measured against single of the same seed, task by task by name.
  double expected = 0.0;
  for (const int seed : {1, 2}) {
    const Json run = result_of(work / "runs" / ("sequential-" + std::to_string(seed) + "-o2")),
               single = result_of(work / "runs" / ("single-" + std::to_string(seed)));
    const std::vector<std::size_t> places = {0, 2,
                                             1};  // of vqa, count, geo in single's order vqa, geo, count
    for (std::size_t j = 0; j < 3; ++j)
      expected +=
          (run["matrix"][j + 1][j].get<double>() - single["matrix"][places[j] + 1][places[j]].get<double>()) /
          6.0;
  }
  const std::string begin = "o2,small,sequential,sequential,1 2,fwt_plasticity,";
  REQUIRE(csv.find(begin) != std::string::npos);
  CHECK(std::abs(std::stod(csv.substr(csv.find(begin) + begin.size())) - expected) < 1e-9);

  const Ended third = work.mcit(bench(work, "sequential", 2, {"--seeds", "2"}));
  succeeded(third);
  CHECK(third.out == grown.out);
  CHECK(third.err.find("9 done before") != std::string::npos);
  failed(work.mcit(bench(work, "sequential", 2, {"--set", "train.lr=1"})),
         {"runs", "another set", "choose another"});
}

TEST_CASE("a bench that is killed goes on, and its runs end as if nothing had happened") {
  const Workplace work;
  const Arguments arguments = bench(work, "sequential,ewc", 2, {"--bounds", "none"});
  for (const fs::path& moment : {work / "runs/shared/sequential-1-o1-1/metrics.jsonl",
                                 work / "runs/sequential-1-o2/predictions/02_vqa.jsonl"}) {
    Process process(arguments, work.path());
    REQUIRE(process.until([&] { return lines_in(moment) >= 1; }));
    process.signal(SIGKILL);
    REQUIRE(process.wait().signal == SIGKILL);
  }
  succeeded(work.mcit(arguments));
  for (const std::string strategy : {"sequential", "ewc"})
    for (std::size_t i = 0; i < 2; ++i)
      same_numbers(alone(work, strategy, kOrders[i]),
                   work / "runs" / (strategy + "-1-o" + std::to_string(i + 1)));
}

TEST_CASE("a bench that is told to stop lets its runs save; two benches never share a folder") {
  const Workplace work;
  const Arguments arguments = bench(work, "sequential", 1, {"--bounds", "none", "--set", "train.steps=30"});
  Process process(arguments, work.path());
  REQUIRE(process.until([&] { return lines_in(work / "runs/sequential-1-o1/metrics.jsonl") >= 2; }));
  process.signal(SIGSTOP);
  failed(work.mcit(arguments), {"runs", "another process is running this grid"});
  process.signal(SIGTERM);
  process.signal(SIGCONT);
  const Ended ended = process.wait();
  CHECK(ended.code == 130);
  CHECK(ended.err.find("[sequential 1 o1] warning: interrupted") != std::string::npos);
  CHECK(ended.err.find("the same command goes on where it stopped") != std::string::npos);
  CHECK_FALSE(snapshots_of(work / "runs/sequential-1-o1").empty());
}

TEST_CASE("a failed run is named with its error, the rest goes on, and the exit code is 1") {
  const Workplace work;
  const Ended ended = work.mcit(
      bench(work, "sequential,replay", 2, {"--bounds", "none", "--set", "replay:strategy.replay_batch=0"}));
  CHECK(ended.code == 1);
  REQUIRE(ended.lines("error: ").size() == 1);
  CHECK(ended.lines("error: ").front().find(
            "these runs failed: replay 1 o1 1..1, replay 1 o1, replay 1 o2") != std::string::npos);
  CHECK(ended.lines("replay 1 o1 1..1: strategy.replay_batch").size() == 1);
  CHECK(ended.lines("replay 1 o2: its beginning, 'replay 1 o1 1..1', failed").size() == 1);
  for (const char* run : {"sequential-1-o1", "sequential-1-o2"})
    CHECK(result_of(work / "runs" / run)["complete"] == true);
  CHECK(slurp(work / "runs/table.md").find("sequential") != std::string::npos);
  CHECK(ended.out.find("o2: vqa → count → geo") != std::string::npos);
}

TEST_CASE("a wrong bench is one error, and leaves nothing behind") {
  const Workplace work;
  const auto refused = [&](const Arguments& arguments, const std::vector<std::string>& said) {
    failed(work.mcit(arguments), said);
    CHECK_FALSE(fs::exists(work / "runs"));
  };
  refused(bench(work, "sequentail", 1), {"did you mean 'sequential'"});
  refused(bench(work, "ewc,ewc", 1), {"--strategies", "'ewc' is there twice"});
  refused(bench(work, "ewc", 1, {"--orders", "2"}), {"--orders", "--order"});
  refused(bench(work, "ewc", 0, {"--orders", "7"}), {"3 tasks have 1 to 6 orders"});
  refused(bench(work, "ewc", 1, {"--order", "vqa,gio,count"}), {"'gio'", "did you mean 'geo'"});
  refused(bench(work, "ewc", 1, {"--order", "vqa,geo"}), {"has other tasks than the first order"});
  refused(bench(work, "ewc", 1, {"--order", "vqa,geo,vqa"}), {"names a task twice"});
  refused(bench(work, "ewc", 1, {"--seeds", "0"}), {"--seeds"});
  refused(bench(work, "ewc", 1, {"--bounds", "upper"}), {"--bounds", "'upper'"});
  refused(bench(work, "ewc", 1, {"--set", "ewk:strategy.lambda=1"}), {"'ewk'", "did you mean 'ewc'"});
  refused(bench(work, "ewc", 1, {"--devices", "gpu"}), {"--devices", "'gpu'"});
}

TEST_CASE("a run begins with another's stages only where they would have been its own") {
  const Workplace work;
  const auto run = [&](const std::string& name, const std::string& order, const Arguments& more) {
    return work.mcit(small_run(work, "sequential", work / name, kSteps) +
                     Arguments{"--order", order, "--set", "eval.cell_cache=false"} + more);
  };
  succeeded(run("first", kOrders[0], {"--until", "1"}));
  CHECK(result_of(work / "first")["complete"] == false);
  const Arguments with = {"--begin-with", (work / "first").string()};
  const auto refused = [&](const std::string& name, const Ended& ended, const std::string& why) {
    succeeded(ended);
    REQUIRE(ended.warnings().size() == 1);
    CHECK(ended.warnings().front().find(why) != std::string::npos);
    CHECK(steps_of(work / name).size() == 3 * kSteps);
  };
  refused("lr", run("lr", kOrders[1], with + Arguments{"--set", "train.lr=1e-4"}), "has other settings");
  refused("seed", run("seed", kOrders[1], with + Arguments{"--seed", "2"}),
          "another suite, strategy or seed");
  refused("order", run("order", kOrders[2], with), "its first 1 stages have other tasks");
  refused("none", run("none", kOrders[1], {"--begin-with", (work / "nowhere").string()}), "is no folder");
  succeeded(run("second", kOrders[1], with));
  same_numbers(alone(work, "sequential", kOrders[1]), work / "second");
  same_numbers(alone(work, "sequential", kOrders[2]), work / "order");
}
