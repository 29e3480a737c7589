/// What other projects' evaluation files do, fault by fault. Each case names the file it repeats.

#include "score/profiles.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <string>
#include <vector>

#include "mcit/errors.hpp"

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Catch::Matchers::WithinAbs;
using mcit::Denominator;
using mcit::find_rule;
using mcit::find_scorer;
using mcit::Pairing;
using mcit::ProfileRule;
using mcit::ScoreContext;

namespace {

using Golds = std::vector<std::string>;

double value(std::string_view profile, std::string_view scorer, std::string_view prediction,
             const Golds& golds, const ScoreContext& context = {}) {
  return find_rule(profile, find_scorer(scorer)).score(prediction, golds, context).value;
}

ProfileRule rule(std::string_view profile, std::string_view scorer) {
  return find_rule(profile, find_scorer(scorer));
}

const ScoreContext kFour{.options = {"a", "b", "c", "d"}};

}  // namespace

TEST_CASE("profiles name strict scorers, and say so where they have no rule", "[score][profiles]") {
  for (const ProfileRule& known : mcit::profile_rules()) {
    INFO(known.profile << " " << known.scorer);
    CHECK(find_scorer(known.scorer).name == known.scorer);
    CHECK_FALSE(known.source.empty());
    CHECK((known.score == nullptr) == (find_scorer(known.scorer).score == nullptr));
    CHECK_FALSE(known.as_strict);
    CHECK(std::count_if(mcit::profile_rules().begin(), mcit::profile_rules().end(),
                        [&](const ProfileRule& other) {
                          return other.profile == known.profile && other.scorer == known.scorer;
                        }) == 1);
  }
  CHECK(rule("coin", "rouge_l").as_strict);
  CHECK(rule("coin", "rouge_l").denominator == Denominator::golds);
  CHECK_FALSE(rule("strict", "exact").as_strict);
  CHECK_THROWS_MATCHES(rule("mcitlb", "exact"), mcit::ConfigError,
                       MessageMatches(ContainsSubstring("mcitlib")));
}

// CoIN eval_ImagetNet.py and SEFE eval_imagenet.py: answers[index] against results[index], Python's `in` both
// ways.
TEST_CASE("ImageNet is paired by position, and an empty answer is right", "[score][profiles]") {
  for (const char* profile : {"coin", "sefe", "prism", "hide"}) {
    INFO(profile);
    CHECK(rule(profile, "imagenet").pairing == Pairing::by_position);
    CHECK(rule(profile, "imagenet").denominator == Denominator::predictions);
    CHECK(value(profile, "imagenet", "", {"tabby cat"}) == 1.0);
    CHECK(value(profile, "imagenet", "a", {"tabby cat"}) == 1.0);  // a letter of it
    CHECK(value(profile, "imagenet", "a tabby cat.", {"tabby cat"}) == 1.0);
    CHECK(value(profile, "imagenet", "Tabby cat", {"tabby cat"}) == 0.0);  // case counts
  }
  CHECK(value("strict", "imagenet", "", {"tabby cat"}) == 0.0);
  CHECK(rule("mcitlib", "imagenet").as_strict);
}

// CoIN eval_science_qa.py: the letter, "X. …", else the first match of \b(\w)\b in capitals.
TEST_CASE("CoIN takes the first single character of an answer for its letter", "[score][profiles]") {
  CHECK(value("coin", "letter", "B", {"B"}, kFour) == 1.0);
  CHECK(value("coin", "letter", "B. it", {"B"}, kFour) == 1.0);
  CHECK(value("coin", "letter", "b", {"B"}, kFour) == 1.0);
  CHECK(value("coin", "letter", "It is a tool, so B", {"A"}, kFour) == 1.0);  // the article
  CHECK(value("coin", "letter", "It is a tool, so B", {"B"}, kFour) == 0.0);
  CHECK(value("coin", "letter", "(C)", {"C"}, kFour) == 1.0);
  CHECK(value("coin", "letter", "tool", {"B"}, kFour) == 0.0);
  CHECK(value("coin", "letter", "E", {"E"}, kFour) == 0.0);  // beyond the choices
  CHECK(value("coin", "letter", "", {"A"}, kFour) == 0.0);
  CHECK(rule("coin", "letter").denominator == Denominator::golds);  // all pids of the split
  CHECK_THROWS_AS(value("coin", "letter", "A", {"tool"}, kFour), mcit::DataError);
}

