#include "report/literature.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "mcit/errors.hpp"
#include "report/gap.hpp"
#include "unit/report/latex_check.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Catch::Matchers::WithinAbs;

const std::filesystem::path kTables = std::filesystem::path(MCIT_SOURCE_DIR) / "benchmarks/mcit/published";

const std::vector<std::string> kCoinTasks{"ScienceQA", "textvqa", "imagenet", "gqa",
                                          "vizwiz",    "rec",     "vqav2",    "OCR-VQA"};

/// A finished run on CoIN whose final scores are those of LoRA-FT, all raised by `more`; learned
/// at 80 throughout.
ComparedRun coin_run(const std::string& strategy, std::uint64_t seed, double more, const std::string& config,
                     std::vector<std::string> tasks = kCoinTasks) {
  const std::vector<double> finals{26.00, 25.38, 28.51, 33.07, 26.52, 0.10, 40.00, 52.92};
  std::vector<TaskResult> infos;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> stages;
  for (std::size_t j = 0; j < tasks.size(); ++j) {
    infos.push_back({tasks[j], 100, {}});
    stages.push_back({tasks[j], {static_cast<std::int64_t>(j)}});
  }
  ComparedRun run{"runs/" + strategy + std::to_string(seed),
                  make_result("coin", strategy, seed, infos, stages)};
  const auto count = static_cast<std::int64_t>(tasks.size());
  for (std::int64_t j = 0; j < count; ++j) {
    for (std::int64_t i = j + 1; i < count; ++i) run.result.matrix.set(i, j, 80.0);
    run.result.matrix.set(count, j, finals[static_cast<std::size_t>(j)] + more);
  }
  run.result.complete = true;
  run.result.provenance.config = config;
  return run;
}

constexpr const char* kLikeCoin =
    "model = \"/models/llava-v1.5-7b\"\n[strategy]\nname = \"sequential\"\nrank = 128\nalpha = 256.0\n"
    "train_connector = true\n[train]\nepochs = 1.0\nlr = 2e-4\nbatch = 8\naccumulation = 8\n";

GapComparison gaps_of(const std::vector<ComparedRun>& runs, const std::vector<std::string>& against = {},
                      const std::string& tables = "coin") {
  return compare_with_published(compare_runs(runs).front(), runs, find_published(tables, kTables), against);
}

const PublishedMatch& match(const GapComparison& gaps, const std::string& table) {
  for (const GapGroup& group : gaps.groups)
    for (const PublishedMatch& found : group.matches)
      if (found.table == table) return found;
  FAIL("nothing of table " << table);
  return gaps.groups.front().matches.front();
}

std::optional<double> number(const GapComparison& gaps, const std::vector<std::optional<double>>& numbers,
                             const std::string& key) {
  for (std::size_t c = 0; c < gaps.columns.size(); ++c)
    if (gaps.columns[c].key == key) return numbers[c];
  return {};
}

const ConditionCheck& condition(const PublishedMatch& found, const std::string& title) {
  for (const ConditionCheck& check : found.conditions)
    if (check.condition == title) return check;
  FAIL("no condition " << title);
  return found.conditions.front();
}

TEST_CASE("the literature's tables: one for each source, divisors in columns of their own") {
  const auto blocks = literature_blocks(find_published("coin", kTables));
  const std::string text = blocks_markdown(blocks);
  CHECK_THAT(text, ContainsSubstring("ScienceQA → TextVQA → ImageNet"));
  CHECK_THAT(text, ContainsSubstring("all hold to rounding"));
  // Numbers: BranchLoRA's table of aggregates, PCLR's table.
  CHECK_THAT(text,
             ContainsSubstring("| method | ACC | MAA | BWT/T | ms a batch * | trained, M * | selector * |"));
  CHECK_THAT(text, ContainsSubstring("| **44.20** | **49.94** | **-20.98** | 51 | 222 | 95.8 |"));
  CHECK_THAT(text, ContainsSubstring("| method | ACC | MFT | forgetting/(T-1) |"));
  CHECK_THAT(text, ContainsSubstring("| LoRA | 28.74 | 61.36 | 37.29 |"));
  CHECK_THAT(text, ContainsSubstring("read in another paper's or a reviewer's copy"));
  CHECK_THAT(text, ContainsSubstring("Conditions: backbone LLaVA-1.5-7B, base weights Vicuna-7B-v1.5"));
  CHECK_THAT(text,
             ContainsSubstring("one name, several numbers: MoELoRA ends at 37.13 in branch_lora, 50.58"));
  CHECK_THAT(text, ContainsSubstring("- [1] ModalPrompt adds the 100 class names"));
  CHECK_THAT(blocks_markdown(literature_blocks(find_published("ucit", kTables))),
             ContainsSubstring("| BWT/T | BWT/(T-1) |") && ContainsSubstring("| -13.88 | -16.65 |") &&
                 ContainsSubstring("|   right after learning | 90.97 | 92.60 | 59.54 |"));
}

