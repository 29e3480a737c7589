#include "eval/scorers.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>

#include "eval/text.hpp"
#include "eval/vqa_answer.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

using Golds = std::span<const std::string>;
using Points = std::u32string;
using View = std::u32string_view;

constexpr double kMinIou = 0.5;              // Grounding of CoIN: right above it
constexpr std::size_t kMaxShortWords = 2;    // SMoLoRA's rule for the form of a short answer
constexpr std::size_t kMinCaptionWords = 5;  // and of a caption: more than four words

[[noreturn]] void bad_golds(std::string_view name, std::string_view what, std::string_view hint = {}) {
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

/// Lower case without surrounding white space and one final full stop.
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

bool is_ascii_punctuation(char32_t point) {
  return point > U' ' && point < 0x7F && !is_letter_or_digit(point);
}

bool is_empty(std::string_view prediction) { return plain(prediction).empty(); }

Score empty_answer() { return {.note = "empty answer"}; }

bool equals_any(const Points& answer, Golds golds) {
  return !answer.empty() && std::any_of(golds.begin(), golds.end(),
                                        [&](const std::string& gold) { return plain(gold) == answer; });
}

/// Form of a short answer (MIF of SMoLoRA): at most two words, or a gold answer word for word.
bool is_short_answer(std::string_view prediction, Golds golds) {
  return text::split(text::decode(prediction)).size() <= kMaxShortWords ||
         equals_any(plain(prediction), golds);
}

// ------------------------------------------------------------------------------------------ exact, exact_any

Score score_exact_any(std::string_view prediction, Golds golds, const ScoreContext&) {
  need_golds("exact_any", golds);
  const Points answer = plain(prediction);
  if (answer.empty()) return empty_answer();
  return {.value = equals_any(answer, golds) ? 1.0 : 0.0, .well_formed = is_short_answer(prediction, golds)};
}

Score score_exact(std::string_view prediction, Golds golds, const ScoreContext& context) {
  only_gold("exact", golds);
  return score_exact_any(prediction, golds, context);
}

// ------------------------------------------------------------------------------------------ ocr

Points without_spaces(View points) {
  Points result(points);
  std::erase_if(result, text::is_space);
  return result;
}

/// Characters are counted without white space, so that a word spelt "r i n g" has four.
Score score_ocr(std::string_view prediction, Golds golds, const ScoreContext&) {
  const Points gold = without_spaces(plain(only_gold("ocr", golds)));
  if (gold.empty()) bad_golds("ocr", "the gold answer is empty");
  const Points answer = plain(prediction);
  if (answer.empty()) return {.second = 0.0, .note = "empty answer"};
  const auto errors = static_cast<double>(text::edit_distance(without_spaces(answer), gold));
  return {.value = equals_any(answer, golds) ? 1.0 : 0.0,
          .well_formed = true,
          .second = std::max(0.0, 1.0 - errors / static_cast<double>(gold.size()))};
}

// ------------------------------------------------------------------------------------------ vqa_soft

/// Accuracy of an answer that `matches` of 10 people gave: the mean over the ten ways to leave one person out
/// of min(1, matches among the others / 3).
double soft_accuracy(std::ptrdiff_t matches) {
  const auto k = static_cast<double>(matches);
  const double with_one_left_out = std::min(1.0, (k - 1) / 3);
  const double with_all = std::min(1.0, k / 3);
  return matches == 0 ? 0.0 : (k * with_one_left_out + (10 - k) * with_all) / 10;
}

Score score_vqa_soft(std::string_view prediction, Golds golds, const ScoreContext&) {
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
          .well_formed = is_short_answer(prediction, golds)};
}

// ------------------------------------------------------------------------------------------ letter

constexpr std::size_t kNoOption = 26;

std::size_t letter_index(char32_t point) {
  const char32_t small = text::lower(point);
  return small >= U'a' && small <= U'z' ? small - U'a' : kNoOption;
}

/// The letter of "b", "b)", "(b)" or "b. because".
std::size_t leading_letter(View answer) {
  if (answer.size() == 3 && answer.front() == U'(' && answer.back() == U')') return letter_index(answer[1]);
  if (answer.empty()) return kNoOption;
  const View rest = answer.substr(1);
  return rest.empty() || rest == U")" || rest.starts_with(U". ") ? letter_index(answer.front()) : kNoOption;
}

/// The letter of the one "the answer is x" in `answer`; none if it occurs twice.
std::size_t stated_letter(View answer) {
  constexpr View kStatement = U"the answer is ";
  std::size_t found = kNoOption;
  for (auto at = answer.find(kStatement); at != View::npos; at = answer.find(kStatement, at + 1)) {
    const View rest = answer.substr(at + kStatement.size());
    if (rest.empty() || (rest.size() > 1 && is_word(rest[1]))) continue;
    if (found != kNoOption) return kNoOption;
    found = letter_index(rest.front());
  }
  return found;
}