// SEFE eval_science_qa.py: re.findall('The answer is ([A-Z]).'), exactly one; total = len(predictions).
TEST_CASE("SEFE wants one statement of the answer with something behind it", "[score][profiles]") {
  CHECK(value("sefe", "letter", "The answer is B.", {"B"}, kFour) == 1.0);
  CHECK(value("sefe", "letter", "Well. The answer is B, I think", {"B"}, kFour) == 1.0);
  CHECK(value("sefe", "letter", "The answer is B", {"B"}, kFour) == 0.0);  // nothing behind it
  CHECK(value("sefe", "letter", "The answer is Both", {"B"}, kFour) == 1.0);
  CHECK(value("sefe", "letter", "the answer is B.", {"B"}, kFour) == 0.0);
  CHECK(value("sefe", "letter", "The answer is B. The answer is B.", {"B"}, kFour) == 0.0);
  CHECK(value("sefe", "letter", "It is a tool, so B", {"A"}, kFour) == 0.0);
  CHECK(value("sefe", "letter", "E", {"E"}, kFour) == 0.0);
  CHECK(rule("sefe", "letter").denominator == Denominator::predictions);
  CHECK(value("prism", "letter", "E", {"E"}, kFour) == 1.0);  // Prism does not look at the choices
}

// CoIN eval_grounding.py: replace '[' and ']', then text[1:-1].split(','), four float(), IoU > 0.5.
TEST_CASE("CoIN drops the first and the last character of a box", "[score][profiles]") {
  const Golds gold{"[0.0, 0.0, 0.5, 0.5]"};
  CHECK(value("coin", "iou", "[0.10,0.00,0.50,0.50]", gold) == 1.0);
  // "0.00, 0.00, 0.50, 0.2" loses the 2: y2 is 0.
  CHECK(value("coin", "iou", "[0.00,0.00,0.50,0.5]", gold) == 0.0);
  CHECK(value("prism", "iou", "[0.00,0.00,0.50,0.5]", gold) == 1.0);
  CHECK(value("strict", "iou", "[0.00,0.00,0.50,0.5]", gold) == 1.0);
  CHECK(value("coin", "iou", "box: [0.00,0.00,0.50,0.50]", gold) == 0.0);
  CHECK(value("prism", "iou", "box: 0.00 0.00 0.50 0.50", gold) == 1.0);
  for (const char* broken :
       {"", "[", "[]", "[nan,nan,nan,nan]", "[1,2,3]", "[0,0,0.50,0.50,0.50]", "[inf, 0, 0, 1]"}) {
    INFO(broken);
    CHECK(value("coin", "iou", broken, gold) == 0.0);
  }
  CHECK(rule("coin", "iou").denominator == Denominator::predictions);
  CHECK_THROWS_AS(value("coin", "iou", "[0,0,1,1]", {"left"}), mcit::DataError);
}

// CoIN eval_vqav2.py, eval_vizwiz.py: pred.upper() == ground_truth.upper(), nothing stripped.
TEST_CASE("forks compare whole answers but for case", "[score][profiles]") {
  for (const char* profile : {"coin", "sefe", "mcitlib", "prism", "hide"}) {
    INFO(profile);
    CHECK(value(profile, "exact", "RED", {"red"}) == 1.0);
    CHECK(value(profile, "exact", "red.", {"red"}) == 0.0);
    CHECK(value(profile, "exact", " red", {"red"}) == 0.0);
    CHECK(value(profile, "exact", "", {""}) == 1.0);
  }
  CHECK(value("strict", "exact", "red.", {"red"}) == 1.0);
}

// CoIN and SEFE eval_ocrvqa.py.
TEST_CASE("OCRVQA refuses answers that say Unanswerable", "[score][profiles]") {
  CHECK(value("coin", "ocr", "Novel", {"novel"}) == 1.0);
  CHECK(value("coin", "ocr", "Unanswerable", {"unanswerable"}) == 0.0);
  CHECK(value("coin", "ocr", "unanswerable", {"Unanswerable"}) == 1.0);
}

