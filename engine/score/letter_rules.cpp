/// Multiple choice: which option an answer names.

#include <algorithm>

#include "score/rules.hpp"
#include "score/text.hpp"

namespace mcit {
namespace rules {
namespace {

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

}  // namespace

std::size_t letter_index(char32_t point) {
  const char32_t small = text::lower(point);
  return small >= U'a' && small <= U'z' ? small - U'a' : kNoOption;
}

Score letter(std::string_view prediction, Golds golds, const ScoreContext& context) {
  const std::vector<std::string> options =
      context.options.empty() ? lettered_options(context.prompt) : context.options;
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

}  // namespace rules

using namespace rules;

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
