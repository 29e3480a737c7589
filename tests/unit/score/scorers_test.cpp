#include "score/scorers.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <set>
#include <string>
#include <vector>

#include "mcit/errors.hpp"
#include "score/form.hpp"

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Catch::Matchers::WithinAbs;
using mcit::DataError;
using mcit::find_scorer;
using mcit::Score;
using mcit::ScoreContext;

namespace {

using Golds = std::vector<std::string>;

Score score(std::string_view scorer, std::string_view prediction, const Golds& golds,
            const ScoreContext& context = {}) {
  const mcit::Scorer& known = find_scorer(scorer);
  if (known.corpus == nullptr) return known.score(prediction, golds, context);
  const mcit::CorpusRow row{prediction, golds};
  return known.corpus(std::span(&row, 1)).rows.at(0);
}

double value(std::string_view scorer, std::string_view prediction, const Golds& golds,
             const ScoreContext& context = {}) {
  return score(scorer, prediction, golds, context).value;
}

/// Golds that every scorer accepts one of, to run a check over the whole table.
Golds any_gold(std::string_view scorer) { return {scorer.starts_with("iou") ? "1 2 3 4" : "b"}; }

}  // namespace

TEST_CASE("the table is sorted, and an unknown name is answered with a near one", "[score][scorers]") {
  const auto table = mcit::scorers();
  CHECK(std::is_sorted(table.begin(), table.end(), [](auto& a, auto& b) { return a.name < b.name; }));
  for (const auto& scorer : table) CHECK(&find_scorer(scorer.name) == &scorer);
  CHECK_THROWS_MATCHES(find_scorer("vqa-soft"), mcit::ConfigError,
                       MessageMatches(ContainsSubstring("vqa_soft")));
  CHECK_THROWS_MATCHES(find_scorer("bleurt_20"), mcit::ConfigError,
                       MessageMatches(ContainsSubstring("exact_any")));
}

// The ImageNet and FigureQA scorers of CoIN and FCIT (substring tests) give an empty prediction full marks.
TEST_CASE("an empty prediction is never right", "[score][scorers]") {
  for (const auto& scorer : mcit::scorers()) {
    for (const std::string_view empty : {"", " ", "\n\t", ".", " . ", "\u00A0"}) {
      INFO(scorer.name << " on '" << empty << "'");
      const Score result = score(scorer.name, empty, any_gold(scorer.name));
      CHECK(result.value == 0.0);
      CHECK_FALSE(result.well_formed);
      CHECK(result.note == "empty answer");
      CHECK(result.second.has_value() == !scorer.second_name.empty());
    }
  }
  CHECK(value("exact", "", {""}) == 0.0);
  CHECK(value("exact", ".", {"."}) == 0.0);
  CHECK(value("vqa_soft", "", Golds(10, "")) == 0.0);
}

TEST_CASE("a row without gold answers is an error", "[score][scorers]") {
  for (const auto& scorer : mcit::scorers()) {
    INFO(scorer.name);
    CHECK_THROWS_AS(score(scorer.name, "b", {}), DataError);
  }
}

TEST_CASE("a wrong answer scores nothing, in any bytes", "[score][scorers]") {
  // Two texts of one character are similar by 0 or 1, of five and one by 0.2 at most.
  const std::set<std::string_view> similar{"anls_soft", "edit_similarity"};
  for (const auto& scorer : mcit::scorers()) {
    for (const std::string_view wrong : {"zedra", "\xC3", "日本語", "c", "9 9 9 9"}) {
      INFO(scorer.name << " on '" << wrong << "'");
      const double most = similar.contains(scorer.name) ? 0.2 : 0.001;  // BLEU never is exactly 0
      CHECK(value(scorer.name, wrong, any_gold(scorer.name)) <= most);
    }
  }
}

// CoIN's scorers of VQAv2, VizWiz and OCRVQA compare upper-cased; GQA's drops a final "." and lower-cases.
TEST_CASE("exact ignores case, outer white space and one final full stop", "[score][scorers]") {
  CHECK(value("exact", "Red", {"red"}) == 1.0);
  CHECK(value("exact", " red.\n", {"red"}) == 1.0);
  CHECK(value("exact", "red .", {"red"}) == 1.0);
  CHECK(value("exact", "red", {"Red."}) == 1.0);
  CHECK(value("exact", "ÉCOLE", {"école"}) == 1.0);
  CHECK(value("exact", "red..", {"red"}) == 0.0);
  CHECK(value("exact", "a red", {"red"}) == 0.0);
  CHECK(value("exact", "red", {"a red square"}) == 0.0);
  CHECK(value("exact", "re d", {"red"}) == 0.0);
  CHECK(value("exact", "caf\xC3", {"caf\xC4"}) == 0.0);
  CHECK_THROWS_MATCHES(score("exact", "red", {"red", "blue"}), DataError,
                       MessageMatches(ContainsSubstring("exact_any")));
  CHECK(value("exact_any", "Blue.", {"red", "blue"}) == 1.0);
  CHECK(value("exact_any", "green", {"red", "blue"}) == 0.0);
}

