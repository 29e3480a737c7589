/// Rules that compare short answers.

#include <algorithm>
#include <charconv>
#include <cmath>

#include "mcit/errors.hpp"
#include "score/form.hpp"
#include "score/rules.hpp"
#include "score/text.hpp"
#include "score/vqa_answer.hpp"

namespace mcit::rules {
namespace {

constexpr double kRelaxed = 0.05;     // ChartQA: a number within 5 % of the gold number
constexpr double kAnlsMinimum = 0.5;  // ANLS of ST-VQA: a similarity below it counts nothing

bool is_short(std::string_view prediction, Golds golds) {
  return has_form(Form::short_answer, prediction, golds);
}

/// The verdict of a rule that holds for any of the golds.
template <class Right>
Score any_gold(std::string_view name, std::string_view prediction, Golds golds, const Right& right) {
  need_golds(name, golds);
  const Points answer = plain(prediction);
  if (answer.empty()) return empty_answer();
  const bool found = std::any_of(golds.begin(), golds.end(), [&](const std::string& gold) {
    const Points wanted = plain(gold);
    return wanted == answer || right(answer, wanted);
  });
  return {.value = found ? 1.0 : 0.0, .well_formed = is_short(prediction, golds)};
}

/// "1,234", "$ 5", "12 %" (as 0.12) as a number.
std::optional<double> number_of(View text) {
  std::string digits;
  double unit = 1;
  for (const char32_t point : text) {
    if (point == U'%') {
      unit = 0.01;
    } else if (point < 0x80 && point != U',' && point != U'$' && !text::is_space(point)) {
      digits.push_back(static_cast<char>(point));
    } else if (point >= 0x80) {
      return std::nullopt;
    }
  }
  double value = 0;
  const char* const end = digits.data() + digits.size();
  const auto [after, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc() || after != end || !std::isfinite(value)) return std::nullopt;
  return value * unit;
}

bool is_close(View answer, View gold) {
  const auto found = number_of(answer), wanted = number_of(gold);
  return found && wanted && std::abs(*found - *wanted) <= kRelaxed * std::abs(*wanted);
}

/// 1 - edits / length of the longer text.
double similarity(View left, View right) {
  const std::size_t longer = std::max(left.size(), right.size());
  if (longer == 0) return 1.0;
  return 1.0 - static_cast<double>(text::edit_distance(left, right)) / static_cast<double>(longer);
}

Score similar(std::string_view name, double minimum, std::string_view prediction, Golds golds) {
  need_golds(name, golds);
  if (is_empty(prediction)) return empty_answer();
  const Points points = text::lower(text::decode(prediction));
  Score score{.well_formed = is_short(prediction, golds)};
  for (const std::string& gold : golds) {
    const Points wanted = text::lower(text::decode(gold));
    score.value = std::max(score.value, similarity(text::trim(points), text::trim(wanted)));
  }
  if (score.value < minimum) score.value = 0;
  return score;
}

/// Runs of ASCII letters and digits, as the package rouge-score cuts words.
std::vector<Points> ascii_words(std::string_view answer) {
  std::vector<Points> words(1);
  for (const char32_t point : text::lower(text::decode(answer))) {
    if (is_letter_or_digit(point)) {
      words.back().push_back(point);
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

double rouge_l_f1(const std::vector<Points>& answer, const std::vector<Points>& gold) {
  if (answer.empty() || gold.empty()) return 0;
  const auto common = static_cast<double>(text::common_subsequence<Points>(answer, gold));
  return 2 * common / static_cast<double>(answer.size() + gold.size());
}

}  // namespace

[[noreturn]] void bad_golds(std::string_view name, std::string_view what, std::string_view hint) {
  throw DataError("scorer '" + std::string(name) + "'", what, hint);
}

const std::string& only_gold(std::string_view name, Golds golds) {
  if (golds.size() != 1) {
    bad_golds(name, std::to_string(golds.size()) + " gold answers, needs exactly one",
              "'exact_any' takes a list");
  }
  return golds.front();
}

void need_golds(std::string_view name, Golds golds) {
  if (golds.empty()) bad_golds(name, "the row has no gold answer");
}

Points plain(std::string_view answer) {
  const Points points = text::decode(answer);
  View view = text::trim(points);
  if (view.ends_with(U'.')) view = text::trim(view.substr(0, view.size() - 1));
  return text::lower(view);
}

bool is_letter_or_digit(char32_t point) {
  return (point >= U'0' && point <= U'9') || (point >= U'a' && point <= U'z') ||
         (point >= U'A' && point <= U'Z');
}

bool is_word(char32_t point) { return is_letter_or_digit(point) || point == U'_' || point >= 0x80; }

bool is_empty(std::string_view prediction) { return plain(prediction).empty(); }

Score empty_answer() { return {.note = "empty answer"}; }

bool equals_any(const Points& answer, Golds golds) {
  return !answer.empty() && std::any_of(golds.begin(), golds.end(),
                                        [&](const std::string& gold) { return plain(gold) == answer; });
}

Points squeezed(View points) {
  Points result(points);
  std::erase_if(result, text::is_space);
  return result;
}

bool has_phrase(View text, View phrase) {
  if (phrase.empty()) return false;
  // Marks of U+2000… part words as a space does, and scripts from U+2E80 on are written without spaces.
  const auto joins = [](char32_t point) {
    return is_word(point) && point < 0x2E80 && !(point >= 0x2000 && point <= 0x206F);
  };
  for (auto at = text.find(phrase); at != View::npos; at = text.find(phrase, at + 1)) {
    const std::size_t end = at + phrase.size();
    const bool starts = at == 0 || !joins(text[at - 1]) || !joins(phrase.front());
    const bool ends = end == text.size() || !joins(text[end]) || !joins(phrase.back());
    if (starts && ends) return true;
  }
  return false;
}

Score exact_any(std::string_view prediction, Golds golds, const ScoreContext&) {
  return any_gold("exact_any", prediction, golds, [](View, View) { return false; });
}

Score exact(std::string_view prediction, Golds golds, const ScoreContext& context) {
  only_gold("exact", golds);
  return exact_any(prediction, golds, context);
}

Score contains(std::string_view prediction, Golds golds, const ScoreContext&) {
  return any_gold("contains", prediction, golds,
                  [](View answer, View gold) { return has_phrase(answer, gold); });
}

Score contained(std::string_view prediction, Golds golds, const ScoreContext&) {
  return any_gold("contained", prediction, golds,
                  [](View answer, View gold) { return has_phrase(gold, answer); });
}

Score imagenet(std::string_view prediction, Golds golds, const ScoreContext&) {
  return any_gold("imagenet", prediction, golds, [](View answer, View gold) {
    return has_phrase(answer, gold) || has_phrase(gold, answer);
  });
}

Score relaxed(std::string_view prediction, Golds golds, const ScoreContext&) {
  return any_gold("relaxed", prediction, golds, is_close);
}

Score anls(std::string_view prediction, Golds golds, const ScoreContext&) {
  return similar("anls", kAnlsMinimum, prediction, golds);
}

Score anls_soft(std::string_view prediction, Golds golds, const ScoreContext&) {
  return similar("anls_soft", 0, prediction, golds);
}

Score edit_similarity(std::string_view prediction, Golds golds, const ScoreContext&) {
  const Points gold = text::decode(only_gold("edit_similarity", golds)), answer = text::decode(prediction);
  if (is_empty(prediction)) return empty_answer();
  return {.value = similarity(text::trim(answer), text::trim(gold)), .well_formed = true};
}

Score first_char(std::string_view prediction, Golds golds, const ScoreContext&) {
  const auto first = [](std::string_view text) {
    const Points points = text::lower(text::decode(text));
    const auto found = std::find_if(points.begin(), points.end(), is_word);
    return found == points.end() ? U'\0' : *found;
  };
  const char32_t wanted = first(only_gold("first_char", golds)), found = first(prediction);
  if (is_empty(prediction)) return empty_answer();
  if (wanted == U'\0') bad_golds("first_char", "the gold answer has no letter or digit");
  return {.value = found == wanted ? 1.0 : 0.0, .well_formed = is_short(prediction, golds)};
}

Score rouge_l(std::string_view prediction, Golds golds, const ScoreContext&) {
  need_golds("rouge_l", golds);
  if (is_empty(prediction)) return empty_answer();
  const auto words = ascii_words(prediction);
  Score score{.well_formed = has_form(Form::caption, prediction, golds)};
  for (const std::string& gold : golds)
    score.value = std::max(score.value, rouge_l_f1(words, ascii_words(gold)));
  return score;
}

/// Characters are counted without white space, so that a word spelt "r i n g" has four.
Score ocr(std::string_view prediction, Golds golds, const ScoreContext&) {
  const Points gold = squeezed(plain(only_gold("ocr", golds)));
  if (gold.empty()) bad_golds("ocr", "the gold answer is empty");
  const Points answer = plain(prediction);
  if (answer.empty()) return {.second = 0.0, .note = "empty answer"};
  const auto errors = static_cast<double>(text::edit_distance(squeezed(answer), gold));
  return {.value = equals_any(answer, golds) ? 1.0 : 0.0,
          .well_formed = true,
          .second = std::max(0.0, 1.0 - errors / static_cast<double>(gold.size()))};
}

double soft_accuracy(std::ptrdiff_t matches) {
  const auto k = static_cast<double>(matches);
  const double with_one_left_out = std::min(1.0, (k - 1) / 3);
  const double with_all = std::min(1.0, k / 3);
  return matches == 0 ? 0.0 : (k * with_one_left_out + (10 - k) * with_all) / 10;
}

Score vqa_soft(std::string_view prediction, Golds golds, const ScoreContext&) {
  constexpr std::size_t kAnnotators = 10;
  if (golds.size() != 1 && golds.size() != kAnnotators) {
    bad_golds("vqa_soft", std::to_string(golds.size()) + " gold answers, needs 1 or 10",
              "'exact_any' takes any number");
  }
  if (is_empty(prediction)) return empty_answer();
  const Points answer = normalise_vqa_answer(text::decode(prediction));
  const auto matches = std::count_if(golds.begin(), golds.end(), [&](const std::string& gold) {
    // An answer of articles only normalises to nothing; then the words themselves decide.
    return answer.empty() ? plain(gold) == plain(prediction)
                          : normalise_vqa_answer(text::decode(gold)) == answer;
  });
  return {.value = golds.size() == 1 ? static_cast<double>(matches) : soft_accuracy(matches),
          .well_formed = is_short(prediction, golds)};
}

}  // namespace mcit::rules
