#include "metrics/published.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "core/files.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"
#include "metrics/metrics.hpp"
#include "unit/core/temporary.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Catch::Matchers::WithinAbs;

const fs::path kTables = fs::path(MCIT_SOURCE_DIR) / "benchmarks/mcit/published";

const PublishedRow& row_of(const Published& published, const std::string& table, const std::string& method) {
  for (const PublishedTable& t : published.tables)
    for (const PublishedRow& row : t.rows)
      if (t.name == table && row.method == method) return row;
  FAIL(published.name << " has no row " << table << "/" << method);
  return published.tables.front().rows.front();
}

double metric(const AccuracyMatrix& matrix, std::string_view name) {
  return compute_metric(name, {matrix, {}, {}, {}}).value.value();
}

constexpr const char* kSmall = R"(
title = "Small"
notes = ["a note"]
[[suites]]
name = "small"
prompts = "original"
[backbones]
"Big-1B" = ["big_1b"]
[[tasks]]
name = "a"
title = "Task A"
aliases = ["first"]
[[tasks]]
name = "b"
[[tables]]
name = "main"
title = "Main"
source = "a paper"
evidence = "quoted"
rows = [
  { method = "LoRA", strategy = "sequential", finals = [10.00, 20.00], learned = [30.00, 20.00], metrics = { acc = 15.00, mft = 25.00, bwt_T = -10.00, "bwt_T-1" = -20.00, forgetting_pclr = 20.00 } },
  { method = "Part", finals = [10.00, nan], printed = { "odd" = "3.50" }, decimals = 1, conditions = { rank = 8 } },
]
[tables.conditions]
backbone = "Big-1B"
rank = 16
learning_rate = 2e-4
)";

/// kSmall with one text in the place of another.
Published small(const std::string& from = {}, const std::string& to = {}) {
  const test::TemporaryFolder folder;
  std::string text = kSmall;
  if (!from.empty()) {
    const auto at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
  }
  write_atomic(folder / "small.toml", text);
  return read_published(folder / "small.toml");
}

std::vector<PublishedCheck> failing(const Published& published) {
  std::vector<PublishedCheck> out;
  for (const PublishedCheck& check : check_published(published))
    if (!check.holds()) out.push_back(check);
  return out;
}

TEST_CASE("every table that is shipped agrees with itself, or says why it does not") {
  const std::vector<std::string> names = list_published(kTables);
  CHECK(names ==
        std::vector<std::string>{"coin", "cvit", "fcit_task", "mllm_dcl", "trigap", "ucit", "vqav2_10"});
  std::size_t checks = 0, rows = 0;
  for (const std::string& name : names) {
    const Published published = find_published(name, kTables);
    const std::vector<PublishedCheck> all = check_published(published);
    checks += all.size();
    for (const PublishedTable& table : published.tables)
      for (const PublishedRow& row : table.rows) {
        ++rows;
        const auto broken = std::find_if(all.begin(), all.end(), [&](const PublishedCheck& check) {
          return check.table == table.name && check.method == row.method && !check.holds();
        });
        INFO(name << "/" << table.name << "/" << row.method
                  << (broken == all.end() ? std::string() : ": " + broken->what));
        CHECK((broken != all.end()) == !row.reason.empty());  // nor a reason that has nothing to explain
      }
  }
  CHECK(rows == 104);   // as counted in the files: a row that gets lost is noticed
  CHECK(checks >= 65);  // and so are equations that are no longer set up
}

TEST_CASE("golden: the shipped matrices have the published metrics") {
  // Issue 6 of MCITlib, computed by hand from its cells.
  const AccuracyMatrix ucit = read_matrix(kTables / "ucit_lora_user.csv");
  CHECK_THAT(metric(ucit, "acc"), WithinAbs(56.7267, 5e-5));
  CHECK_THAT(metric(ucit, "mft"), WithinAbs(70.6017, 5e-5));
  CHECK_THAT(metric(ucit, "maa"), WithinAbs(72.8986, 5e-5));
  CHECK_THAT(metric(ucit, "bwt_T-1"), WithinAbs(-16.65, 1e-9));
  CHECK_THAT(metric(ucit, "bwt_T"), WithinAbs(-13.875, 1e-9));
}

TEST_CASE("tables are found by their name and by the suites they are for") {
  CHECK(find_published("UCIT", kTables).name == "ucit");
  CHECK(find_published("coin_10type", kTables).name == "coin");
  const Published coin = find_published("coin", kTables);
  CHECK(coin.suite("coin_10type")->conditions.at("prompts") == "10Type");
  CHECK(coin.task("SciQA") == 0);
  CHECK(coin.task("ocr_vqa") == 7);
  CHECK_FALSE(coin.task("flickr30k").has_value());
  CHECK_THROWS_MATCHES(
      find_published("mini", kTables), ConfigError,
      MessageMatches(ContainsSubstring("no published tables for 'mini'; there are: coin, cvit, fcit_task")));
  const test::TemporaryFolder empty;
  CHECK_THROWS_MATCHES(find_published("coin", empty.path()), ConfigError,
                       MessageMatches(ContainsSubstring("holds no published tables")));
}