// MIF of SMoLoRA, VQA type: at most two white-space words, or equal to the gold but for case.
TEST_CASE("a short answer is well formed if short or right", "[score][scorers]") {
  CHECK(score("exact", "dark green", {"red"}).well_formed);
  CHECK_FALSE(score("exact", "it is red", {"red"}).well_formed);
  CHECK(score("exact", "It Is Red", {"it is red"}).well_formed);
  CHECK(score("vqa_soft", "red", {"blue"}).well_formed);
  CHECK_FALSE(score("vqa_soft", "I think blue", {"blue"}).well_formed);
}

// Expected: the mean over the ten leave-one-out subsets of min(1, matches / 3), TextVQAAccuracyEvaluator of
// `m4c_evaluator.py`: 0, 0.3, 0.6, 0.9, 1.
TEST_CASE("vqa_soft gives partial credit for ten annotators", "[score][scorers]") {
  const std::vector<double> expected{0.0, 0.3, 0.6, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0};
  for (std::size_t matches = 0; matches <= 10; ++matches) {
    Golds golds(10, "red");
    std::fill_n(golds.begin(), matches, "two cats");
    INFO(matches << " matches");
    CHECK_THAT(value("vqa_soft", "2 cats.", golds), WithinAbs(expected[matches], 1e-12));
  }
  CHECK(value("vqa_soft", "Two Cats", {"2 cats"}) == 1.0);
  CHECK(value("vqa_soft", "three cats", {"2 cats"}) == 0.0);
  CHECK_THROWS_MATCHES(score("vqa_soft", "a", Golds(9, "a")), DataError,
                       MessageMatches(ContainsSubstring("1 or 10")));
}

TEST_CASE("vqa_soft compares the words when the normaliser leaves nothing", "[score][scorers]") {
  CHECK(value("vqa_soft", "A", {"a"}) == 1.0);
  CHECK(value("vqa_soft", "the", {"a"}) == 0.0);
}

// The letter rules are those that CoIN, SEFE and Prism share: the bare letter, "X. …", "The answer is X."
// once.
TEST_CASE("letter reads a letter, an option's text, or a statement", "[score][scorers]") {
  const ScoreContext context{.options = {"vehicle", "Tool", "money", "sport"}, .prompt = {}};
  for (const std::string_view right :
       {"B", "b", " B. ", "B)", "(B)", "(b).", "B. it cuts", "tool", "TOOL.", "The answer is B.",
        "Well, the answer is b", "the answer is B, surely"}) {
    INFO(right);
    CHECK(value("letter", right, {"B"}, context) == 1.0);
    CHECK(value("letter", right, {"tool"}, context) == 1.0);
    CHECK(value("letter", right, {"C"}, context) == 0.0);
  }
  for (const std::string_view none : {"I like tools", "it is a tool", "The answer is B. The answer is C.",
                                      "BC", "the answer is both", "the answer is ", "?"}) {
    INFO(none);
    const Score result = score("letter", none, {"B"}, context);
    CHECK(result.value == 0.0);
    CHECK(result.note == "no option named");
  }
  CHECK(score("letter", "E", {"B"}, context).note == "letter beyond the options");
  CHECK_THROWS_AS(score("letter", "B", {"E"}, context), DataError);
  CHECK_THROWS_AS(score("letter", "B", {"flag"}, context), DataError);
  CHECK(value("letter", "B", {"B"}) == 1.0);
}

// MIF of SMoLoRA, ScienceQA: one letter.
TEST_CASE("a lettered answer is well formed if it is one letter", "[score][scorers]") {
  CHECK(score("letter", " c ", {"B"}).well_formed);
  CHECK_FALSE(score("letter", "B.", {"B"}).well_formed);
  CHECK_FALSE(score("letter", "5", {"B"}).well_formed);
}

