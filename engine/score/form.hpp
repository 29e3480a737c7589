#pragma once
/// Whether an answer has the form that was asked for, right or wrong: what is left of an instruction when its
/// content is forgotten.

#include <span>
#include <string>
#include <string_view>

#include "score/scorers.hpp"

namespace mcit {

/// The form as scorers of the `strict` profile see it. An empty answer has none; a caption needs its full
/// stop only where a gold has one.
bool has_form(Form form, std::string_view prediction, std::span<const std::string> golds);

/// The rules behind MIF (SMoLoRA), to the letter:
/// - short_answer: at most two words between white space (so also none), or a gold but for case;
/// - caption: ends with "." and has more than four words, or ends with "." and stands in a gold;
/// - letter: one letter A to Z, in either case.
bool follows_instruction(Form form, std::string_view prediction, std::span<const std::string> golds);

}  // namespace mcit