TEST_CASE("every shipped literature can be shown in every form") {
  for (const std::string& name : list_published(kTables)) {
    const Published published = find_published(name, kTables);
    INFO(name);
    CHECK(test::latex_fault(blocks_latex(literature_blocks(published))) == "");
    CHECK(blocks_terminal(literature_blocks(published), 100, false).find(published.title) == 0);
    CHECK(literature_json(published)["tables"].size() == published.tables.size());
  }
  const std::string csv = literature_csv(find_published("ucit", kTables));
  CHECK_THAT(csv, ContainsSubstring("ucit,mcitlib,DISCO,quoted,bwt_T-1,-7.45\n"));
  CHECK_THAT(csv, ContainsSubstring("ucit,user_lora,LoRA,reported,final:flickr30k,57.47\n"));
  CHECK_THAT(csv, ContainsSubstring("ucit,user_lora,LoRA,reported,learned:vizwiz-caption,59.54\n"));
  CHECK_THAT(csv, ContainsSubstring("ucit,eb_lora,EBLoRA,quoted,printed:BWT,-2\n"));
}

TEST_CASE("a run beside the published rows of its strategy") {
  const auto gaps =
      gaps_of({coin_run("sequential", 1, 1.0, kLikeCoin), coin_run("sequential", 2, 3.0, kLikeCoin)});
  REQUIRE(gaps.groups.size() == 1);
  const PublishedMatch& rows = match(gaps, "finals");
  CHECK_THAT(number(gaps, rows.gap, "final:ScienceQA").value(), WithinAbs(2.0, 1e-9));
  CHECK_THAT(number(gaps, rows.gap, "final:OCR-VQA").value(), WithinAbs(2.0, 1e-9));
  CHECK_THAT(number(gaps, rows.gap, "acc").value(), WithinAbs(29.0625 + 2.0 - 29.06, 1e-9));
  // bwt_T: 7 of 8 tasks fall from 80; the last was learned at its final score.
  const double bwt = (29.0625 * 8 - 52.92 + 7 * 2.0 - 7 * 80.0) / 8;
  CHECK_THAT(number(gaps, match(gaps, "branch_lora").gap, "bwt_T").value(), WithinAbs(bwt + 32.62, 1e-9));
  // PCLR's forgetting is under the other divisor and has a column of its own.
  CHECK_THAT(number(gaps, match(gaps, "pclr").gap, "forgetting_pclr").value(),
             WithinAbs(-bwt * 8 / 7 - 37.29, 1e-9));
  CHECK_FALSE(number(gaps, match(gaps, "pclr").gap, "bwt_T").has_value());
}

TEST_CASE("each condition is the same, differs, is open or not stated") {
  const auto gaps = gaps_of({coin_run("sequential", 1, 0.0, kLikeCoin)});
  const PublishedMatch& like = match(gaps, "branch_lora");
  CHECK(condition(like, "backbone").verdict == Verdict::same);  // llava-v1.5-7b is an alias
  CHECK(condition(like, "rank").verdict == Verdict::same);
  CHECK(condition(like, "rate").verdict == Verdict::same);
  CHECK(condition(like, "projector").verdict == Verdict::same);
  CHECK(condition(like, "prompt set").verdict == Verdict::same);  // by the suite's name
  CHECK(condition(like, "tasks and their order").verdict == Verdict::same);
  CHECK(condition(like, "scorer").verdict == Verdict::differs);
  CHECK(condition(like, "base weights").verdict == Verdict::open);
  CHECK(condition(like, "seeds").verdict == Verdict::unstated);
  CHECK_FALSE(like.like_for_like());
  CHECK(match(gaps, "finals").like_for_like());  // which states the backbone and no more

  const auto other =
      gaps_of({coin_run("sequential", 1, 0.0, "model = \"mini\"\n[strategy]\nrank = 16\nbuffer = 50\n")});
  const PublishedMatch& unlike = match(other, "branch_lora");
  CHECK(condition(unlike, "backbone").verdict == Verdict::differs);
  CHECK(condition(unlike, "rank").verdict == Verdict::differs);
  CHECK(condition(unlike, "replay").verdict == Verdict::differs);
  CHECK(condition(unlike, "rate").verdict == Verdict::open);  // the run does not say
  const std::string text = blocks_markdown(gap_blocks(other));
  CHECK_THAT(text, ContainsSubstring("|   gap, not like for like |"));
  CHECK_THAT(text,
             ContainsSubstring(
                 "Differs: backbone (run: mini, published: LLaVA-1.5-7B); rank (run: 16, published: 128)"));
}

