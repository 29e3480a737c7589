#include "score/quirks.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "score/text.hpp"
#include "score/vqa_answer.hpp"

namespace mcit::quirks {
namespace {

using namespace rules;

constexpr std::size_t kLetters = 5;  // A to E
constexpr double kMinIou = 0.5;

Score verdict(bool right, std::string_view note = {}) { return {.value = right ? 1.0 : 0.0, .note = note}; }

Points lower_case(std::string_view text) { return text::lower(text::decode(text)); }

bool gave_up(std::string_view prediction) {
  return prediction.find("Unanswerable") != std::string_view::npos;
}

std::string without(std::string text, std::string_view marks) {
  std::erase_if(text, [&](char c) { return marks.find(c) != std::string_view::npos; });
  return text;
}

// ------------------------------------------------------------------------------------------ letters

std::size_t capital_index(char32_t point) {
  return point >= U'A' && point < U'A' + kLetters ? point - U'A' : kNoOption;
}

/// The two steps that all forks share: the letter alone, or "X. " in front.
std::size_t plain_letter(View answer) {
  if (answer.size() == 1) return capital_index(answer.front());
  return answer.size() >= 3 && answer.substr(1, 2) == U". " ? capital_index(answer.front()) : kNoOption;
}

std::size_t first_single_character(View answer) {
  for (std::size_t i = 0; i < answer.size(); ++i) {
    const bool starts = i == 0 || !is_word(answer[i - 1]),
               ends = i + 1 == answer.size() || !is_word(answer[i + 1]);
    if (!is_word(answer[i]) || !starts || !ends) continue;
    const char32_t c = answer[i];
    return capital_index(c >= U'a' && c <= U'z' ? c - 32 : c);
  }
  return kNoOption;
}

std::size_t the_answer_is(View answer) {
  constexpr View kStatement = U"The answer is ";
  std::size_t found = kNoOption, count = 0;
  for (auto at = answer.find(kStatement); at != View::npos;) {
    const View rest = answer.substr(at + kStatement.size());
    const bool matches = rest.size() >= 2 && rest[0] >= U'A' && rest[0] <= U'Z' && rest[1] != U'\n';
    if (matches) {
      found = capital_index(rest[0]);
      ++count;
    }
    at = answer.find(kStatement, at + kStatement.size() + (matches ? 2 : 0));
  }
  return count == 1 ? found : kNoOption;
}

using Fallback = std::size_t (*)(View);

Score letter_score(std::string_view prediction, Golds golds, const ScoreContext& context, Fallback fallback,
                   bool check_choices) {
  const std::string& gold = only_gold("letter", golds);
  const std::size_t right = gold.size() == 1 ? capital_index(static_cast<unsigned char>(gold[0])) : kNoOption;
  if (right == kNoOption) bad_golds("letter", "gold answer '" + gold + "' is not a letter from A to E");
  const Points points = text::decode(prediction);
  std::size_t chosen = plain_letter(points);
  if (chosen == kNoOption) chosen = fallback(points);
  if (chosen == kNoOption) return verdict(false, "no option named");
  if (!check_choices) return verdict(chosen == right);
  const std::size_t choices =
      context.options.empty() ? lettered_options(context.prompt).size() : context.options.size();
  if (choices > 0 && chosen >= choices) return verdict(false, "letter beyond the options");
  return verdict(chosen == right);
}

// ------------------------------------------------------------------------------------------ boxes

/// As Python's float() reads it: outer white space, a sign, "nan" and "inf" are fine.
std::optional<double> python_float(View field) {
  std::string text = text::encode(text::trim(field));
  if (text.starts_with('+')) text.erase(0, 1);
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data(), end, value);
  const bool read = after == end && (error == std::errc() || error == std::errc::result_out_of_range);
  return read && !text.empty() && text.find('(') == std::string::npos ? std::optional(value) : std::nullopt;
}

std::optional<Box> four_floats(View list) {
  std::array<double, 4> numbers{};
  std::size_t count = 0;
  for (std::size_t begin = 0; begin <= list.size(); ++count) {
    const std::size_t end = std::min(list.find(U',', begin), list.size());
    const auto number = python_float(list.substr(begin, end - begin));
    if (!number || count == numbers.size()) return std::nullopt;
    numbers[count] = *number;
    begin = end + 1;
  }
  if (count != numbers.size()) return std::nullopt;
  return Box{numbers[0], numbers[1], numbers[2], numbers[3]};
}

Points without_brackets(std::string_view text) { return text::decode(without(std::string(text), "[]")); }

/// As the original has it: corners in the wrong order give areas below zero.
double pixel_iou(const Box& a, const Box& b, double scale) {
  const auto side = [&](double low, double high) { return scale * high - scale * low; };
  const double width = side(std::max(a.x1, b.x1), std::min(a.x2, b.x2));
  const double height = side(std::max(a.y1, b.y1), std::min(a.y2, b.y2));
  const double shared = std::max(0.0, width) * std::max(0.0, height);
  const double either = side(a.x1, a.x2) * side(a.y1, a.y2) + side(b.x1, b.x2) * side(b.y1, b.y2) - shared;
  return either > 0 ? shared / either : 0;
}

Box gold_box(Golds golds) {
  const std::string& gold = only_gold("iou", golds);
  const auto box = four_floats(without_brackets(gold));
  if (!box) bad_golds("iou", "gold answer '" + gold + "' is no list of four numbers");
  return *box;
}

}  // namespace

