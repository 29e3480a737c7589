#include "score/vqa_answer.hpp"

#include <catch2/catch_test_macros.hpp>
#include <string>
#include <utility>
#include <vector>

#include "score/text.hpp"

namespace {

std::string normalised(std::string_view answer) {
  return mcit::text::encode(mcit::normalise_vqa_answer(mcit::text::decode(answer)));
}

}  // namespace

// Expected strings: EvalAIAnswerProcessor()(answer) of the evaluation in MMF that LLaVA, CoIN, MCITlib, SEFE
// and Prism carry as `m4c_evaluator.py`, run under Python 3.11.
TEST_CASE("answers are normalised as the VQA evaluation does it", "[score][vqa]") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", ""},
      {"  Yes  ", "yes"},
      {"The Cat.", "cat"},
      {"two dogs", "2 dogs"},
      {"NONE", "0"},
      {"ten", "10"},
      {"1,000", "1000"},
      {"10,5 cm", "105 cm"},
      {"what's up?", "what 's up"},
      {"dont", "don't"},
      {"couldnt've", "couldn't've"},
      {"couldn'tve", "couldn't've"},
      {"Yall'd've", "y'all'd've"},
      {"somebody'd", "somebodyd"},
      {"Id've", "id've"},
      {"oclock", "o'clock"},
      {"let's", "let 's"},
      {"she's", "she 's"},
      {"ow's'at", "ow 's'at"},
      {"'ow'sat", "'ow 'sat"},
      {"x-ray", "x ray"},
      {"x - ray", "x ray"},
      {"and/or", "and or"},
      {"(yes)", "yes"},
      {"yes (or no)", "yes or no"},
      {"3.5", "3.5"},
      {"4.", "4"},
      {"12. 5", "12 5"},
      {"U.S.A.", "usa"},
      {"v.2", "v.2"},
      {"a", ""},
      {"the a an", ""},
      {"red\nand\tblue", "red and blue"},
      {"\u00A0Zürich\u2003", "zürich"},
      {"ÉCOLE", "école"},
      {"50%", "50%"},
      {"$5", "$5"},
      {"e.g. this", "eg this"},
      {"\"quoted\"", "quoted"},
      {"one, two, three", "1 2 3"},
      {"a_b", "b"},
      {"no!", "no"},
      {"stop ! now", "stop now"},
      {"c++", "c"},
      {"日本語。", "日本語。"},
  };
  for (const auto& [answer, expected] : cases) {
    INFO("answer: '" << answer << "'");
    CHECK(normalised(answer) == expected);
  }
}

// 32 is the value of re.UNICODE, which the original passes where re.sub takes its count.
TEST_CASE("only the first 32 full stops go", "[score][vqa]") {
  std::string answer, expected = std::string(32, 'x');
  for (int i = 0; i < 35; ++i) answer += "x.";
  for (int i = 0; i < 3; ++i) expected += "x.";
  CHECK(normalised(answer) == expected);
}