/// The option that `answer` names by letter or by its text.
std::size_t chosen_option(std::string_view answer, const std::vector<std::string>& options) {
  const Points words = plain(answer);
  if (const std::size_t letter = leading_letter(words); letter != kNoOption) return letter;
  const auto same =
      std::find_if(options.begin(), options.end(), [&](const auto& o) { return plain(o) == words; });
  if (same != options.end() && !words.empty()) return static_cast<std::size_t>(same - options.begin());
  return stated_letter(words);
}

Score score_letter(std::string_view prediction, Golds golds, const ScoreContext& context) {
  const auto options = context.options.empty() ? lettered_options(context.prompt) : context.options;
  const std::string& gold = only_gold("letter", golds);
  const std::size_t right = chosen_option(gold, options);
  const std::size_t count = options.empty() ? kNoOption : options.size();
  if (right >= count) {
    bad_golds("letter",
              "gold answer '" + gold + "' names none of the " + std::to_string(options.size()) + " options");
  }
  if (is_empty(prediction)) return empty_answer();
  const Points points = text::decode(prediction);
  const View bare = text::trim(points);
  const bool well_formed = bare.size() == 1 && letter_index(bare.front()) != kNoOption;
  const std::size_t chosen = chosen_option(prediction, options);
  if (chosen == kNoOption) return {.well_formed = well_formed, .note = "no option named"};
  if (chosen >= count) return {.well_formed = well_formed, .note = "letter beyond the options"};
  return {.value = chosen == right ? 1.0 : 0.0, .well_formed = well_formed};
}

// ------------------------------------------------------------------------------------------ iou, iou_bins

struct Box {
  double x1, y1, x2, y2;
};

/// The first four decimal numbers found anywhere in `answer`.
std::optional<Box> first_box(std::string_view answer) {
  std::array<double, 4> numbers{};
  std::size_t count = 0;
  const char* const end = answer.data() + answer.size();
  for (const char* at = answer.data(); at != end && count < numbers.size();) {
    const auto [after, error] = std::from_chars(at, end, numbers[count]);
    const bool is_number =
        error == std::errc() && std::isfinite(numbers[count]);  // "inf" and "nan" are words
    count += is_number ? 1 : 0;
    at = is_number || error == std::errc::result_out_of_range ? after : at + 1;
  }
  if (count < numbers.size()) return std::nullopt;
  return Box{numbers[0], numbers[1], numbers[2], numbers[3]};
}

/// The box with its far edges moved out by `last_cell`.
std::optional<Box> widened(std::optional<Box> box, double last_cell) {
  if (box) box = Box{box->x1, box->y1, box->x2 + last_cell, box->y2 + last_cell};
  return box;
}

double area(const Box& box) { return std::max(0.0, box.x2 - box.x1) * std::max(0.0, box.y2 - box.y1); }

double intersection_over_union(const Box& left, const Box& right) {
  const Box common{std::max(left.x1, right.x1), std::max(left.y1, right.y1), std::min(left.x2, right.x2),
                   std::min(left.y2, right.y2)};
  const double shared = area(common);
  const double either = area(left) + area(right) - shared;
  return std::isfinite(either) && either > 0 ? shared / either : 0.0;
}

/// @param last_cell width that the last coordinate adds: 0 for edges, 1 for inclusive cells
Score score_box(std::string_view name, double last_cell, std::string_view prediction, Golds golds) {
  const std::string& gold_text = only_gold(name, golds);
  const std::optional<Box> gold = widened(first_box(gold_text), last_cell);
  if (!gold || !(area(*gold) > 0)) {
    bad_golds(name, "gold answer '" + gold_text + "' is no box x1 y1 x2 y2 with x1 < x2 and y1 < y2");
  }
  if (is_empty(prediction)) return {.second = 0.0, .note = "empty answer"};
  const std::optional<Box> box = widened(first_box(prediction), last_cell);
  if (!box) return {.second = 0.0, .note = "no box"};
  const double iou = intersection_over_union(*box, *gold);
  return {.value = iou > kMinIou ? 1.0 : 0.0, .well_formed = true, .second = iou};
}

Score score_iou(std::string_view prediction, Golds golds, const ScoreContext&) {
  return score_box("iou", 0.0, prediction, golds);
}

Score score_iou_bins(std::string_view prediction, Golds golds, const ScoreContext&) {
  return score_box("iou_bins", 1.0, prediction, golds);
}

// ------------------------------------------------------------------------------------------ token_f1

/// Words without ASCII punctuation and articles, as SQuAD compares them (`evaluate-v1.1.py`).
std::map<Points, std::size_t> word_counts(std::string_view answer) {
  Points points = text::lower(text::decode(answer));
  std::erase_if(points, is_ascii_punctuation);
  std::map<Points, std::size_t> counts;
  for (Points& word : text::split(points)) {
    if (word != U"a" && word != U"an" && word != U"the") ++counts[std::move(word)];
  }
  return counts;
}

