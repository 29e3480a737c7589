// Runs that are killed, interrupted or run out of disk, and end as if nothing had happened.

#include <sys/mount.h>

#include <cstdlib>
#include <fstream>
#include <random>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

constexpr int kSteps = 6, kStages = 3;

/// Every cell is computed where it is needed: one that came from a cache would prove nothing.
Arguments uncached(const std::string& strategy, const fs::path& out);

/// The numbers of uninterrupted runs, made when they are first asked for.
class Reference : public Workplace {
 public:
  const std::map<std::string, std::string>& numbers(const std::string& strategy) const {
    std::map<std::string, std::string>& known = known_[strategy];
    if (known.empty()) {
      succeeded(mcit(uncached(strategy, *this / strategy)));
      known = numbers_of(*this / strategy);
      const std::vector<Json> lines = steps_of(*this / strategy);
      REQUIRE(std::count_if(lines.begin(), lines.end(), [](const Json& line) {
                return line.contains("step");  // others hold what hooks outside of steps recorded
              }) == kSteps * kStages);
      REQUIRE(known.size() > 4 * 3);
    }
    return known;
  }

 private:
  mutable std::map<std::string, std::map<std::string, std::string>> known_;
};

const Reference& reference() {
  static const Reference one;
  return one;
}

Arguments uncached(const std::string& strategy, const fs::path& out) {
  return small_run(reference(), strategy, out, kSteps) + Arguments{"--set", "eval.cell_cache=false"};
}

Process started(const Arguments& arguments) { return Process(arguments, reference().path()); }

void kill_when(Process& process, const std::function<bool()>& holds) {
  REQUIRE(process.until(holds));
  process.signal(SIGKILL);
  const Ended ended = process.wait();
  INFO(ended.err);
  REQUIRE(ended.signal == SIGKILL);  // otherwise it was over before, and nothing is shown
}

/// The first stage and its evaluation are done: two snapshots, of which the newest is the stage's end.
fs::path half_done(const Workplace& work) {
  succeeded(reference().mcit(uncached("sequential", work / "run") + Arguments{"--stop-after", "1"}));
  REQUIRE(snapshots_of(work / "run").size() == 2);
  return work / "run";
}

/// Changes a byte of a tensor: the header still reads well.
void damage(const fs::path& file) {
  std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
  out.seekg(-5, std::ios::end);
  const char byte = static_cast<char>(out.get());
  out.seekp(-5, std::ios::end);
  out.put(static_cast<char>(byte ^ 0x40));
}

/// A file system of its own, where this process may make one.
class SmallDisk : public TemporaryFolder {
 public:
  SmallDisk() : mounted_(::mount("tmpfs", path().c_str(), "tmpfs", 0, "size=64m") == 0) {}
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (mounted_) ::umount2(path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  /// Leaves this many bytes.
  void fill(std::uint64_t left) const {
    const std::uint64_t available = fs::space(path()).available;
    REQUIRE(available > left);
    write(*this / "ballast", std::string(available - left, 'x'));
  }

 private:
  bool mounted_;
};

}  // namespace

TEST_CASE("Killed again and again, a run still gives the bytes of one that was not") {
  std::mt19937 random(20);
  for (const std::string strategy : {"sequential", "replay", "ewc", "branch_lora", "fwd_prompt", "mmap"}) {
    const auto& expected = reference().numbers(strategy);
    Workplace work;
    const fs::path run = work / "run";
    const auto line_of = [&](std::size_t stage) {
      return (stage - 1) * kSteps + 1 + random() % (kSteps - 1);
    };
    const auto lines = [&run](std::size_t count) {
      return [run, count] { return lines_in(run / "metrics.jsonl") >= count; };
    };
    const auto answered = [&run](const std::string& cell) {
      return [run, cell] { return fs::exists(run / "predictions" / cell); };
    };
    // In the middle of each stage, and between two cells of an evaluation; each process takes up what the
    // last one left.
    const std::vector<std::pair<std::string, std::function<bool()>>> moments = {
        {"the base's evaluation", answered("00_vqa.jsonl")},
        {"stage 1", lines(line_of(1))},
        {"evaluation 1", answered("01_vqa.jsonl")},
        {"stage 2", lines(line_of(2))},
        {"stage 3", lines(line_of(3))},
        {"evaluation 3", answered("03_vqa.jsonl")}};
    for (std::size_t i = 0; i < moments.size(); ++i) {
      INFO(strategy << ", killed in " << moments[i].first);
      Process process = started(i == 0 ? uncached(strategy, run) : resumed(run));
      kill_when(process, moments[i].second);
    }
    succeeded(reference().mcit(resumed(run)));
    INFO(strategy);
    same_numbers(expected, run);
  }
}

