#include "core/config.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <limits>

#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;

constexpr const char* kRun = R"(seed = 3
suite = "mini4"

[train]
lr = 2e-4
steps = 100
clip = 1
betas = [0.9, 1]
order = ["vqa", "digits"]

[[tasks]]
name = "vqa"
[[tasks]]
name = "digits"
weight = 0.5
)";

Config run() { return Config::parse(kRun, "run.toml", "/data"); }

TEST_CASE("values are read with their type, defaults where they are absent") {
  const Config config = run();
  CHECK(config.integer("seed", 1) == 3);
  CHECK(config.integer("threads", 2) == 2);
  CHECK(config.text("suite", "") == "mini4");
  CHECK(config.flag("resume", true));
  const Config train = config.child("train");
  CHECK(train.number("lr", 1.0) == 2e-4);
  CHECK(train.number("clip", 0.0) == 1.0);  // an integer is a number
  CHECK(train.numbers("betas", {}) == std::vector<double>{0.9, 1.0});
  CHECK(train.texts("order", {}) == std::vector<std::string>{"vqa", "digits"});
  CHECK(train.texts("only", {"a"}) == std::vector<std::string>{"a"});
  CHECK(train.integers("steps", {}) == std::vector<std::int64_t>{100});  // one value is an array of one
  const auto tasks = config.children("tasks");
  REQUIRE(tasks.size() == 2);
  CHECK(tasks[1].require_text("name") == "digits");
  CHECK(config.children("none").empty());
}

TEST_CASE("errors name file, line and key") {
  const Config config = run();
  const Config train = config.child("train");
  CHECK_THROWS_MATCHES(config.integer("suite", 0), ConfigError,
                       Message("run.toml:2: suite: expected an integer, found \"mini4\""));
  CHECK_THROWS_MATCHES(train.flag("steps", false), ConfigError,
                       Message("run.toml:6: train.steps: expected true or false, found 100"));
  CHECK_THROWS_MATCHES(train.integer("lr", 1), ConfigError,
                       Message("run.toml:5: train.lr: expected an integer, found 2e-04"));
  CHECK_THROWS_MATCHES(train.numbers("order", {}), ConfigError,
                       MessageMatches(ContainsSubstring("array of numbers")));
  CHECK_THROWS_MATCHES(train.require_text("optimizer"), ConfigError,
                       Message("run.toml: train.optimizer: is missing: a text is needed"));
  CHECK_THROWS_MATCHES(train.integer("steps", 1, 1, 50), ConfigError,
                       Message("run.toml:6: train.steps: must be at most 50, found 100"));
  CHECK_THROWS_MATCHES(train.number("lr", 1.0, 1e-3), ConfigError,
                       Message("run.toml:5: train.lr: must be at least 0.001, found 2e-04"));
  CHECK_THROWS_MATCHES(config.choice("suite", "mini", {"mini", "mini8"}), ConfigError,
                       Message("run.toml:2: suite: unknown value 'mini4'; did you mean 'mini'?"));
  CHECK_THROWS_MATCHES(config.child("suite"), ConfigError,
                       MessageMatches(ContainsSubstring("expected a table")));
  CHECK_THROWS_MATCHES(config.children("train"), ConfigError,
                       MessageMatches(ContainsSubstring("array of tables")));
  CHECK(config.children("tasks")[1].where("name") == "run.toml:14: tasks.1.name");
}

TEST_CASE("not a number is in no range") {
  const Config config = Config::parse("p = nan", "x.toml");
  CHECK_THROWS_AS(config.number("p", 0.0, 0.0, 1.0), ConfigError);
}

