#include "score/drift.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <string>
#include <vector>

#include "mcit/errors.hpp"
#include "score/cell.hpp"

using Catch::Matchers::WithinAbs;
using mcit::Cell;
using mcit::Prediction;

namespace {

Prediction row(std::string id, double score, bool well_formed, std::optional<bool> in_set = {}) {
  Prediction out{.id = std::move(id), .prompt = "p", .text = "t", .gold = "g"};
  out.score = score;
  out.well_formed = well_formed;
  out.in_set = in_set;
  return out;
}

}  // namespace

// By hand: of ten rows, three were right and are not; one of them lost its form, one left the answer set.
TEST_CASE("forgetting is split by the form of the answers that were right", "[score][drift]") {
  mcit::RunResult result =
      mcit::make_result("s", "x", 1, {{"one", 10, {}}, {"two", 10, {}}}, {{"one", {0}}, {"two", {1}}});
  Cell learned, now;
  for (int i = 0; i < 10; ++i) {
    learned.rows.push_back(row(std::to_string(i), i < 6 ? 1.0 : 0.0, true, true));
    now.rows.push_back(row(std::to_string(i), i < 3 || i == 9 ? 1.0 : 0.0, i != 3, i != 4));
  }
  mcit::split_forgetting(result, [&](std::int64_t stage, std::int64_t task) -> std::optional<Cell> {
    if (task == 1) return stage == 2 ? std::optional(now) : std::nullopt;
    return stage == 1 ? std::optional(learned) : stage == 2 ? std::optional(now) : std::nullopt;
  });
  REQUIRE(result.forgetting);
  CHECK_THAT(*result.forgetting->format_drift.at(2, 0), WithinAbs(20.0, 1e-12));
  CHECK_THAT(*result.forgetting->knowledge_loss.at(2, 0), WithinAbs(10.0, 1e-12));
  CHECK_THAT(*result.forgetting->regained.at(2, 0), WithinAbs(10.0, 1e-12));
  // drift + loss - regained is what the cell lost
  CHECK_THAT(learned.score() - now.score(), WithinAbs(20.0, 1e-12));
  CHECK_FALSE(result.forgetting->format_drift.at(1, 0));
  CHECK_FALSE(result.forgetting->format_drift.at(2, 1));
}

TEST_CASE("rows are compared by id, wherever they stand", "[score][drift]") {
  mcit::RunResult result =
      mcit::make_result("s", "x", 1, {{"one", 2, {}}, {"two", 2, {}}}, {{"one", {0}}, {"two", {1}}});
  const Cell learned{.rows = {row("a", 1.0, true), row("b", 0.0, true)}};
  const Cell now{.rows = {row("b", 0.0, true), row("a", 1.0, true)}};
  mcit::split_forgetting(result,
                         [&](std::int64_t stage, std::int64_t) { return stage == 1 ? learned : now; });
  CHECK(*result.forgetting->knowledge_loss.at(2, 0) == 0.0);
  CHECK(*result.forgetting->regained.at(2, 0) == 0.0);
}

TEST_CASE("predictions keep golds, picture, set and the text with the true task", "[score][cell]") {
  Cell cell{.rows = {row("7", 0.5, true, false)}};
  Prediction& first = cell.rows.front();
  first.golds = {"g", "h"};
  first.image = "a.png";
  first.restricted_text = "h";
  first.restricted_score = 1.0;
  first.selected_task = 3;
  first.oracle_text = "g";
  first.oracle_score = 1.0;
  const std::string text = mcit::to_jsonl(cell);
  CHECK(mcit::to_jsonl(mcit::from_jsonl(text, "f")) == text);
  const Prediction read = mcit::from_jsonl(text, "f").rows.at(0);
  CHECK(read.golds == first.golds);
  CHECK(read.in_set == false);
  CHECK(read.oracle_text == "g");
  CHECK_THROWS_AS(
      mcit::from_jsonl("{\"question_id\":\"1\",\"prompt\":\"\",\"text\":\"\",\"gold\":\"\",\"score\":0,"
                       "\"golds\":3}\n",
                       "f"),
      mcit::DataError);
}

TEST_CASE("a corpus scorer's cell is not the mean of its rows", "[score][cell]") {
  Cell cell;
  for (const char* text : {"a man rides a horse", "a dog runs on the beach", "two red buses"}) {
    Prediction one = row(text, 0, false);
    one.text = one.gold = text;
    one.oracle_text = "nothing of it";
    cell.rows.push_back(one);
  }
  mcit::score_cell(cell, mcit::find_scorer("caption"));
  // Every caption equals its only reference, all n-grams are its own: CIDEr 10 where there are four
  // words, 7.5 for three; BLEU 1 but for the guards; METEOR 1, ROUGE-L 1.
  REQUIRE(cell.corpus);
  const double cider = (10.0 + 10.0 + 7.5) / 3;
  CHECK_THAT(cell.score(), WithinAbs(100 * (6 + cider) / 7, 1e-4));
  CHECK(cell.oracle_score() < 1.0);
  CHECK_THAT(cell.total(), WithinAbs(cell.score() * 3 / 100, 1e-9));
  Cell read = mcit::from_jsonl(mcit::to_jsonl(cell), "f");
  CHECK_FALSE(read.corpus);
  mcit::score_cell(read, mcit::find_scorer("caption"));
  CHECK(read.score() == cell.score());
}

TEST_CASE("an answer is among a set but for case and a final stop", "[score][cell]") {
  CHECK(mcit::is_among(" Yes.", {"no", "yes"}));
  CHECK_FALSE(mcit::is_among("yes it is", {"no", "yes"}));
  CHECK_FALSE(mcit::is_among("", {""}));
}