TEST_CASE("SIGINT saves, ends with exit code 130 and says how to go on") {
  for (const int number : {SIGINT, SIGTERM}) {
    Workplace work;
    const fs::path run = work / "run";
    Process process = started(uncached("sequential", run));
    REQUIRE(process.until([&] { return lines_in(run / "metrics.jsonl") >= 2; }));
    process.signal(SIGSTOP);
    const Ended second = reference().mcit(resumed(run));
    process.signal(number);
    process.signal(SIGCONT);
    const Ended ended = process.wait();
    INFO(ended.err);
    CHECK(ended.code == 130);
    CHECK(ended.err.find("mcit run --resume " + run.string()) != std::string::npos);
    failed(second, {run.string(), "another process"});
    CHECK(steps_of(run).size() < kSteps * kStages);
    CHECK(result_of(run).at("complete") == false);
    CHECK_FALSE(snapshots_of(run).empty());
    succeeded(reference().mcit(resumed(run)));
    same_numbers(reference().numbers("sequential"), run);
  }
}

/// Ctrl-C while the model answers the first test rows, and the rest of the run after it.
void interrupted_while_answering(const std::string& strategy, const fs::path& run) {
  Process process = started(uncached(strategy, run));
  REQUIRE(process.until([&] { return fs::exists(run / "predictions/01_vqa.jsonl"); }));
  process.signal(SIGINT);
  const Ended ended = process.wait();
  INFO(ended.err);
  CHECK(ended.code == 130);
  succeeded(reference().mcit(resumed(run)));
}

TEST_CASE("Ctrl-C while the model answers saves too") {
  Workplace work;
  interrupted_while_answering("sequential", work / "run");
  same_numbers(reference().numbers("sequential"), work / "run");
}

TEST_CASE("Ctrl-C ends a run that trains nothing") {
  Workplace work;
  interrupted_while_answering("zero_shot", work / "run");
  CHECK(result_of(work / "run").at("complete") == true);
}

TEST_CASE("Settings beside --resume never make a run of two halves") {
  Workplace work;
  const fs::path run = half_done(work);
  const Ended ended = reference().mcit(resumed(run) + Arguments{"--set", "train.lr=0.1"});
  if (ended.code != 0) {
    failed(ended, {"--resume"});
    succeeded(reference().mcit(resumed(run)));
  }
  same_numbers(reference().numbers("sequential"), run);
}

TEST_CASE("A run that was killed while it wrote a file can be replaced") {
  Workplace work;
  const fs::path run = half_done(work);
  write(run / ".result.json.Xa3b9Q", "{");  // what is left of a file that was to be put in place whole
  succeeded(reference().mcit(uncached("sequential", run) + Arguments{"--overwrite"}));
  same_numbers(reference().numbers("sequential"), run);
}

TEST_CASE("A run that is done has nothing left to resume, and stays as it is") {
  Workplace work;
  succeeded(reference().mcit(uncached("sequential", work / "run")));
  const auto before = numbers_of(work / "run");
  succeeded(reference().mcit(resumed(work / "run")));
  same_numbers(before, work / "run");
  CHECK(before == reference().numbers("sequential"));
}

TEST_CASE("A damaged newest snapshot costs a warning, and the one before it is taken") {
  Workplace work;
  const fs::path run = half_done(work), newest = snapshots_of(run).back();
  SECTION("a byte has changed") { damage(newest); }
  SECTION("the file is cut short") { fs::resize_file(newest, fs::file_size(newest) / 2); }
  SECTION("the file is empty") { fs::resize_file(newest, 0); }
  const Ended ended = reference().mcit(resumed(run));
  succeeded(ended);
  REQUIRE(ended.warnings().size() == 1);
  CHECK(ended.warnings().front().find(newest.string()) != std::string::npos);
  same_numbers(reference().numbers("sequential"), run);
}