double token_f1(const std::map<Points, std::size_t>& left, const std::map<Points, std::size_t>& right) {
  std::size_t common = 0, total = 0;
  for (const auto& [word, count] : left) {
    const auto other = right.find(word);
    common += other == right.end() ? 0 : std::min(count, other->second);
    total += count;
  }
  for (const auto& [word, count] : right) total += count;
  return total == 0 ? 0.0 : 2.0 * static_cast<double>(common) / static_cast<double>(total);
}

/// Form of a caption (MIF of SMoLoRA): more than four words or part of a gold, and a full stop where a gold
/// has one.
bool is_caption(std::string_view prediction, Golds golds) {
  const Points points = text::lower(text::decode(prediction));
  const View caption = text::trim(points);
  const bool stop_wanted = std::any_of(golds.begin(), golds.end(), [](const std::string& gold) {
    const Points words = text::decode(gold);
    return text::trim(words).ends_with(U'.');
  });
  if (stop_wanted && !caption.ends_with(U'.')) return false;
  return text::split(caption).size() >= kMinCaptionWords ||
         std::any_of(golds.begin(), golds.end(), [&](const std::string& gold) {
           return text::lower(text::decode(gold)).find(caption) != Points::npos;
         });
}

Score score_token_f1(std::string_view prediction, Golds golds, const ScoreContext&) {
  need_golds("token_f1", golds);
  const Points answer = plain(prediction);
  if (answer.empty()) return {.second = 0.0, .note = "empty answer"};
  Score score{.well_formed = is_caption(prediction, golds), .second = equals_any(answer, golds) ? 1.0 : 0.0};
  const auto words = word_counts(prediction);
  for (const std::string& gold : golds)
    score.value = std::max(score.value, token_f1(words, word_counts(gold)));
  return score;
}

// ------------------------------------------------------------------------------------------ options

/// Where "A. ", "(A) " or, in a text of separated words, "a . " stands.
struct Marker {
  std::size_t begin, end;
};

/// The marker of the option `letter` (0 = A) that starts at `at`, if one does.
std::optional<Marker> marker_at(View points, std::size_t at, std::size_t letter) {
  if (at > 0 && !text::is_space(points[at - 1])) return std::nullopt;
  const auto point = [&](std::size_t i) { return i < points.size() ? points[i] : U' '; };
  std::size_t end = at;
  if (point(end) == U'(') ++end;
  if (letter_index(point(end++)) != letter) return std::nullopt;
  if (point(end) == U' ') ++end;
  if (point(end) != U'.' && point(end) != U')') return std::nullopt;
  if (++end < points.size() && !text::is_space(points[end])) return std::nullopt;
  return Marker{at, std::min(end, points.size())};
}

// ------------------------------------------------------------------------------------------ the table

constexpr std::array kScorers{
    Scorer{"exact", "equal to the gold answer, ignoring case and a final full stop", "", score_exact},
    Scorer{"exact_any", "equal to one of the gold answers", "", score_exact_any},
    Scorer{"iou", "box overlaps the gold box with IoU > 0.5", "IoU", score_iou},
    Scorer{"iou_bins", "box of inclusive grid cells overlaps the gold box with IoU > 0.5", "IoU",
           score_iou_bins},
    Scorer{"letter", "names the right option by letter or text", "", score_letter},
    Scorer{"ocr", "word read exactly", "1 - CER", score_ocr},
    Scorer{"token_f1", "F1 of the words", "exact match", score_token_f1},
    Scorer{"vqa_soft", "VQA soft accuracy against ten human answers or one", "", score_vqa_soft}};

}  // namespace

std::span<const Scorer> scorers() { return kScorers; }

const Scorer& find_scorer(std::string_view name) {
  const auto found =
      std::find_if(kScorers.begin(), kScorers.end(), [&](const Scorer& s) { return s.name == name; });
  if (found != kScorers.end()) return *found;
  std::vector<std::string> names;
  for (const Scorer& scorer : kScorers) names.emplace_back(scorer.name);
  throw ConfigError("scorer", "'" + std::string(name) + "' is not known", suggestion(name, names));
}

std::vector<std::string> lettered_options(std::string_view prompt) {
  const Points points = text::decode(prompt);
  std::vector<Marker> markers;
  for (std::size_t at = 0; at < points.size() && markers.size() < kNoOption; ++at) {
    if (const auto marker = marker_at(points, at, markers.size())) markers.push_back(*marker);
  }
  if (markers.size() < 2) return {};
  std::vector<std::string> options;
  for (std::size_t i = 0; i < markers.size(); ++i) {
    const std::size_t end = i + 1 < markers.size() ? markers[i + 1].begin : points.size();
    const View option = text::trim(View(points).substr(markers[i].end, end - markers[i].end));
    options.push_back(text::encode(text::trim(option.substr(0, option.find(U'\n')))));
  }
  return options;
}

}  // namespace mcit
