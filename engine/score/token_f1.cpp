/// Words in common.

#include <algorithm>
#include <map>

#include "score/form.hpp"
#include "score/rules.hpp"
#include "score/text.hpp"

namespace mcit::rules {
namespace {

bool is_ascii_punctuation(char32_t point) {
  return point > U' ' && point < 0x7F && !is_letter_or_digit(point);
}

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

double f1_of(const std::map<Points, std::size_t>& left, const std::map<Points, std::size_t>& right) {
  std::size_t common = 0, total = 0;
  for (const auto& [word, count] : left) {
    const auto other = right.find(word);
    common += other == right.end() ? 0 : std::min(count, other->second);
    total += count;
  }
  for (const auto& [word, count] : right) total += count;
  return total == 0 ? 0.0 : 2.0 * static_cast<double>(common) / static_cast<double>(total);
}

}  // namespace

Score token_f1(std::string_view prediction, Golds golds, const ScoreContext&) {
  need_golds("token_f1", golds);
  const Points answer = plain(prediction);
  if (answer.empty()) return {.second = 0.0, .note = "empty answer"};
  Score score{.well_formed = has_form(Form::caption, prediction, golds),
              .second = equals_any(answer, golds) ? 1.0 : 0.0};
  const auto words = word_counts(prediction);
  for (const std::string& gold : golds) score.value = std::max(score.value, f1_of(words, word_counts(gold)));
  return score;
}

}  // namespace mcit::rules
