#include "score/profiles.hpp"

#include <algorithm>
#include <array>

#include "mcit/errors.hpp"
#include "score/captions.hpp"
#include "score/quirks.hpp"

namespace mcit {
namespace {

using namespace quirks;

constexpr std::array<std::string_view, 6> kProfiles{"strict", "coin", "sefe", "mcitlib", "prism", "hide"};

constexpr std::string_view kEqual = "equal but for case, the whole text";
constexpr std::string_view kOcr = "equal but for case; \"Unanswerable\" anywhere is wrong";
constexpr std::string_view kPart = "by position; one text is a part of the other, an empty answer is right";
constexpr std::string_view kBox = "first and last character dropped, four floats, IoU > 0.5";
constexpr std::string_view kSoft = "soft accuracy of ten answers; an answer of articles only may match";
constexpr std::string_view kGqa = "final stops off, lower case, equal; balanced questions only";
constexpr std::string_view kCaptions = "pycocoevalcap's seven numbers, METEOR with its exact stage only";
constexpr std::string_view kInGold =
    "the answer is a part of the gold but for case, an empty answer is right";

constexpr auto kGolds = Denominator::golds;
constexpr auto kPredictions = Denominator::predictions;
constexpr auto kById = Pairing::by_id;
constexpr auto kByPosition = Pairing::by_position;

constexpr std::array kRules{
    ProfileRule{"coin", "exact", kEqual, "CoIN eval_vizwiz.py, eval_vqav2.py", same_but_case},
    ProfileRule{"coin", "gqa", kGqa, "GQA eval.py", quirks::gqa, nullptr, kById, Repeats::last, kGolds, true},
    ProfileRule{"coin", "imagenet", kPart, "CoIN eval_ImagetNet.py", part_of_either, nullptr, kByPosition},
    ProfileRule{"coin", "iou", kBox, "CoIN eval_grounding.py", coin_box},
    ProfileRule{"coin", "letter",
                "letter, \"X. \", else the first word of one character; missing ones are wrong",
                "CoIN eval_science_qa.py", coin_letter, nullptr, kById, Repeats::last, kGolds},
    ProfileRule{"coin", "ocr", kOcr, "CoIN eval_ocrvqa.py", ocrvqa},
    ProfileRule{"coin", "vqa_soft", kSoft, "LLaVA m4c_evaluator.py", m4c_soft},

    ProfileRule{"sefe", "exact", kEqual, "SEFE eval_vizwiz.py, eval_vqav2.py", same_but_case},
    ProfileRule{"sefe", "gqa", kGqa, "SEFE eval_gqa.py", quirks::gqa, nullptr, kById, Repeats::last,
                kPredictions, true},
    ProfileRule{"sefe", "imagenet", kPart, "SEFE eval_imagenet.py", part_of_either, nullptr, kByPosition},
    ProfileRule{"sefe", "iou", kBox, "SEFE eval_grounding.py", coin_box},
    ProfileRule{"sefe", "letter",
                "letter, \"X. \", else the one \"The answer is X.\"; missing ones do not count",
                "SEFE eval_science_qa.py", sefe_letter, nullptr, kById, Repeats::last, kPredictions},
    ProfileRule{"sefe", "ocr", kOcr, "SEFE eval_ocrvqa.py", ocrvqa},
    ProfileRule{"sefe", "vqa_soft", kSoft, "LLaVA m4c_evaluator.py", m4c_soft},

    ProfileRule{"mcitlib", "caption", kCaptions, "MCITlib eval_caption.py", nullptr, score_captions},
    ProfileRule{"mcitlib", "contained", kInGold, "FCIT", part_of_gold},
    ProfileRule{"mcitlib", "domain_fin", "lower case without spaces and stops, equal",
                "MCITlib, MLLM-CL eval_finvis.py", dcl_fin},
    ProfileRule{"mcitlib", "domain_med", "the gold is a part of the answer", "MLLM-CL eval_pvqa.py", dcl_med},
    ProfileRule{"mcitlib", "domain_rs",
                "a part of the answer; a gold of one word needs a blank or comma beside it",
                "MCITlib, tasks RS and AD", dcl_rs},
    ProfileRule{"mcitlib", "domain_sci",
                "equal, part or share of a list, blanks kept, by the picture's source", "MLLM-CL eval_sci.py",
                dcl_sci},
    ProfileRule{"mcitlib", "exact", kEqual, "MCITlib eval_deepseek_r1.py without its judge", same_but_case},
    ProfileRule{"mcitlib", "ocrbench", "a gold is a part of the answer; formulas with their case",
                "MLLM-CL eval_ocr.py", acl_ocrbench},
    ProfileRule{"mcitlib", "sat", "the gold is a part of the answer, both without spaces and stops",
                "MLLM-CL eval_sat.py", acl_sat},
    ProfileRule{"mcitlib", "vqa_soft", kSoft, "LLaVA m4c_evaluator.py", m4c_soft},

    ProfileRule{"prism", "anls_soft", "best edit similarity in lower case, no threshold", "Prism", soft_anls},
    ProfileRule{"prism", "exact", kEqual, "CoIN eval_vizwiz.py, eval_vqav2.py", same_but_case},
    ProfileRule{"prism", "imagenet", kPart, "CoIN eval_ImagetNet.py", part_of_either, nullptr, kByPosition},
    ProfileRule{"prism", "iou", "first four numbers anywhere, IoU > 0.5", "Prism", prism_box},
    ProfileRule{"prism", "letter", "as sefe, letters of test.json, the number of choices does not matter",
                "Prism", prism_letter, nullptr, kById, Repeats::last, kPredictions},
    ProfileRule{"prism", "ocr", kOcr, "CoIN eval_ocrvqa.py", ocrvqa},
    ProfileRule{"prism", "vqa_soft", kSoft, "LLaVA m4c_evaluator.py", m4c_soft},

    ProfileRule{"hide", "caption", kCaptions, "HiDe-LLaVA eval_caption.py", nullptr, score_captions},
    ProfileRule{"hide", "contained", kInGold, "FCIT", part_of_gold},
    ProfileRule{"hide", "exact", kEqual, "HiDe-LLaVA eval_deepseek_r1.py without its judge", same_but_case},
    ProfileRule{"hide", "gqa", kGqa, "GQA eval.py", quirks::gqa, nullptr, kById, Repeats::last, kGolds, true},
    ProfileRule{"hide", "imagenet", kPart, "CoIN eval_ImagetNet.py", part_of_either, nullptr, kByPosition},
    ProfileRule{"hide", "iou", kBox, "CoIN eval_grounding.py", coin_box},
    ProfileRule{"hide", "letter", "as coin", "CoIN eval_science_qa.py", coin_letter, nullptr, kById,
                Repeats::last, kGolds},
    ProfileRule{"hide", "ocr", kOcr, "CoIN eval_ocrvqa.py", ocrvqa},
    ProfileRule{"hide", "vqa_soft", kSoft, "LLaVA m4c_evaluator.py", m4c_soft}};

}  // namespace

std::span<const std::string_view> profile_names() { return kProfiles; }

std::span<const ProfileRule> profile_rules() { return kRules; }

ProfileRule find_rule(std::string_view profile, const Scorer& scorer) {
  const auto known = std::find(kProfiles.begin(), kProfiles.end(), profile);
  if (known == kProfiles.end())
    throw ConfigError("profile", "'" + std::string(profile) + "' is not known",
                      suggestion(profile, {kProfiles.begin(), kProfiles.end()}));
  const auto found = std::find_if(kRules.begin(), kRules.end(), [&](const ProfileRule& rule) {
    return rule.profile == profile && rule.scorer == scorer.name;
  });
  if (found != kRules.end()) return *found;
  ProfileRule rule{*known, scorer.name, scorer.summary, "", scorer.score, scorer.corpus};
  rule.repeats = Repeats::first;
  rule.denominator = Denominator::golds;
  rule.as_strict = profile != "strict";
  return rule;
}

}  // namespace mcit