TEST_CASE("options are read from the prompt", "[score][scorers]") {
  using Options = std::vector<std::string>;
  CHECK(mcit::lettered_options("Which is it?\nA. West Virginia\nB. Texas\nAnswer with the letter.") ==
        Options{"West Virginia", "Texas"});
  CHECK(mcit::lettered_options("Choices: (A) a dog (B) an A. M. radio (C) café") ==
        Options{"a dog", "an A. M. radio", "café"});
  CHECK(mcit::lettered_options("choose a group : a . vehicle b . tool c . money d . sport") ==
        Options{"vehicle", "tool", "money", "sport"});
  CHECK(mcit::lettered_options("What is in the picture?").empty());
  CHECK(mcit::lettered_options("Plan A. Go home.").empty());
  CHECK(mcit::lettered_options("").empty());
  CHECK(mcit::lettered_options("A. one B.") == Options{"one", ""});
  const ScoreContext context{.options = {}, .prompt = "choose : a . vehicle b . tool"};
  CHECK(value("letter", "tool", {"b"}, context) == 1.0);
  CHECK_THROWS_AS(score("letter", "a", {"c"}, context), DataError);
}

// The parse is Prism's (first four numbers anywhere), the threshold CoIN's (IoU > 0.5); the values are areas.
TEST_CASE("iou reads four numbers anywhere and wants more than half", "[score][scorers]") {
  const Golds gold{"[0.0, 0.0, 0.4, 0.5]"};
  CHECK(value("iou", "[0.0, 0.0, 0.4, 0.5]", gold) == 1.0);
  CHECK(value("iou", "The box is 0 0 .4 5e-1, I think 9", gold) == 1.0);
  CHECK_THAT(*score("iou", "[0.0,0.0,0.4,0.25]", gold).second, WithinAbs(0.5, 1e-12));
  CHECK(value("iou", "0 0 4 2", {"0 0 4 4"}) == 0.0);  // exactly 0.5
  CHECK(value("iou", "0 0 4 2.1", {"0 0 4 4"}) == 1.0);
  CHECK_THAT(*score("iou", "0.2 0 0.6 0.5", gold).second, WithinAbs(1.0 / 3.0, 1e-12));
  CHECK(*score("iou", "-1 -1 -0.5 -0.5", gold).second == 0.0);
  CHECK(*score("iou", "0.4 0.5 0 0", gold).second == 0.0);  // corners swapped: no area
  CHECK(*score("iou", "1e308 -1e308 1e308 1e308", gold).second == 0.0);
  CHECK(score("iou", "9 9 9 9", gold).well_formed);
  for (const std::string_view no_box : {"0.1 0.2 0.3", "top left", "nan inf nan inf", "1e999 1 2 3"}) {
    INFO(no_box);
    CHECK(score("iou", no_box, gold).note == "no box");
  }
  CHECK_THROWS_AS(score("iou", "0 0 1 1", {"0.3 0.1 0.3 0.2"}), DataError);
  CHECK_THROWS_AS(score("iou", "0 0 1 1", {"left"}), DataError);
}

TEST_CASE("iou_bins counts inclusive cells", "[score][scorers]") {
  CHECK(value("iou_bins", "3 3 3 3", {"3 3 3 3"}) == 1.0);
  CHECK_THAT(*score("iou_bins", "2 2 5 5", {"2 2 5 6"}).second, WithinAbs(16.0 / 20.0, 1e-12));
  CHECK(value("iou_bins", "0 0 1 1", {"2 2 3 3"}) == 0.0);
}

TEST_CASE("ocr adds one minus the character error rate", "[score][scorers]") {
  CHECK(value("ocr", "RING", {"ring"}) == 1.0);
  CHECK(*score("ocr", "r i n g", {"r i n g"}).second == 1.0);
  const Score near = score("ocr", "r i n k", {"r i n g"});
  CHECK(near.value == 0.0);
  CHECK(*near.second == 0.75);  // one of four characters wrong
  CHECK(*score("ocr", "something quite different", {"ring"}).second == 0.0);
  CHECK(*score("ocr", "cafe", {"café"}).second == 0.75);
  CHECK_THROWS_AS(score("ocr", "x", {" . "}), DataError);
}

