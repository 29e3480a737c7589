#pragma once
/// Rules of other projects, to the letter. Only for this library; profiles.cpp says who uses which.

#include "score/rules.hpp"

namespace mcit::quirks {

using rules::Golds;

#define MCIT_RULE(name) Score name(std::string_view, Golds, const ScoreContext&)
/// Equality but for case, of the whole texts: two empty texts are equal.
MCIT_RULE(same_but_case);
/// The same; an answer with "Unanswerable" in it is wrong.
MCIT_RULE(ocrvqa);
/// Final full stops off the answer, lower case, equal to the gold as it stands.
MCIT_RULE(gqa);
/// One of the two texts is a part of the other, by bytes: an empty answer is right.
MCIT_RULE(part_of_either);
/// The answer is a part of the gold but for case: an empty answer is right.
MCIT_RULE(part_of_gold);
/// Soft VQA accuracy of exactly ten golds; an answer that normalises to nothing may match.
MCIT_RULE(m4c_soft);
/// The letter itself, "X. …", else the first word of one character in capitals; wrong beyond the choices.
MCIT_RULE(coin_letter);
/// The letter itself, "X. …", else the one "The answer is X" with a character behind it; wrong beyond the
/// choices.
MCIT_RULE(sefe_letter);
/// The same without looking at the number of choices.
MCIT_RULE(prism_letter);
/// Brackets off, first and last character off, four floats between commas, IoU > 0.5 in pixels.
MCIT_RULE(coin_box);
/// The first four numbers found anywhere, IoU > 0.5.
MCIT_RULE(prism_box);
/// 1 - edits / longer length in lower case, best gold, no threshold.
MCIT_RULE(soft_anls);
/// MLLM-DCL and MLLM-ACL.
MCIT_RULE(dcl_rs);
MCIT_RULE(dcl_med);
MCIT_RULE(dcl_fin);
MCIT_RULE(dcl_sci);
MCIT_RULE(acl_ocrbench);
MCIT_RULE(acl_sat);
#undef MCIT_RULE

}  // namespace mcit::quirks
