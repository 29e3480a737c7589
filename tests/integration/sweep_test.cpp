// mcit sweep: several runs, one table, nothing twice.
#include "integration/runs.hpp"

using namespace mcit::test;

namespace {

fs::path sweep_file(const Workplace& work, const std::string& more) {
  write(work / "sweep.toml", "suite = \"" + small_suite(work).string() +
                                 "\"\nout = \"elsewhere\"\nseeds = [1, 2]\n" +
                                 "set = [\"threads=1\", \"train.steps=2\", \"train.batch=4\"]\n" + more);
  return work / "sweep.toml";
}

Arguments sweep(const Workplace& work, const fs::path& file) {
  return {"sweep", file.string(), "--out", (work / "runs").string(), "--jobs", "2"};
}

constexpr const char* kTwo = R"(
[[run]]
name = "zero_shot"
[[run]]
name = "rank 4"
strategy = "sequential"
set = ["strategy.rank=4"]
)";

}  // namespace

TEST_CASE("a sweep runs every strategy with every seed, names its lines and repeats nothing") {
  const Workplace work;
  const fs::path file = sweep_file(work, kTwo);
  const Ended first = work.mcit(sweep(work, file));
  succeeded(first);
  CHECK(names_in(work / "runs") == std::vector<std::string>{".mcit-grid", ".mcit-grid-runs", "grid.json",
                                                            "rank_4-1", "rank_4-2", "table.md", "zero_shot-1",
                                                            "zero_shot-2"});
  const std::string table = slurp(work / "runs" / "table.md");
  CHECK(table.find("rank 4") != std::string::npos);
  CHECK(table.find("±") != std::string::npos);
  CHECK(first.out.find("rank 4") != std::string::npos);
  CHECK(first.err.find("[rank 4 2]") != std::string::npos);  // each run's lines carry its name
  for (const char* run : {"rank_4-1", "rank_4-2"}) {
    CHECK(result_of(work / "runs" / run)["complete"] == true);
    CHECK(slurp(work / "runs" / run / "config.toml").find("rank = 4") != std::string::npos);
  }
  CHECK(result_of(work / "runs" / "rank_4-2")["seed"] == 2);

  const std::string before = slurp(work / "runs" / "rank_4-1" / "result.json");
  const Ended second = work.mcit(sweep(work, file));
  succeeded(second);
  CHECK(second.err.find("4 done before") != std::string::npos);
  CHECK(second.out == first.out);
  CHECK(slurp(work / "runs" / "rank_4-1" / "result.json") == before);
}

TEST_CASE("a sweep takes up a run that was stopped, and runs those asked for alone") {
  const Workplace work;
  const fs::path file = sweep_file(work, kTwo);
  const Arguments one = sweep(work, file) + Arguments{"--only", "rank 4", "--seeds", "3..3"};
  succeeded(work.mcit(one));
  CHECK(fs::exists(work / "runs" / "table.md"));
  CHECK_FALSE(fs::exists(work / "runs" / "rank_4-1"));
  const auto whole = numbers_of(work / "runs" / "rank_4-3");
  fs::remove_all(work / "runs");
  Arguments stopped = {"run",
                       "--suite",
                       small_suite(work).string(),
                       "--strategy",
                       "sequential",
                       "--seed",
                       "3",
                       "--out",
                       (work / "runs" / "rank_4-3").string(),
                       "--stop-after",
                       "1"};
  for (const char* set : {"label=rank 4", "threads=1", "train.steps=2", "train.batch=4", "strategy.rank=4"})
    stopped = stopped + Arguments{"--set", set};
  succeeded(work.mcit(stopped));
  succeeded(work.mcit(one));
  same_numbers(whole, work / "runs" / "rank_4-3");
}

TEST_CASE("a wrong sweep is one error, and a failed run is named while the others end well") {
  const Workplace work;
  failed(work.mcit(sweep(work, sweep_file(work, ""))), {"sweep.toml", "has no [[run]]"});
  failed(work.mcit(sweep(work, sweep_file(work, "[[run]]\nnam = \"ewc\"\n"))), {"sweep.toml", "name"});
  failed(work.mcit(sweep(work, sweep_file(work, "[[run]]\nname = \"ewc\"\n[[run]]\nname = \"ewc\"\n"))),
         {"another run named 'ewc'"});
  failed(work.mcit(sweep(work, sweep_file(work, kTwo)) + Arguments{"--only", "rank4"}),
         {"--only", "'rank4'", "did you mean 'rank 4'"});
  CHECK_FALSE(fs::exists(work / "runs"));
  const Ended ended =
      work.mcit(sweep(work, sweep_file(work, std::string(kTwo) +
                                                 "[[run]]\nname = \"wrong\"\nstrategy = \"sequentail\"\n")) +
                Arguments{"--seeds", "1"});
  CHECK(ended.code == 1);
  CHECK(ended.err.find("these runs failed: wrong 1") != std::string::npos);
  CHECK(ended.err.find("did you mean 'sequential'") != std::string::npos);
  CHECK(result_of(work / "runs" / "rank_4-1")["complete"] == true);
}

TEST_CASE("a sweep that is told to stop tells its runs, and the same command goes on to the same numbers") {
  const Workplace work;
  const fs::path file = sweep_file(work, "[[run]]\nname = \"sequential\"\n");
  const Arguments one = sweep(work, file) + Arguments{"--seeds", "1", "--set", "train.steps=30"};
  succeeded(work.mcit(one));
  const fs::path run = work / "runs" / "sequential-1";
  const auto whole = numbers_of(run);
  fs::remove_all(work / "runs");
  Process process(one, work.path());
  REQUIRE(process.until([&] { return lines_in(run / "metrics.jsonl") >= 5; }));
  process.signal(SIGTERM);
  const Ended ended = process.wait();
  CHECK(ended.code == 130);
  CHECK(ended.err.find("the same command goes on where it stopped") != std::string::npos);
  CHECK(ended.err.find("[sequential 1]") != std::string::npos);
  succeeded(work.mcit(one));
  same_numbers(whole, run);
}

TEST_CASE("a sweep over values of one key is a line for each value") {
  const Workplace work;
  const Arguments values = {"sweep",      small_suite(work).string(),
                            "--strategy", "sequential",
                            "--key",      "strategy.rank",
                            "--values",   "2,4",
                            "--seeds",    "2",
                            "--out",      (work / "runs").string()};
  const Arguments small = {"--set", "threads=1", "--set", "train.steps=1", "--set", "train.batch=4"};
  const Ended ended = work.mcit(values + small);
  succeeded(ended);
  CHECK(ended.out.find("rank=4") != std::string::npos);
  for (const char* run : {"rank_2-1", "rank_2-2", "rank_4-1", "rank_4-2"})
    CHECK(result_of(work / "runs" / run)["complete"] == true);
  CHECK(slurp(work / "runs" / "rank_2-1" / "config.toml").find("rank = 2") != std::string::npos);
  // What is there has to stay what it was.
  failed(work.mcit(values + small + Arguments{"--set", "train.lr=1"}), {"runs", "another set"});
  failed(work.mcit({"sweep", "mini4", "--values", "1"}), {"needs --key"});
  failed(work.mcit({"sweep", "mini4", "--key", "strategy.rank"}), {"has no values"});
  failed(work.mcit({"sweep", "mini4"}), {"there is no file 'mini4'", "--key"});
}