TEST_CASE("what is not TOML is told with its line") {
  CHECK_THROWS_MATCHES(Config::parse("a = 1\nb = = 2\n", "bad.toml"), ConfigError,
                       MessageMatches(ContainsSubstring("bad.toml:2: not TOML: ")));
  CHECK_THROWS_MATCHES(Config::parse(std::string(5000, '['), "deep.toml"), ConfigError,
                       MessageMatches(ContainsSubstring("deep.toml:1: not TOML")));
  CHECK_THROWS_MATCHES(Config::read("/nonexistent/run.toml"), ConfigError,
                       Message("/nonexistent/run.toml: cannot open: No such file or directory"));
}

TEST_CASE("a key that nobody asks for is an error with a near name") {
  Config config = Config::parse("[train]\nlearning_rat = 1\n", "run.toml");
  const Config train = config.child("train");
  train.number("learning_rate", 0.1);
  train.number("decay", 0.1);
  CHECK_THROWS_MATCHES(config.finish(), ConfigError,
                       Message("run.toml:2: train.learning_rat: unknown key; did you mean 'learning_rate'?"));
  train.number("learning_rat", 0.1);
  CHECK_NOTHROW(config.finish());

  const Config table = Config::parse("[tran]\nlr = 1\n", "run.toml");
  table.child("train");
  CHECK_THROWS_MATCHES(table.finish(), ConfigError,
                       Message("run.toml:1: tran: unknown key; did you mean 'train'?"));

  const Config rows = run();
  rows.integer("seed", 0);
  rows.text("suite", "");
  rows.child("train").params();
  for (const Config& task : rows.children("tasks")) task.require_text("name");
  CHECK_THROWS_MATCHES(rows.finish(), ConfigError,
                       Message("run.toml:15: tasks.1.weight: unknown key; known: name"));
}

TEST_CASE("overrides are TOML, or else a text") {
  Config config = run();
  config.set("train.lr=1e-3");
  config.set("train.steps = 7");
  config.set("suite=mini");
  config.set("tasks.1.weight=2");
  config.set("strategy.targets=[\"q_proj\", \"v_proj\"]");
  config.set("strategy.name=");
  config.set("data.root=../pictures");
  CHECK(config.child("train").number("lr", 0) == 1e-3);
  CHECK(config.child("train").integer("steps", 0) == 7);
  CHECK(config.text("suite", "") == "mini");
  CHECK(config.children("tasks")[1].number("weight", 0) == 2.0);
  CHECK(config.child("strategy").texts("targets", {}) == std::vector<std::string>{"q_proj", "v_proj"});
  CHECK(config.child("strategy").text("name", "x").empty());
  CHECK(config.child("data").text("root", "") == "../pictures");
  CHECK_THROWS_MATCHES(config.child("train").flag("lr", false), ConfigError,
                       Message("--set: train.lr: expected true or false, found 0.001"));
  CHECK_THROWS_MATCHES(config.set("train.lr"), ConfigError,
                       MessageMatches(ContainsSubstring("expected key=value")));
  CHECK_THROWS_MATCHES(config.set("train..lr=1"), ConfigError, MessageMatches(ContainsSubstring("empty")));
  CHECK_THROWS_MATCHES(config.set("suite.x=1"), ConfigError,
                       MessageMatches(ContainsSubstring("'suite' is \"mini\", not a table")));
  CHECK_THROWS_MATCHES(config.set("tasks.2.name=x"), ConfigError,
                       MessageMatches(ContainsSubstring("it has 2, counted from 0")));
  // A value cannot smuggle in another key.
  config.set("suite=1\nseed = 99");
  CHECK(config.integer("seed", 0) == 3);
}

TEST_CASE("relative paths start from the folder of the file they are written in") {
  const test::TemporaryFolder folder;
  test::write(folder / "suite.toml", "root = \"images\"\nother = \"/abs/x\"\nup = \"../y\"\nnone = \"\"\n");
  Config config = Config::read(folder / "suite.toml");
  CHECK(config.path("root", "") == folder / "images");
  CHECK(config.path("other", "") == "/abs/x");
  CHECK(config.path("up", "") == folder.path().parent_path() / "y");
  CHECK(config.path("none", "").empty());
  CHECK(config.path("absent", "cache") == "cache");
  config.set("root=elsewhere");
  CHECK(config.require_path("root") == "elsewhere");
  CHECK_THROWS_AS(config.require_path("absent2"), ConfigError);
}