TEST_CASE("a file is read with its conditions, evidence and gaps") {
  const Published published = small();
  const PublishedRow& lora = row_of(published, "main", "LoRA");
  CHECK(lora.evidence == Evidence::quoted);
  CHECK(lora.conditions == Conditions{{"backbone", "Big-1B"}, {"rank", "16"}, {"learning_rate", "2e-04"}});
  const PublishedRow& part = row_of(published, "main", "Part");
  CHECK(part.conditions.at("rank") == "8");
  CHECK(part.finals[0] == 10.0);
  CHECK_FALSE(part.finals[1].has_value());
  CHECK(part.printed.at("odd").text == "3.50");
  CHECK(part.printed.at("odd").value == 3.5);
  CHECK(published.task("TASK_A") == 0);
  CHECK(published.task("first") == 0);
  CHECK(check_published(published).size() == 9);
  CHECK(failing(published).empty());
}

TEST_CASE("numbers that do not agree are found, rounding is not taken for disagreement") {
  // 15.01 is one unit of the last decimal off: half a unit of its own, half a unit of each final score.
  CHECK(failing(small("acc = 15.00, mft = 25.00", "acc = 15.01, mft = 25.01")).empty());
  const auto mean = failing(small("acc = 15.00, mft", "acc = 15.02, mft"));
  REQUIRE_FALSE(mean.empty());
  CHECK(mean.front().what == "acc = mean of the final scores");
  CHECK_THAT(mean.front().computed, WithinAbs(15.0, 1e-12));
  // The other divisor's number under this divisor's name.
  const auto divisor = failing(small("\"bwt_T-1\" = -20.00", "\"bwt_T-1\" = -10.00"));
  CHECK(divisor.size() == 3);
  CHECK(divisor.front().what == "bwt_T-1 = (acc - mft) T/(T-1)");
}

TEST_CASE("a method with two numbers is told") {
  const Published coin = find_published("coin", kTables);
  const auto told = published_disagreements(coin);
  const auto about = [&told](const std::string& text) {
    return std::count(told.begin(), told.end(), text) == 1;
  };
  CHECK(about("MoELoRA ends at 37.13 in branch_lora, 50.58 in finals"));
  CHECK(about("HiDe ends at 62.82 in finals, 63.95 in hide_copy"));
  CHECK(std::none_of(told.begin(), told.end(), [](const auto& t) { return t.starts_with("BranchLoRA"); }));
}

TEST_CASE("what is wrong with a file is said with its place") {
  const std::vector<std::vector<std::string>> cases{
      {"evidence = \"quoted\"", "evidence = \"quotd\"", "did you mean 'quoted'?"},
      {"evidence = \"quoted\"", "", "evidence"},
      {"bwt_T = -10.00", "bwt = -10.00", "is no metric of mcit"},
      {"\"3.50\"", "\"3.50 %\"", "'3.50 %' is no number"},
      {"\"3.50\"", "3.50", "odd"},
      {"rank = 16", "ranks = 16", "did you mean 'rank'?"},
      {"rank = 16", "rank = [1, 2]", "expected a text or a number"},
      {"finals = [10.00, nan]", "finals = [10.00]", "1 numbers for 2 tasks"},
      {"finals = [10.00, nan]", "finals = [10.00, inf]", "is no score"},
      {"acc = 15.00, mft", "acc = nan, mft", "found nan"},
      {"acc = 15.00, mft", "acc = \"15\", mft", "acc"},
      {"finals = [10.00, nan], printed = { \"odd\" = \"3.50\" }", "note = \"\"", "'Part' has no number"},
      {"aliases = [\"first\"]", "aliases = [\"B\"]", "names two tasks"},
      {"source = \"a paper\"", "source = \" \"", "must not be empty"},
      {"source = \"a paper\"", "source = \"a paper\"\nsauce = 1", "sauce"},
      {"title = \"Small\"", "title = ", "not TOML"},
  };
  for (const auto& c : cases) {
    INFO(c[0] << " -> " << c[1]);
    CHECK_THROWS_WITH(small(c[0], c[1]), ContainsSubstring(c[2]) && ContainsSubstring("small.toml"));
  }
  CHECK_THROWS_WITH(small("finals = [10.00, nan]", "matrix = \"none.csv\""), ContainsSubstring("none.csv"));
}

}  // namespace
}  // namespace mcit
