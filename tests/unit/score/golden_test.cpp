/// Numbers of public packages: tests/golden/scorers.py made tests/golden/scorers.json.

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "score/captions.hpp"
#include "score/meteor.hpp"
#include "score/ptb.hpp"
#include "score/scorers.hpp"
#include "score/text.hpp"
#include "score/vqa_answer.hpp"

using Catch::Matchers::WithinAbs;

namespace {

constexpr double kTolerance = 1e-6;

const mcit::Json& golden() {
  static const mcit::Json json = mcit::read_json(MCIT_SOURCE_DIR "/tests/golden/scorers.json");
  return json;
}

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> out;
  for (const std::u32string& word : mcit::text::split(mcit::text::decode(text)))
    out.push_back(mcit::text::encode(word));
  return out;
}

std::vector<mcit::Caption> golden_captions() {
  const mcit::Json& captions = golden()["captions"];
  std::vector<mcit::Caption> out;
  for (std::size_t i = 0; i < captions["said"].size(); ++i) {
    mcit::Caption& caption = out.emplace_back();
    caption.answer = words(captions["said"][i]);
    for (const mcit::Json& reference : captions["references"][i])
      caption.references.push_back(words(reference));
  }
  return out;
}

}  // namespace

TEST_CASE("rules of answers agree with rouge-score, rapidfuzz and the rules written out", "[score][golden]") {
  const mcit::Json& rows = golden()["answers"]["rows"];
  REQUIRE(rows.size() == 1000);
  for (const mcit::Json& row : rows) {
    const std::string said = row["said"], gold = row["gold"];
    INFO("said: " << said << "\ngold: " << gold);
    for (const char* name : {"exact", "anls", "anls_soft", "edit_similarity", "rouge_l", "token_f1"}) {
      INFO(name);
      const std::vector<std::string> golds{gold};
      CHECK_THAT(mcit::find_scorer(name).score(said, golds, {}).value,
                 WithinAbs(row[name].get<double>(), kTolerance));
    }
    const auto normal = mcit::normalise_vqa_answer(mcit::text::decode(said));
    CHECK(mcit::text::encode(normal) == row["vqa_normal"].get<std::string>());
    if (normal.empty()) continue;  // strict compares the words then
    const auto ten = row["ten"].get<std::vector<std::string>>();
    CHECK_THAT(mcit::find_scorer("vqa_soft").score(said, ten, {}).value,
               WithinAbs(row["vqa_ten"].get<double>(), kTolerance));
  }
}

TEST_CASE("BLEU, CIDEr and ROUGE-L agree with pycocoevalcap, BLEU-4 with sacrebleu", "[score][golden]") {
  const mcit::Json& wanted = golden()["captions"];
  const std::vector<mcit::Caption> captions = golden_captions();
  REQUIRE(captions.size() == 250);
  const mcit::Bleu bleu = mcit::bleu(captions);
  const std::vector<double> cider = mcit::cider(captions);
  for (std::size_t n = 0; n < 4; ++n)
    CHECK_THAT(bleu.corpus[n], WithinAbs(wanted["bleu"][n].get<double>(), kTolerance));
  CHECK_THAT(bleu.corpus[3], WithinAbs(wanted["sacrebleu"].get<double>(), kTolerance));
  for (std::size_t i = 0; i < captions.size(); ++i) {
    INFO("caption " << i << ": " << wanted["said"][i]);
    for (std::size_t n = 0; n < 4; ++n)
      CHECK_THAT(bleu.rows[i][n], WithinAbs(wanted["bleu_rows"][i][n].get<double>(), kTolerance));
    CHECK_THAT(cider[i], WithinAbs(wanted["cider"][i].get<double>(), kTolerance));
    CHECK_THAT(mcit::rouge_l(captions[i]), WithinAbs(wanted["rouge"][i].get<double>(), kTolerance));
  }
}

// METEOR 1.5's jar, "-m exact", words of equal weight ("-p '0.85 0.2 0.6 0.5'").
TEST_CASE("METEOR agrees with its jar's exact stage", "[score][golden]") {
  const mcit::Json& wanted = golden()["captions"];
  const std::vector<mcit::Caption> captions = golden_captions();
  mcit::MeteorCounts all;
  for (std::size_t i = 0; i < captions.size(); ++i) {
    INFO("caption " << i << ": " << wanted["said"][i] << " / " << wanted["references"][i]);
    const mcit::MeteorCounts counts = mcit::meteor_counts(captions[i].answer, captions[i].references);
    CHECK_THAT(counts.score(), WithinAbs(wanted["meteor_rows"][i].get<double>(), kTolerance));
    all += counts;
  }
  CHECK_THAT(all.score(), WithinAbs(wanted["meteor"].get<double>(), kTolerance));
}

TEST_CASE("captions are cut as Stanford's PTBTokenizer and pycocoevalcap cut them", "[score][golden]") {
  const mcit::Json& wanted = golden()["ptb"];
  for (std::size_t i = 0; i < wanted["lines"].size(); ++i) {
    INFO(wanted["lines"][i]);
    CHECK(mcit::ptb_tokens(wanted["lines"][i].get<std::string>()) ==
          wanted["tokens"][i].get<std::vector<std::string>>());
  }
}