TEST_CASE("Snapshots that are all damaged are one clear error") {
  Workplace work;
  const fs::path run = half_done(work);
  const std::vector<fs::path> all = snapshots_of(run);
  for (const fs::path& file : all) damage(file);
  const Ended ended = reference().mcit(resumed(run));
  failed(ended, {(run / "snapshots").string(), "no readable snapshot"});
  // The last one that is looked at has none before it to be taken.
  REQUIRE_FALSE(ended.warnings().empty());
  CHECK(ended.warnings().back().find(all.front().string()) == std::string::npos);
  CHECK(snapshots_of(run) == all);
}

TEST_CASE("A picture that vanished is named, and what was saved is kept") {
  Workplace work;
  succeeded(work.mcit({"make-data", "mini", "--tasks", "vqa,geo,count", "--train", "32", "--test", "12",
                       "--out", (work / "data").string()}));
  write(work / "small.toml", "data = \"data\"\n" + std::string(kTasks));
  const auto arguments = [&](const std::string& name) {
    return Arguments{"run",
                     "--suite",
                     (work / "small.toml").string(),
                     "--out",
                     (work / name).string(),
                     "--set",
                     "train.steps=6",
                     "--set",
                     "train.batch=8",
                     "--set",
                     "threads=1",
                     "--set",
                     "run.snapshot_every=2",
                     "--set",
                     "eval.cell_cache=false"};
  };
  const fs::path run = work / "run", picture = work / "data/count/train/000003.png";
  SECTION("while the run went on") {
    Process process(arguments("run"), work.path());
    REQUIRE(process.until([&] { return lines_in(run / "metrics.jsonl") >= 2; }));
    fs::rename(picture, work / "away.png");
    failed(process.wait(), {picture.string()});
    CHECK(steps_of(run).size() == 12);
  }
  SECTION("while it rested") {
    succeeded(work.mcit(arguments("run") + Arguments{"--stop-after", "1"}));
    fs::rename(picture, work / "away.png");
    failed(work.mcit(resumed(run)), {picture.string()});
    CHECK(steps_of(run).size() == 6);
  }
  CHECK_FALSE(snapshots_of(run).empty());
  fs::rename(work / "away.png", picture);
  succeeded(work.mcit(resumed(run)));
  succeeded(work.mcit(arguments("whole")));
  same_numbers(numbers_of(work / "whole"), run);
}

TEST_CASE("A snapshot that cannot be written is one clear error, and the run goes on from the one before") {
  Workplace work;
  const fs::path run = half_done(work);
  const std::vector<fs::path> before = snapshots_of(run);
  const std::uintmax_t least = std::min(fs::file_size(before[0]), fs::file_size(before[1]));
  failed(reference().mcit(resumed(run), least - 1), {(run / "snapshots").string(), "cannot write"});
  CHECK(snapshots_of(run) == before);
  CHECK(names_in(run / "snapshots").size() == before.size());  // no half of a file either
  succeeded(reference().mcit(resumed(run)));
  same_numbers(reference().numbers("sequential"), run);
}

TEST_CASE("A full disk is one clear error, and the run goes on when there is space again") {
  const SmallDisk disk;
  if (!disk.mounted()) SKIP("needs the right to mount a tmpfs");
  const fs::path run = disk / "run";
  succeeded(reference().mcit(uncached("sequential", run) + Arguments{"--stop-after", "1"}));
  const std::vector<fs::path> before = snapshots_of(run);
  const std::uintmax_t least = std::min(fs::file_size(before[0]), fs::file_size(before[1]));
  for (const std::uint64_t left : {std::uint64_t{least / 2}, std::uint64_t{0}}) {
    disk.fill(left);
    failed(reference().mcit(resumed(run)), {run.string(), "No space left on device", "the disk is full"});
    CHECK(snapshots_of(run) == before);
    fs::remove(disk / "ballast");
  }
  succeeded(reference().mcit(resumed(run)));
  same_numbers(reference().numbers("sequential"), run);
}

}  // namespace mcit::test
