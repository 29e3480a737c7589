// mcit run in two processes: the numbers of one, one run folder, and what is said when a process ends, hangs
// or is started anew.

#include <cmath>
#include <cstdlib>

#include "integration/runs.hpp"
#include "unit/train/free_port.hpp"

namespace mcit::test {
namespace {

/// The processes of a group, and how they ended.
class Pair {
 public:
  Pair(const Workplace& work, const Arguments& arguments) {
    fs::create_directories(work / "tmp");
    const std::string port = std::to_string(free_port());
    for (int rank = 0; rank < 2; ++rank)
      processes_.push_back(std::make_unique<Process>(
          arguments, work.path(), std::nullopt,
          Arguments{"RANK=" + std::to_string(rank), "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1",
                    "MASTER_PORT=" + port, "TMPDIR=" + (work / "tmp").string()}));
  }
  Process& operator[](std::size_t rank) { return *processes_[rank]; }
  std::vector<Ended> wait() { return {processes_[0]->wait(), processes_[1]->wait()}; }

 private:
  std::vector<std::unique_ptr<Process>> processes_;
};

void both_succeeded(Pair pair) {
  for (const Ended& ended : pair.wait()) succeeded(ended);
}

Arguments run(const Workplace& work, const fs::path& out, const Arguments& more = {}, int steps = 4) {
  return small_run(work, "sequential", out, steps) + Arguments{"--order", "vqa,geo"} + more;
}

/// Losses and matrices within 1e-5, and everything that is counted alike.
void close_numbers(const fs::path& expected, const fs::path& found) {
  constexpr double kClose = 1e-5;
  const std::vector<Json> a = steps_of(expected), b = steps_of(found);
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    INFO("line " << i + 1 << " of metrics.jsonl: " << b[i].dump());
    for (const char* key : {"loss", "gradient_norm"})
      CHECK(std::abs(a[i].at(key).get<double>() - b[i].at(key).get<double>()) < kClose);
    for (const char* key : {"stage", "step", "examples", "tokens", "rate"})
      CHECK(a[i].at(key) == b[i].at(key));
  }
  const Json x = result_of(expected), y = result_of(found);
  for (const char* key : {"complete", "counts", "tasks", "stages"}) CHECK(x.at(key) == y.at(key));
  for (const char* key : {"matrix", "matrix_restricted"}) {
    const Json &m = x.at(key), &n = y.at(key);
    REQUIRE(m.size() == n.size());
    for (std::size_t i = 0; i < m.size(); ++i)
      for (std::size_t j = 0; j < m[i].size(); ++j) {
        REQUIRE(m[i][j].is_null() == n[i][j].is_null());  // a task without an answer set
        if (!m[i][j].is_null()) CHECK(std::abs(m[i][j].get<double>() - n[i][j].get<double>()) < kClose);
      }
  }
  CHECK(names_in(expected) == names_in(found));
  CHECK(names_in(expected / "predictions") == names_in(found / "predictions"));
}

/// One workplace, and in it a run of one process.
class Runs : public Workplace {
 public:
  Runs() { succeeded(mcit(run(*this, alone()))); }
  fs::path alone() const { return *this / "alone"; }
};

const Runs& runs() {
  static const Runs one;
  return one;
}

/// torchrun of the environment that the engine is compared with transformers in, or of this machine.
std::optional<fs::path> find_torchrun() {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME"), *path = std::getenv("PATH");
  std::vector<fs::path> places;
  if (cache != nullptr && *cache != '\0')
    places.emplace_back(fs::path(cache) / "mcit/peer-venv/bin");
  else if (home != nullptr)
    places.emplace_back(fs::path(home) / ".cache/mcit/peer-venv/bin");
  std::istringstream folders(path == nullptr ? "" : path);
  for (std::string folder; std::getline(folders, folder, ':');) places.emplace_back(folder);
  for (const fs::path& place : places)
    if (fs::exists(place / "torchrun")) return place / "torchrun";
  return std::nullopt;
}

}  // namespace

TEST_CASE("two processes leave the run of one") {
  const Runs& work = runs();
  Pair pair(work, run(work, work / "two"));
  const std::vector<Ended> ended = pair.wait();
  for (const Ended& one : ended) succeeded(one);
  CHECK(ended[0].out.find("vqa") != std::string::npos);
  CHECK(ended[1].out.empty());
  CHECK(ended[1].err.empty());  // the first alone talks
  close_numbers(work.alone(), work / "two");
  CHECK(result_of(work.alone()).at("provenance").at("processes") == 1);
  CHECK(result_of(work / "two").at("provenance").at("processes") == 2);
}