// Expected: 2PR / (P + R) over the words that SQuAD's `evaluate-v1.1.py` keeps (no articles, no punctuation).
TEST_CASE("token_f1 is the F1 of the words with the best gold", "[score][scorers]") {
  CHECK(value("token_f1", "dog left of apple", {"dog left of apple"}) == 1.0);
  CHECK(value("token_f1", "The dog, left of an apple!", {"dog left of apple"}) == 1.0);
  CHECK(value("token_f1", "apple left of dog", {"dog left of apple"}) == 1.0);  // a bag of words
  CHECK(*score("token_f1", "apple left of dog", {"dog left of apple"}).second == 0.0);
  CHECK_THAT(value("token_f1", "dog above apple", {"dog left of apple"}), WithinAbs(4.0 / 7.0, 1e-12));
  CHECK_THAT(value("token_f1", "dog dog dog", {"dog and dog"}), WithinAbs(4.0 / 6.0, 1e-12));
  CHECK_THAT(value("token_f1", "red cat", {"blue dog", "red dog"}), WithinAbs(0.5, 1e-12));
  CHECK(value("token_f1", "the", {"the"}) == 0.0);
}

// MIF of SMoLoRA, caption type: ends with "." and has more than four words or is part of a reference. The
// full stop is asked for only where a gold has one.
TEST_CASE("a caption is well formed if it is long or part of a gold", "[score][scorers]") {
  const Golds with_stop{"A dog sits left of an apple."};
  CHECK(score("token_f1", "Two cats run over the lawn.", with_stop).well_formed);
  CHECK_FALSE(score("token_f1", "Two cats run over the lawn", with_stop).well_formed);
  CHECK_FALSE(score("token_f1", "cats.", with_stop).well_formed);
  CHECK(score("token_f1", "An Apple.", with_stop).well_formed);
  CHECK(score("token_f1", "left of", {"dog left of apple"}).well_formed);
  CHECK_FALSE(score("token_f1", "cat", {"dog left of apple"}).well_formed);
}

// The substring rules of CoIN's ImageNet and FCIT's FigureQA, here with whole words.
TEST_CASE("contains, contained and imagenet look for whole words", "[score][scorers]") {
  CHECK(value("contains", "It is a tabby cat.", {"tabby cat"}) == 1.0);
  CHECK(value("contains", "It is a tabby category", {"tabby cat"}) == 0.0);
  CHECK(value("contains", "concatenate", {"cat", "dog"}) == 0.0);
  CHECK(value("contains", "cat, dog", {"dog"}) == 1.0);
  CHECK(value("contains", "tabby", {"tabby cat"}) == 0.0);
  CHECK(value("contains", "\u3053\u306E\u732B\u3067\u3059", {"\u732B"}) == 1.0);  // written without spaces
  CHECK(value("contained", "tabby", {"tabby cat"}) == 1.0);
  CHECK(value("contained", "tab", {"tabby cat"}) == 0.0);
  CHECK(value("contained", "a tabby cat", {"tabby cat"}) == 0.0);
  CHECK(value("imagenet", "Tabby", {"tabby cat"}) == 1.0);
  CHECK(value("imagenet", "a tabby cat", {"lynx", "tabby cat"}) == 1.0);
  CHECK(value("imagenet", "by", {"tabby cat"}) == 0.0);
}

// ChartQA (Masry et al. 2022): a number within 5 % of the gold number, anything else exactly.
TEST_CASE("relaxed accepts numbers within five percent", "[score][scorers]") {
  CHECK(value("relaxed", "95", {"100"}) == 1.0);
  CHECK(value("relaxed", "105.0", {"100"}) == 1.0);
  CHECK(value("relaxed", "94.9", {"100"}) == 0.0);
  CHECK(value("relaxed", "-95", {"-100"}) == 1.0);
  CHECK(value("relaxed", "-95", {"100"}) == 0.0);
  CHECK(value("relaxed", "1,020", {"1000"}) == 1.0);
  CHECK(value("relaxed", "51 %", {"0.5"}) == 1.0);
  CHECK(value("relaxed", "0.01", {"0"}) == 0.0);
  CHECK(value("relaxed", "0", {"0.0"}) == 1.0);
  CHECK(value("relaxed", "nan", {"100"}) == 0.0);
  CHECK(value("relaxed", "Blue", {"blue"}) == 1.0);
  CHECK(value("relaxed", "blues", {"blue"}) == 0.0);
}