TEST_CASE("means over other tasks are no column") {
  const std::vector<std::string> four(kCoinTasks.begin(), kCoinTasks.begin() + 4);
  const auto gaps = gaps_of({coin_run("sequential", 1, 0.0, kLikeCoin, four)});
  CHECK(std::all_of(gaps.columns.begin(), gaps.columns.end(),
                    [](const ComparedColumn& c) { return c.section == Section::task; }));
  CHECK_THAT(gaps.notes.front(), ContainsSubstring("4 of the 8 published tasks"));
  CHECK(condition(match(gaps, "finals"), "tasks and their order").verdict == Verdict::differs);
  auto turned = kCoinTasks;
  std::swap(turned[0], turned[1]);
  const auto order = gaps_of({coin_run("sequential", 1, 0.0, kLikeCoin, turned)});
  CHECK(number(order, match(order, "branch_lora").gap, "acc").has_value());
  CHECK(condition(match(order, "branch_lora"), "tasks and their order").verdict == Verdict::differs);
  ComparedRun other = coin_run("sequential", 1, 0.0, kLikeCoin);
  other.result.suite = "mine";  // tasks of the same names may be other tasks
  const auto elsewhere = gaps_of({other});
  CHECK(condition(match(elsewhere, "finals"), "suite").verdict == Verdict::differs);
  CHECK_FALSE(match(elsewhere, "finals").like_for_like());
  CHECK_THROWS_MATCHES(gaps_of({coin_run("sequential", 1, 0.0, "", {"a", "b"})}), ConfigError,
                       MessageMatches(ContainsSubstring("no task in common")));
}

TEST_CASE("other methods are held against a run by their name") {
  const auto gaps = gaps_of({coin_run("mmap", 1, 0.0, kLikeCoin)}, {"seFE", "RECAP"});
  REQUIRE(gaps.groups.front().matches.size() == 3);  // SEFE stands in two tables
  CHECK_THAT(number(gaps, match(gaps, "finals").gap, "final:ScienceQA").value(),
             WithinAbs(26.00 - 75.35, 1e-9));
  const auto none = gaps_of({coin_run("mmap", 1, 0.0, kLikeCoin)});
  CHECK(none.groups.front().matches.empty());
  CHECK_THAT(blocks_terminal(gap_blocks(none), 200, false),
             ContainsSubstring("prints nothing to hold mmap against"));
  CHECK_THROWS_MATCHES(gaps_of({coin_run("mmap", 1, 0.0, "")}, {"SEFF"}), ConfigError,
                       MessageMatches(ContainsSubstring("did you mean 'SEFE'?")));
}

TEST_CASE("gaps in CSV, JSON and LaTeX") {
  const auto gaps = gaps_of({coin_run("sequential", 1, 1.0, kLikeCoin)});
  const std::string csv = gap_csv(gaps);
  CHECK_THAT(
      csv, ContainsSubstring("coin,sequential,sequential,,published:coin/branch_lora/LoRA:bwt_T,-32.62,,\n"));
  CHECK_THAT(csv, ContainsSubstring("coin,sequential,sequential,,gap:coin/finals/LoRA:final:gqa,"));
  const Json json = gap_json(gaps);
  const Json& first = json["groups"][0]["matches"][0];
  CHECK(first["table"] == "branch_lora");
  CHECK(first["like_for_like"] == false);
  CHECK(first["published"]["acc"] == 28.74);
  CHECK(first["published"].contains("final:gqa") == false);  // that table has no scores by task
  CHECK(test::latex_fault(blocks_latex(gap_blocks(gaps))) == "");
}

TEST_CASE("a run that says nothing of its settings differs in nothing that is known") {
  const auto gaps = gaps_of({coin_run("sequential", 1, 0.0, "")});
  CHECK(condition(match(gaps, "branch_lora"), "rank").verdict == Verdict::open);
  CHECK(condition(match(gaps, "branch_lora"), "scorer").verdict == Verdict::open);
}

}  // namespace
}  // namespace mcit