TEST_CASE("the same two processes leave the same bits") {
  const Runs& work = runs();
  // Dropout too: its seeds are those of run, step and process.
  const Arguments more = {"--set", "strategy.dropout=0.1"};
  both_succeeded(Pair(work, run(work, work / "drop1", more)));
  both_succeeded(Pair(work, run(work, work / "drop2", more + Arguments{"--stop-after", "1"})));
  both_succeeded(Pair(work, resumed(work / "drop2")));
  same_numbers(numbers_of(work / "drop1"), work / "drop2");
}

TEST_CASE("a run goes on with more processes or fewer") {
  const Runs& work = runs();
  both_succeeded(Pair(work, run(work, work / "fewer", {"--stop-after", "1"})));
  succeeded(work.mcit(resumed(work / "fewer")));
  close_numbers(work.alone(), work / "fewer");
  succeeded(work.mcit(run(work, work / "more", {"--stop-after", "1"})));
  both_succeeded(Pair(work, resumed(work / "more")));
  close_numbers(work.alone(), work / "more");
}

TEST_CASE("Ctrl-C stops both at the same step, and both go on") {
  const Runs& work = runs();
  const fs::path out = work / "stopped";
  Pair pair(work, run(work, out, {}, 40));
  REQUIRE(pair[0].until([&] {
    return fs::exists(out / "metrics.jsonl") && !snapshots_of(out).empty() &&
           snapshots_of(out).back().filename() > "0000-000000003";
  }));
  pair[1].signal(SIGINT);  // one has it first, or alone
  const std::vector<Ended> ended = pair.wait();
  for (const Ended& one : ended) CHECK(one.code == 130);
  CHECK(ended[0].err.find("mcit run --resume") != std::string::npos);
  CHECK(ended[1].err.empty());
  CHECK_FALSE(result_of(out).at("complete").get<bool>());
  both_succeeded(Pair(work, resumed(out) + Arguments{"--stop-after", "1"}));
  CHECK(steps_of(out).size() == 40);
}

TEST_CASE("when a process is killed the other one says so, and the run can go on") {
  const Runs& work = runs();
  const fs::path out = work / "killed";
  Pair pair(work, run(work, out, {}, 40));
  REQUIRE(pair[0].until([&] { return snapshots_of(out).size() == 2; }));
  pair[1].signal(SIGKILL);
  const std::vector<Ended> ended = pair.wait();
  CHECK(ended[1].signal == SIGKILL);
  failed(ended[0], {"rank 0 of 2: another process has ended"});
  both_succeeded(Pair(work, resumed(out) + Arguments{"--stop-after", "1"}));
  CHECK(steps_of(out).size() == 40);
}

TEST_CASE("a process that hangs is given up after run.peer_timeout") {
  const Runs& work = runs();
  const fs::path out = work / "hung";
  Pair pair(work, run(work, out, {"--set", "run.peer_timeout=2"}, 40));
  REQUIRE(pair[0].until([&] { return !snapshots_of(out).empty(); }));
  pair[1].signal(SIGSTOP);
  const auto begin = std::chrono::steady_clock::now();
  failed(pair[0].wait(), {"rank 0 of 2: another process has not answered for 2 s", "run.peer_timeout"});
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  CHECK(took.count() > 1.0);
  CHECK(took.count() < 20.0);  // and not the default of ten minutes
  pair[1].signal(SIGKILL);
}

TEST_CASE("what is wrong is said once") {
  const Runs& work = runs();
  const auto refused = [&](const Arguments& arguments, const std::vector<std::string>& said) {
    Pair pair(work, arguments);
    const std::vector<Ended> ended = pair.wait();
    failed(ended[0], said);
    CHECK(ended[1].code == 2);
    CHECK(ended[1].err.empty());
  };
  refused(run(work, work / "uneven", {"--set", "train.batch=7"}), {"train.batch", "multiple of 2"});
  CHECK_FALSE(fs::exists(work / "uneven"));
  refused(run(work, work.alone()), {"already holds a run"});
  refused(run(work, work / "typo", {"--set", "trian.lr=1"}), {"trian"});
}

