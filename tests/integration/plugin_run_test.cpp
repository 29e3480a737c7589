// Strategies and plugin files that go wrong: the run says where, and the engine does not go down with them.

#include <set>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

const fs::path kFixtures = fs::path(MCIT_BINARY_DIR) / "tests/fixtures/plugins";

fs::path fixture(const std::string& name) { return kFixtures / ("fixture_" + name + ".so"); }

/// One workplace for all: its caches are filled once.
const Workplace& work() {
  static const Workplace one;
  static const bool made = fs::create_directory(one / "plugins");
  if (made) fs::copy_file(fixture("good"), one / "plugins/good.so", fs::copy_options::skip_existing);
  return one;
}

/// A folder that holds nothing but copies of these fixtures.
class Plugins : public TemporaryFolder {
 public:
  explicit Plugins(const std::vector<std::string>& names) {
    for (const std::string& name : names) fs::copy_file(fixture(name), path() / (name + ".so"));
  }
};

/// Two steps a stage, everything evaluated anew: a cached cell would spare the strategy its select().
Arguments run_of(const std::string& strategy, const Plugins& plugins, const fs::path& out) {
  return small_run(work(), strategy, out, 2) +
         Arguments{"--overwrite", "--plugin-dir", plugins.path().string(), "--set", "eval.cell_cache=false"};
}

Json check_of(const std::string& file, const std::string& strategy) {
  const Ended ended = work().mcit({"check-plugin", fixture(file).string(), "--strategy", strategy, "--json"});
  INFO(ended.err);
  CHECK(ended.code == 1);
  CHECK(ended.signal == 0);
  return Json::parse(ended.out);
}

/// Names of the checks that failed.
std::vector<std::string> failures(const Json& report) {
  std::vector<std::string> names;
  for (const Json& check : report.at("checks"))
    if (check.at("outcome") == "FAIL") names.push_back(check.at("check"));
  return names;
}

std::string detail_of(const Json& report, const std::string& name) {
  for (const Json& check : report.at("checks"))
    if (check.at("check") == name) return check.at("detail");
  FAIL("no check '" << name << "' in " << report.dump(1));
  return {};
}

}  // namespace

TEST_CASE("A hook that throws ends the run with one line: strategy, hook, task, step") {
  const Plugins plugins({"throws_in"});
  const auto ends = [&](const std::string& strategy, const std::string& line) {
    INFO(strategy);
    const std::string error = failed(work().mcit(run_of(strategy, plugins, work() / "throws")), {});
    CHECK(error == "error: '" + strategy + "' in " + line);
  };
  const std::string task = ", task 1 'vqa'", step = task + ", step 1", cause = ": thrown on purpose";
  for (const std::string hook : {"on_stream_begin", "plan", "attach"})
    ends("throws_in_" + hook, hook + cause);
  for (const std::string hook :
       {"before_task", "parameters", "state", "after_task", "select", "stored_parameters"})
    ends("throws_in_" + hook, hook + task + cause);
  for (const std::string hook : {"before_forward", "loss", "on_gradients", "after_step"})
    ends("throws_in_" + hook, hook + step + cause);
}

TEST_CASE("load_state() that throws ends the resumed run, not the one before") {
  const Plugins plugins({"throws_in"});
  const fs::path run = work() / "throws in load_state";
  succeeded(work().mcit(run_of("throws_in_load_state", plugins, run) + Arguments{"--stop-after", "1"}));
  const Ended ended = work().mcit(resumed(run) + Arguments{"--plugin-dir", plugins.path().string()});
  CHECK(failed(ended, {}) == "error: 'throws_in_load_state' in load_state, task 1 'vqa': thrown on purpose");
}

TEST_CASE("What is no std::exception costs the same one line") {
  const Plugins plugins({"throws_in"});
  const std::string cause = ": threw something that is no std::exception";
  CHECK(failed(work().mcit(run_of("throws_number_in_loss", plugins, work() / "number")), {}) ==
        "error: 'throws_number_in_loss' in loss, task 1 'vqa', step 0" + cause);
  CHECK(failed(work().mcit(run_of("throws_number_in_stored_parameters", plugins, work() / "number")), {}) ==
        "error: 'throws_number_in_stored_parameters' in stored_parameters, task 1 'vqa'" + cause);
}