Score same_but_case(std::string_view prediction, Golds golds, const ScoreContext&) {
  return verdict(lower_case(prediction) == lower_case(only_gold("exact", golds)));
}

Score ocrvqa(std::string_view prediction, Golds golds, const ScoreContext& context) {
  const std::string& gold = only_gold("ocr", golds);
  if (gave_up(prediction)) return verdict(false, "says Unanswerable");
  return same_but_case(prediction, std::span(&gold, 1), context);
}

Score gqa(std::string_view prediction, Golds golds, const ScoreContext&) {
  const std::string& gold = only_gold("gqa", golds);
  const std::size_t last = prediction.find_last_not_of('.');
  return verdict(lower_case(prediction.substr(0, last + 1)) == text::decode(gold));
}

Score part_of_either(std::string_view prediction, Golds golds, const ScoreContext&) {
  const std::string& gold = only_gold("imagenet", golds);
  return verdict(prediction.find(gold) != std::string_view::npos ||
                 gold.find(prediction) != std::string::npos);
}

Score part_of_gold(std::string_view prediction, Golds golds, const ScoreContext&) {
  return verdict(lower_case(only_gold("contained", golds)).find(lower_case(prediction)) != Points::npos);
}

Score m4c_soft(std::string_view prediction, Golds golds, const ScoreContext&) {
  if (golds.size() != 10) bad_golds("vqa_soft", std::to_string(golds.size()) + " gold answers, needs ten");
  const Points answer = normalise_vqa_answer(text::decode(prediction));
  return {.value = soft_accuracy(std::count_if(golds.begin(), golds.end(), [&](const std::string& gold) {
            return normalise_vqa_answer(text::decode(gold)) == answer;
          }))};
}

Score coin_letter(std::string_view prediction, Golds golds, const ScoreContext& context) {
  return letter_score(prediction, golds, context, first_single_character, true);
}

Score sefe_letter(std::string_view prediction, Golds golds, const ScoreContext& context) {
  return letter_score(prediction, golds, context, the_answer_is, true);
}

Score prism_letter(std::string_view prediction, Golds golds, const ScoreContext& context) {
  return letter_score(prediction, golds, context, the_answer_is, false);
}

Score coin_box(std::string_view prediction, Golds golds, const ScoreContext& context) {
  const Box gold = gold_box(golds);
  const Points bare = without_brackets(prediction);
  if (bare.size() < 2) return {.second = 0.0, .note = "no box"};
  const auto box = four_floats(View(bare).substr(1, bare.size() - 2));
  if (!box) return {.second = 0.0, .note = "no box"};
  const double iou = pixel_iou(*box, gold, context.scale);
  return {.value = iou > kMinIou ? 1.0 : 0.0, .second = iou};
}

Score prism_box(std::string_view prediction, Golds golds, const ScoreContext& context) {
  const Box gold = gold_box(golds);
  const auto box = first_box(prediction);
  if (!box) return {.second = 0.0, .note = "no box"};
  const double iou = pixel_iou(*box, gold, context.scale);
  return {.value = iou > kMinIou ? 1.0 : 0.0, .second = iou};
}

