#pragma once
/// The answer normaliser of the VQA evaluation.

#include <string>
#include <string_view>

namespace mcit {

/// `answer` as the VQA evaluation compares it: lower case, most punctuation gone, number words as digits,
/// articles dropped, contractions with their apostrophe. Source: EvalAIAnswerProcessor in `m4c_evaluator.py`
/// (LLaVA, from MMF), oddities included: a full stop after a digit goes unless another digit follows, at most
/// 32 of them.
std::u32string normalise_vqa_answer(std::u32string_view answer);

}  // namespace mcit