TEST_CASE("An exception of LibTorch costs one line, without its frames") {
  const Plugins plugins({"throws_in"});
  const std::string error =
      failed(work().mcit(run_of("throws_libtorch_in_loss", plugins, work() / "libtorch")),
             {"'throws_libtorch_in_loss' in loss, task 1 'vqa', step 0: ", "size of tensor a (2)"});
  CHECK(error.find("frame #") == std::string::npos);
}

TEST_CASE("What the engine cannot use of a hook's answer costs one line that names strategy and hook") {
  const Plugins plugins({"returns_nonsense"});
  const auto ends = [&](const std::string& strategy, const std::vector<std::string>& said) {
    INFO(strategy);
    failed(work().mcit(run_of(strategy, plugins, work() / "nonsense")), said);
  };
  ends("plans_unknown_task", {"'plans_unknown_task' in plan", "99"});
  ends("plans_negative_task", {"'plans_negative_task' in plan", "-1"});
  ends("loses_nothing", {"'loses_nothing' in loss, task 1 'vqa', step 0"});
  ends("loses_twice", {"'loses_twice' in loss, task 1 'vqa', step 0"});
  ends("loses_constant", {"'loses_constant' in loss, task 1 'vqa', step 0"});
  ends("selects_too_many", {"'selects_too_many' in select, task 1 'vqa'", "13", "12"});
}

TEST_CASE("A plugin may keep its autograd nodes until the process has ended") {
  const Plugins plugins({"keeps_graph"});
  const fs::path run = work() / "graph";
  succeeded(work().mcit(run_of("keeps_graph", plugins, run)));
  CHECK(result_of(run).at("complete") == true);
}

TEST_CASE("Bad files in a plugin folder cost a run one warning each") {
  const std::vector<std::string> refused = {"bad_name",      "liar",           "no_descriptor",
                                            "no_strategies", "other_epoch",    "short_descriptor",
                                            "unresolved",    "wrong_compiler", "wrong_torch"};
  const Plugins plugins(refused);
  fs::copy_file(fixture("no_section"),
                plugins / "no_section.so");  // somebody else's library: none of our business
  std::vector<std::string> bad = refused;
  const std::string whole = slurp(fixture("good"));
  write(plugins / "truncated.so", whole.substr(0, whole.size() / 2));
  write(plugins / "text.so", "not ELF");
  write(plugins / "empty.so", "");
  fs::create_symlink(plugins / "nowhere", plugins / "dangling.so");
  fs::create_directory(plugins / "folder.so");
  for (const char* twin : {"twin_a", "twin_b"})
    fs::copy_file(fixture("makes_nothing"), plugins / (std::string(twin) + ".so"));
  for (const char* name : {"truncated", "text", "empty", "dangling", "folder", "twin_a", "twin_b"})
    bad.emplace_back(name);
  fs::copy_file(fixture("good"), plugins / "good.so");

  const Ended ended = work().mcit(run_of("good", plugins, work() / "among bad ones"));
  succeeded(ended);
  for (const std::string& name : bad) {
    INFO(name << " in\n" << ended.err);
    CHECK(ended.lines("warning: " + (plugins / (name + ".so")).string() + ": ").size() == 1);
  }
  CHECK(ended.warnings().size() == bad.size());
  CHECK(result_of(work() / "among bad ones").at("provenance").at("plugin").at("file") == "good.so");
  CHECK(result_of(work() / "among bad ones").at("complete") == true);
}

TEST_CASE("A plugin without symbols runs") {
  const Plugins plugins({"good"});
  REQUIRE(std::system(("strip -s " + (plugins / "good.so").string()).c_str()) == 0);
  succeeded(work().mcit(run_of("good", plugins, work() / "stripped")));
}