TEST_CASE("variables that make no group are an error") {
  const Runs& work = runs();
  failed(Process(run(work, work / "half"), work.path(), std::nullopt, {"RANK=0"}).wait(),
         {"RANK", "WORLD_SIZE"});
}

TEST_CASE("two processes train the experts of a mixture as one does, with their balance") {
  // The gates of every row of the batch are in one loss; the strategies' own tests cannot see that.
  const Runs& work = runs();
  const auto mixture = [&](const fs::path& out) {
    return small_run(work, "moe_lora", out, 3) +
           Arguments{"--order", "vqa", "--set", "strategy.balance=0.5", "--set", "strategy.experts=4"};
  };
  succeeded(work.mcit(mixture(work / "experts1")));
  both_succeeded(Pair(work, mixture(work / "experts2")));
  close_numbers(work / "experts1", work / "experts2");
}

TEST_CASE("two processes train the clients of a federation as one does") {
  const Runs& work = runs();
  write(work / "fed.toml", "suite = " + Json(small_suite(work).string()).dump() + R"(
order = ["vqa", "geo"]
threads = 1
strategy.rank = 2
train = {steps = 2, batch = 4, schedule = "constant"}
partition = {clients = 3}
stream.rounds_per_stage = 2
federation = {sample = 2, quorum = 2}
)");
  const auto federate = [&](const fs::path& out, const Arguments& more = {}) {
    return Arguments{"federate", (work / "fed.toml").string(), "--out", out.string()} + more;
  };
  succeeded(work.mcit(federate(work / "fed1")));
  both_succeeded(Pair(work, federate(work / "fed2")));
  both_succeeded(Pair(work, federate(work / "fed3", {"--stop-after", "3"})));
  both_succeeded(Pair(work, {"federate", "--resume", (work / "fed3").string()}));
  const Json one = result_of(work / "fed1"), two = result_of(work / "fed2"), three = result_of(work / "fed3");
  REQUIRE(one.at("matrix").size() == 3);
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 2; ++j)
      CHECK(std::abs(one.at("matrix")[i][j].get<double>() - two.at("matrix")[i][j].get<double>()) < 1e-5);
  CHECK(two.at("complete") == true);
  CHECK(two.at("provenance").at("processes") == 2);
  CHECK(names_in(work / "fed1") == names_in(work / "fed2"));
  CHECK(three.at("matrix") == two.at("matrix"));
  for (const std::string& name : names_in(work / "fed2/ledger"))
    if (name.ends_with(".safetensors"))
      CHECK(slurp(work / "fed2/ledger" / name) == slurp(work / "fed3/ledger" / name));
  CHECK(names_in(work / "tmp").empty());  // where the second process made its rounds
}

TEST_CASE("other subcommands are not started several times") {
  const Runs& work = runs();
  failed(Process({"suites"}, work.path(), std::nullopt,
                 {"RANK=0", "WORLD_SIZE=2", "MASTER_ADDR=127.0.0.1", "MASTER_PORT=1"})
             .wait(),
         {"mcit suites", "several processes"});
}

TEST_CASE("torchrun starts the group anew, and the run goes on where it was") {
  const std::optional<fs::path> torchrun = find_torchrun();
  if (!torchrun) SKIP("torchrun is not at hand; benchmarks/speed/peer_env.py installs it");
  const Runs& work = runs();
  const fs::path out = work / "restarted", script = work / "worker.sh";
  // The first time rank 1 is killed once the second stage has begun.
  write(script,
        "if [ \"$TORCHELASTIC_RESTART_COUNT$RANK\" = 01 ]; then\n"
        "  \"$@\" &\n"
        "  until ls " +
            out.string() +
            "/snapshots/0001-* >/dev/null 2>&1; do sleep 0.02; done\n"
            "  kill -9 $!\n  wait $!\n  exit 1\nfi\nexec \"$@\"\n");
  Arguments command = {torchrun->string(),
                       "--no-python",
                       "--nproc-per-node",
                       "2",
                       "--max-restarts",
                       "1",
                       "--monitor-interval",
                       "0.2",
                       "--master-port",
                       std::to_string(free_port()),
                       "/bin/sh",
                       script.string(),
                       kProgram.string()};
  const Ended ended = Process(command + run(work, out), work.path(), std::nullopt, {}, {}).wait();
  INFO(ended.err);
  CHECK(ended.code == 0);
  CHECK(ended.err.find("going on at stage 2") != std::string::npos);
  close_numbers(work.alone(), out);
}

}  // namespace mcit::test