// GQA's eval.py behind LLaVA's convert_gqa_for_eval.py: text.rstrip('.').lower() == answer.
TEST_CASE("GQA strips every final stop and no blank", "[score][profiles]") {
  CHECK(value("coin", "gqa", "Left..", {"left"}) == 1.0);
  CHECK(value("coin", "gqa", "left ", {"left"}) == 0.0);
  CHECK(value("coin", "gqa", "left", {"Left"}) == 0.0);
  CHECK(rule("coin", "gqa").balanced_only);
  CHECK(rule("coin", "gqa").denominator == Denominator::golds);
  CHECK(rule("sefe", "gqa").denominator == Denominator::predictions);
}

// m4c_evaluator.py asserts ten answers, and compares what its normaliser leaves of both.
TEST_CASE("m4c lets an empty answer match one of articles", "[score][profiles]") {
  Golds ten(10, "red");
  ten[0] = ten[1] = "the";
  CHECK_THAT(value("coin", "vqa_soft", "", ten), WithinAbs(0.6, 1e-12));
  CHECK(value("strict", "vqa_soft", "", ten) == 0.0);
  CHECK_THROWS_MATCHES(value("coin", "vqa_soft", "red", {"red"}), mcit::DataError,
                       MessageMatches(ContainsSubstring("needs ten")));
}

// FCIT, FigureQA and DVQA: the prediction in the gold, both in capitals.
TEST_CASE("an empty answer is a part of every gold", "[score][profiles]") {
  CHECK(value("mcitlib", "contained", "", {"yes"}) == 1.0);
  CHECK(value("hide", "contained", "E", {"yes"}) == 1.0);
  CHECK(value("strict", "contained", "", {"yes"}) == 0.0);
}

// MLLM-CL eval_sci.py, eval_pvqa.py, eval_finvis.py, eval_ocr.py, eval_sat.py; MCITlib's RS and AD.
TEST_CASE("MLLM-DCL and MLLM-ACL look for parts of words", "[score][profiles]") {
  CHECK(value("mcitlib", "domain_med", "no, nothing", {"no"}) == 1.0);
  CHECK(value("mcitlib", "domain_med", "nothing", {"no"}) == 1.0);
  CHECK(value("strict", "domain_med", "nothing", {"no"}) == 0.0);
  CHECK(value("mcitlib", "domain_med", "Unanswerable, no", {"no"}) == 0.0);
  CHECK(value("mcitlib", "domain_rs", "nothing", {"no"}) == 1.0);    // one word: any part
  CHECK(value("mcitlib", "domain_rs", "I know it", {"no"}) == 0.0);  // several: a blank beside it
  CHECK(value("mcitlib", "domain_rs", "I say no.", {"no"}) == 1.0);
  CHECK(value("mcitlib", "domain_rs", "a notable one", {"no"}) == 1.0);  // " no" is enough
  CHECK(value("mcitlib", "domain_fin", " Y es.", {"Yes"}) == 1.0);
  const ScoreContext states{.prompt = "Which states …?", .image = "MapQA_1.png"};
  CHECK_THAT(value("mcitlib", "domain_sci", "Ohio,Utah", {"Ohio, Utah"}, states),
             WithinAbs(0.5, 1e-12));  // " utah"
  CHECK(value("mcitlib", "domain_sci", "b", {"B"}, {.image = "img/TQA_1.png"}) == 1.0);
  CHECK(value("mcitlib", "domain_sci", "bad", {"B"}, {.image = "img/TQA_1.png"}) == 0.0);
  CHECK(value("mcitlib", "domain_sci", "bad", {"B"}, {.image = "MapQA_1.png"}) == 1.0);
  CHECK(value("mcitlib", "sat", "1 3.", {"3"}) == 1.0);
  CHECK(value("strict", "sat", "13", {"3"}) == 0.0);
  CHECK(value("mcitlib", "ocrbench", "ST\nOP", {"stop"}) == 1.0);
  CHECK(value("mcitlib", "ocrbench", "X 2", {"x2"},
              {.category = "Handwritten Mathematical Expression Recognition"}) == 0.0);
}

// TriGap's DocVQA and InfographicVQA in Prism: no threshold.
TEST_CASE("Prism's edit similarity has no threshold", "[score][profiles]") {
  CHECK_THAT(value("prism", "anls_soft", "abcd", {"wxyd"}), WithinAbs(0.25, 1e-12));
}