Score soft_anls(std::string_view prediction, Golds golds, const ScoreContext&) {
  need_golds("anls_soft", golds);
  const Points answer = lower_case(prediction);
  Score score;
  for (const std::string& gold : golds) {
    const Points wanted = lower_case(gold);
    const auto longer = static_cast<double>(std::max({answer.size(), wanted.size(), std::size_t{1}}));
    score.value =
        std::max(score.value, 1 - static_cast<double>(text::edit_distance(answer, wanted)) / longer);
  }
  return score;
}

Score dcl_rs(std::string_view prediction, Golds golds, const ScoreContext&) {
  const Points gold = lower_case(only_gold("domain_rs", golds));
  Points answer = lower_case(prediction);
  if (gold.find(U' ') != Points::npos) return verdict(answer.find(gold) != Points::npos);
  std::erase(answer, U'.');
  if (answer.find(U' ') == Points::npos) return verdict(answer.find(gold) != Points::npos);
  const std::array<Points, 4> patterns{U" " + gold, gold + U" ", gold + U".", gold + U","};
  return verdict(std::any_of(patterns.begin(), patterns.end(),
                             [&](const Points& p) { return answer.find(p) != Points::npos; }));
}

Score dcl_med(std::string_view prediction, Golds golds, const ScoreContext&) {
  const std::string& gold = only_gold("domain_med", golds);
  if (gave_up(prediction)) return verdict(false, "says Unanswerable");
  return verdict(lower_case(prediction).find(lower_case(gold)) != Points::npos);
}

Score dcl_fin(std::string_view prediction, Golds golds, const ScoreContext&) {
  const std::string& gold = only_gold("domain_fin", golds);
  if (gave_up(prediction)) return verdict(false, "says Unanswerable");
  return verdict(lower_case(without(std::string(prediction), " .")) == lower_case(gold));
}

Score dcl_sci(std::string_view prediction, Golds golds, const ScoreContext& context) {
  constexpr std::array<std::string_view, 4> kExact{"AI2D", "TQA", "VQA", "SciVerse"};
  const Points gold = lower_case(only_gold("domain_sci", golds)), answer = lower_case(prediction);
  if (gave_up(prediction)) return verdict(false, "says Unanswerable");
  const std::string_view name = context.image.substr(context.image.rfind('/') + 1);
  if (std::find(kExact.begin(), kExact.end(), name.substr(0, name.find('_'))) != kExact.end())
    return verdict(answer == gold);
  if (context.prompt.find("Which states") == std::string_view::npos)
    return verdict(answer.find(gold) != Points::npos);
  const auto items = [](const Points& list) {  // with the blanks around them
    std::vector<Points> out(1);
    for (const char32_t c : list) c == U',' ? void(out.emplace_back()) : out.back().push_back(c);
    return out;
  };
  const std::vector<Points> found = items(answer), wanted = items(gold);
  const auto hits = std::count_if(wanted.begin(), wanted.end(), [&](const Points& item) {
    return std::find(found.begin(), found.end(), item) != found.end();
  });
  return {.value = static_cast<double>(hits) / static_cast<double>(wanted.size())};
}

Score acl_ocrbench(std::string_view prediction, Golds golds, const ScoreContext& context) {
  need_golds("ocrbench", golds);
  const bool formula = context.category == "Handwritten Mathematical Expression Recognition";
  const auto prepared = [&](std::string_view text) {
    if (formula) return text::decode(without(std::string(text), " \n"));
    Points points = lower_case(text);
    points = text::trim(points);
    std::erase(points, U'\n');
    return points;
  };
  const Points answer = prepared(prediction);
  return verdict(std::any_of(golds.begin(), golds.end(), [&](const std::string& gold) {
    return answer.find(prepared(gold)) != Points::npos;
  }));
}

Score acl_sat(std::string_view prediction, Golds golds, const ScoreContext&) {
  const auto compact = [](std::string_view text) { return lower_case(without(std::string(text), " \n.")); };
  return verdict(compact(prediction).find(compact(only_gold("sat", golds))) != Points::npos);
}

}  // namespace mcit::quirks