TEST_CASE("resolved() holds defaults and reads back as the same settings") {
  const Config config = run();
  config.integer("seed", 1);
  config.text("suite", "");
  config.text("note", "a \"quoted\"\n\ttext \x01 é");
  config.child("train").number("decay", 1e-9);
  config.child("train").number("limit", std::numeric_limits<double>::infinity());
  config.child("log").child("file").flag("on", true);
  config.child("strategy")
      .adopt({{"rank", std::int64_t{8}}, {"targets", std::vector<std::string>{"q_proj"}}});
  config.children("tasks")[0].child("scorer").text("name", "vqa");
  const std::string text = config.resolved();
  const Config back = Config::parse(text, "resolved.toml");
  CHECK(back.resolved() == text);
  CHECK(back.text("note", "") == "a \"quoted\"\n\ttext \x01 é");
  CHECK(back.child("train").number("decay", 0) == 1e-9);
  CHECK(back.child("train").number("lr", 0) == 2e-4);
  CHECK(back.child("train").number("limit", 0) == std::numeric_limits<double>::infinity());
  CHECK(back.child("log").child("file").flag("on", false));
  CHECK(back.child("strategy").integer("rank", 0) == 8);
  CHECK(back.child("strategy").texts("targets", {}) == std::vector<std::string>{"q_proj"});
  REQUIRE(back.children("tasks").size() == 2);
  CHECK(back.children("tasks")[0].child("scorer").text("name", "") == "vqa");
  CHECK(back.children("tasks")[1].number("weight", 0) == 0.5);
}

TEST_CASE("a strategy's table becomes its parameters") {
  const Config config = Config::parse(
      "[strategy]\nname = \"ewc\"\nlambda = 5000\nrate = 0.5\non = true\nlayers = [1, 2.5]\ntargets = "
      "[\"a\"]\n",
      "run.toml");
  const auto values = config.child("strategy").params();
  CHECK(values.at("name") == Params::Value(std::string("ewc")));
  CHECK(values.at("lambda") == Params::Value(std::int64_t{5000}));
  CHECK(values.at("rate") == Params::Value(0.5));
  CHECK(values.at("on") == Params::Value(true));
  CHECK(values.at("layers") == Params::Value(std::vector<double>{1.0, 2.5}));
  CHECK(values.at("targets") == Params::Value(std::vector<std::string>{"a"}));
  CHECK_NOTHROW(config.finish());
  CHECK_THROWS_AS(Config::parse("[strategy.inner]\nx = 1\n", "run.toml").child("strategy").params(),
                  ConfigError);
  CHECK_THROWS_AS(Config::parse("[strategy]\nx = [1, \"a\"]\n", "run.toml").child("strategy").params(),
                  ConfigError);
}

TEST_CASE("near names: a letter more, less, another, or two that changed places") {
  const std::vector<std::string> known = {"plain", "llava", "vicuna_v1"};
  CHECK(nearest("plan", known) == "plain");
  CHECK(nearest("plaine", known) == "plain");
  CHECK(nearest("plian", known) == "plain");
  CHECK(nearest("lalva", known) == "llava");
  CHECK(nearest("vicuan_1v", known) == "vicuna_v1");
  CHECK(nearest("bart", known).empty());
}

TEST_CASE("values() lists everything given by full key") {
  const auto values = run().values();
  CHECK(values.at("seed") == "3");
  CHECK(values.at("train.lr") == "2e-04");
  CHECK(values.at("tasks.1.name") == "\"digits\"");
  CHECK(values.size() == 10);
}

}  // namespace
}  // namespace mcit