// ANLS (Biten et al. 2019): 1 - edits / longer length, 0 below 0.5, best gold.
TEST_CASE("anls has a threshold, anls_soft none", "[score][scorers]") {
  CHECK_THAT(value("anls", "kitten", {"sitting"}), WithinAbs(1.0 - 3.0 / 7.0, 1e-12));
  CHECK(value("anls", "abcd", {"wxyd"}) == 0.0);
  CHECK_THAT(value("anls_soft", "abcd", {"wxyd"}), WithinAbs(0.25, 1e-12));
  CHECK_THAT(value("anls", "ABCD", {"wxyz", "abcx"}), WithinAbs(0.75, 1e-12));
  CHECK_THAT(value("anls", "ab", {"abcd"}), WithinAbs(0.5, 1e-12));
}

TEST_CASE("first_char, edit_similarity and iou_ge", "[score][scorers]") {
  CHECK(value("first_char", "(B) because", {"b"}) == 1.0);
  CHECK(value("first_char", "A or B", {"B"}) == 0.0);
  CHECK_THROWS_AS(score("first_char", "a", {"..."}), DataError);
  CHECK_THAT(value("edit_similarity", "return x", {"return y"}), WithinAbs(7.0 / 8.0, 1e-12));
  CHECK(value("iou_ge", "0 0 4 2", {"0 0 4 4"}) == 1.0);  // exactly 0.5, which iou refuses
  CHECK(value("iou_ge", "0 0 4 1.9", {"0 0 4 4"}) == 0.0);
}

TEST_CASE("rules of MLLM-DCL and MLLM-ACL", "[score][scorers]") {
  CHECK(value("domain_rs", "There are 3 cars.", {"3"}) == 1.0);
  CHECK(value("domain_rs", "There are 13 cars.", {"3"}) == 0.0);
  CHECK(value("domain_fin", " Y e s. ", {"yes"}) == 1.0);
  CHECK(value("domain_fin", "yes it is", {"yes"}) == 0.0);
  const ScoreContext states{.prompt = "Which states have the lowest value?", .image = "x/MapQA_1.png"};
  CHECK_THAT(value("domain_sci", "Ohio, Utah ,Texas", {"Texas, Ohio,Iowa"}, states),
             WithinAbs(2.0 / 3.0, 1e-12));
  CHECK_THAT(value("domain_sci", "Ohio, Ohio", {"Texas, Ohio"}, states), WithinAbs(0.5, 1e-12));
  CHECK(value("domain_sci", "It is B", {"B"}, {.image = "AI2D_7.png"}) == 0.0);
  CHECK(value("domain_sci", "It is B", {"B"}, {.image = "MapQA_7.png"}) == 1.0);
  CHECK(value("ocrbench", "The word is\nSTOP", {"go", "isstop"}) == 1.0);
  const ScoreContext formula{.category = "Handwritten Mathematical Expression Recognition"};
  CHECK(value("ocrbench", "x ^ 2", {"x^2"}, formula) == 1.0);
  CHECK(value("ocrbench", "X ^ 2", {"x^2"}, formula) == 0.0);
  CHECK(value("ocrbench", "x ^ 2", {"x^2"}) == 0.0);
  CHECK(value("sat", "It moved left.", {"left"}) == 1.0);
  CHECK(value("sat", "l e f t", {"left"}) == 1.0);
  CHECK(value("sat", "13", {"3"}) == 0.0);
}

// SMoLoRA's three rules, to the letter.
TEST_CASE("follows_instruction has the three rules of MIF", "[score][form]") {
  using mcit::Form;
  const auto follows = [](Form form, std::string_view text, const Golds& golds) {
    return mcit::follows_instruction(form, text, golds);
  };
  CHECK(follows(Form::short_answer, "dark green", {"red"}));
  CHECK(follows(Form::short_answer, "", {"red"}));  // no words are at most two; `strict` says no
  CHECK_FALSE(mcit::has_form(Form::short_answer, "", Golds{"red"}));
  CHECK_FALSE(follows(Form::short_answer, "it is red", {"red"}));
  CHECK(follows(Form::short_answer, "It Is Red", {"it is red"}));
  CHECK(follows(Form::caption, "Two cats run over grass.", {"dogs"}));
  CHECK_FALSE(follows(Form::caption, "Two cats run over grass", {"dogs"}));
  CHECK_FALSE(follows(Form::caption, "Two cats run over.", {"dogs"}));
  CHECK(follows(Form::caption, "A dog.", {"This is a dog."}));
  CHECK(follows(Form::letter, " b ", {"B"}));
  CHECK_FALSE(follows(Form::letter, "B.", {"B"}));
  CHECK_FALSE(follows(Form::letter, "7", {"B"}));
}