TEST_CASE("mcit plugins --json tells of every file what the table tells") {
  const Plugins plugins({"good", "wrong_torch", "throws_in"});
  const Ended ended = work().mcit({"plugins", "--json", "--plugin-dir", plugins.path().string()});
  succeeded(ended);
  const Json report = Json::parse(ended.out);
  CHECK(report.at("folders").at(0).at("path") == plugins.path().string());
  std::map<std::string, Json> files;
  for (const Json& plugin : report.at("plugins"))
    files[fs::path(plugin.at("file").get<std::string>()).filename().string()] = plugin;
  CHECK(files.at("good.so").at("status") == "loaded");
  CHECK(files.at("good.so").at("version") == "1.2.3");
  CHECK(files.at("good.so").at("strategies").at(0).at("name") == "good");
  CHECK(files.at("throws_in.so").at("strategies").size() == 17);
  CHECK(files.at("wrong_torch.so").at("status") == "refused");
  CHECK(files.at("wrong_torch.so").at("reason").get<std::string>().find("torch=2.10.0") != std::string::npos);
  CHECK(files.at("sequential.so").at("status") == "loaded");
}

TEST_CASE("check-plugin lives through a crash and names the check that ran") {
  const std::string hooks = "every hook runs, over a stream of two tasks";
  const std::string attaching = "attach() and before_task() leave the outputs bit-identical";
  const Json aborts = check_of("crashes", "aborts");
  CHECK(aborts.at("conforms") == false);
  CHECK(failures(aborts) == std::vector<std::string>{hooks});
  CHECK(detail_of(aborts, hooks) == "it crashed: Aborted");
  const Json segfaults = check_of("crashes", "segfaults");
  CHECK(failures(segfaults) == std::vector<std::string>{attaching});
  CHECK(detail_of(segfaults, attaching)
            .starts_with("it "));  // "it crashed: Segmentation fault", but for sanitizers
  const Json at_exit = check_of("crashes", "crashes_at_exit");
  CHECK(failures(at_exit) == std::vector<std::string>{"the process ends in peace"});
  CHECK(detail_of(at_exit, "the process ends in peace") == "it crashed: Aborted");
}

TEST_CASE("check-plugin does not take a hook that ends the process for a plugin that passes") {
  const Json report = check_of("crashes", "exits");
  CHECK(report.at("conforms") == false);
  CHECK(failures(report) == std::vector<std::string>{"every hook runs, over a stream of two tasks"});
}

TEST_CASE("check-plugin prints a crash as a person reads it") {
  const Ended ended = work().mcit({"check-plugin", fixture("crashes").string(), "--strategy", "aborts"});
  CHECK(ended.code == 1);
  CHECK(ended.out.find(
            "FAIL     every hook runs, over a stream of two tasks\n           it crashed: Aborted\n") !=
        std::string::npos);
}

TEST_CASE("check-plugin finds every hook that throws, and says which") {
  for (const std::string hook :
       {"on_stream_begin", "plan", "attach", "before_task", "before_forward", "loss", "on_gradients",
        "after_step", "after_task", "select", "parameters", "state", "load_state"}) {
    INFO(hook);
    const Json report = check_of("throws_in", "throws_in_" + hook);
    REQUIRE_FALSE(failures(report).empty());
    CHECK(detail_of(report, failures(report).front()).find("in " + hook) != std::string::npos);
  }
}

TEST_CASE("check-plugin finds a strategy that looks at tasks to come and says that it does not") {
  const Json report = check_of("returns_nonsense", "breaks_its_word");
  const std::string check = "a causal strategy does not look at tasks to come";
  CHECK(failures(report) == std::vector<std::string>{check});
  CHECK(detail_of(report, check).find("after the first stage, with another task to come") !=
        std::string::npos);
}

TEST_CASE("check-plugin of a file that is no plugin says why") {
  const Ended ended = work().mcit({"check-plugin", fixture("wrong_torch").string()});
  CHECK(ended.code == 1);
  CHECK(ended.out.find("torch=2.10.0") != std::string::npos);
  const Ended missing = work().mcit({"check-plugin", (work() / "gone.so").string()});
  CHECK(missing.code == 1);
  CHECK(missing.out.find("does not exist") != std::string::npos);
}

}  // namespace mcit::test
