#include "score/form.hpp"

#include <algorithm>

#include "score/rules.hpp"
#include "score/text.hpp"

namespace mcit {
namespace {

using namespace rules;

constexpr std::size_t kMaxShortWords = 2;
constexpr std::size_t kMinCaptionWords = 5;

std::size_t words_in(View points) {
  std::size_t words = 0;
  bool inside = false;
  for (const char32_t point : points) {
    const bool space = text::is_space(point);
    words += !space && !inside ? 1 : 0;
    inside = !space;
  }
  return words;
}

bool stands_in(View caption, Golds golds) {
  return std::any_of(golds.begin(), golds.end(), [&](const std::string& gold) {
    return text::lower(text::decode(gold)).find(caption) != Points::npos;
  });
}

bool is_one_letter(View points) {
  const View bare = text::trim(points);
  return bare.size() == 1 && letter_index(bare.front()) != kNoOption;
}

bool ends_with_stop(const std::string& text) {
  const Points points = text::decode(text);
  return text::trim(points).ends_with(U'.');
}

}  // namespace

bool has_form(Form form, std::string_view prediction, std::span<const std::string> golds) {
  const Points points = text::lower(text::decode(prediction));
  const View bare = text::trim(points);
  if (is_empty(prediction)) return false;
  if (form == Form::letter) return is_one_letter(bare);
  if (form == Form::short_answer)
    return words_in(bare) <= kMaxShortWords || equals_any(plain(prediction), golds);
  if (std::any_of(golds.begin(), golds.end(), ends_with_stop) && !bare.ends_with(U'.')) return false;
  return words_in(bare) >= kMinCaptionWords || stands_in(bare, golds);
}

bool follows_instruction(Form form, std::string_view prediction, std::span<const std::string> golds) {
  const Points points = text::lower(text::decode(prediction));
  const View bare = text::trim(points);
  if (form == Form::letter) return is_one_letter(bare);
  if (form == Form::short_answer)
    return words_in(bare) <= kMaxShortWords ||
           std::any_of(golds.begin(), golds.end(),
                       [&](const std::string& gold) { return text::lower(text::decode(gold)) == points; });
  return bare.ends_with(U'.') && (words_in(bare) >= kMinCaptionWords || stands_in(bare, golds));
}

}  // namespace mcit
