#pragma once
/// What the files of rules share. Only for this library.

#include <optional>
#include <string>
#include <string_view>

#include "score/scorers.hpp"

namespace mcit::rules {

using Golds = std::span<const std::string>;
using Points = std::u32string;
using View = std::u32string_view;

[[noreturn]] void bad_golds(std::string_view name, std::string_view what, std::string_view hint = {});
const std::string& only_gold(std::string_view name, Golds golds);
void need_golds(std::string_view name, Golds golds);

/// Lower case without surrounding white space and one final full stop.
Points plain(std::string_view answer);
bool is_empty(std::string_view prediction);
Score empty_answer();
bool is_letter_or_digit(char32_t point);  ///< of ASCII
bool is_word(char32_t point);             ///< of a word: the same, '_' and all beyond ASCII
bool equals_any(const Points& answer, Golds golds);
/// Without any white space.
Points squeezed(View points);
/// `phrase` stands in `text` with no letter or digit of a word right before or behind it; false for an empty
/// phrase.
bool has_phrase(View text, View phrase);
/// "X.", "(x)", "x. because": index of the letter, or kNoOption.
inline constexpr std::size_t kNoOption = 26;
std::size_t letter_index(char32_t point);

struct Box {
  double x1, y1, x2, y2;
};
/// The first four decimal numbers found anywhere in `answer`.
std::optional<Box> first_box(std::string_view answer);
double intersection_over_union(const Box& left, const Box& right);

#define MCIT_RULE(name) Score name(std::string_view, Golds, const ScoreContext&)
MCIT_RULE(exact);
MCIT_RULE(exact_any);
MCIT_RULE(ocr);
MCIT_RULE(vqa_soft);
MCIT_RULE(token_f1);
MCIT_RULE(letter);
MCIT_RULE(iou);
MCIT_RULE(iou_ge);
MCIT_RULE(iou_bins);
MCIT_RULE(contains);
MCIT_RULE(contained);
MCIT_RULE(imagenet);
MCIT_RULE(relaxed);
MCIT_RULE(anls);
MCIT_RULE(anls_soft);
MCIT_RULE(first_char);
MCIT_RULE(edit_similarity);
MCIT_RULE(rouge_l);
MCIT_RULE(domain_fin);
MCIT_RULE(domain_sci);
MCIT_RULE(ocrbench);
MCIT_RULE(sat);
#undef MCIT_RULE

/// Of k matches among ten annotators: mean over the ten ways to leave one out of min(1, matches / 3).
double soft_accuracy(std::ptrdiff_t matches);

}  // namespace mcit::rules
