#include "score/scorers.hpp"

#include <algorithm>
#include <array>

#include "mcit/errors.hpp"
#include "score/captions.hpp"
#include "score/rules.hpp"

namespace mcit {
namespace {

using namespace rules;

constexpr std::array kScorers{
    Scorer{"anls", "edit similarity to the best gold, below 0.5 nothing", "", anls},
    Scorer{"anls_soft", "edit similarity to the best gold", "", anls_soft},
    Scorer{"caption", "mean of BLEU-1..4, METEOR (exact stage), ROUGE-L, CIDEr over the test set", "",
           nullptr, score_captions, Form::caption},
    Scorer{"cider_best", "CIDEr over the test set, against each row's best reference", "", nullptr,
           score_cider_best, Form::caption},
    Scorer{"contained", "the answer's words stand in a gold answer", "", contained},
    Scorer{"contains", "a gold answer stands in the answer", "", contains},
    Scorer{"domain_fin", "equal to the gold answer without spaces and full stops (StockQA)", "", domain_fin},
    Scorer{"domain_med", "a gold answer stands in the answer (PathVQA)", "", contains},
    Scorer{"domain_rs", "a gold answer stands in the answer (RSVQA, DriveLM)", "", contains},
    Scorer{"domain_sci", "equal, contained or a share of a list, by the picture's source", "", domain_sci},
    Scorer{"edit_similarity", "1 - edit distance / longer length", "", edit_similarity},
    Scorer{"exact", "equal to the gold answer, ignoring case and a final full stop", "", exact},
    Scorer{"exact_any", "equal to one of the gold answers", "", exact_any},
    Scorer{"first_char", "first letter or digit is that of the gold answer", "", first_char},
    Scorer{"gqa", "equal to the gold answer (GQA)", "", exact},
    Scorer{"imagenet", "gold answer stands in the answer, or the answer in it", "", imagenet},
    Scorer{"iou", "box overlaps the gold box with IoU > 0.5", "IoU", iou},
    Scorer{"iou_bins", "box of inclusive grid cells overlaps the gold box with IoU > 0.5", "IoU", iou_bins},
    Scorer{"iou_ge", "box overlaps the gold box with IoU >= 0.5", "IoU", iou_ge},
    Scorer{"letter", "names the right option by letter or text", "", letter, nullptr, Form::letter},
    Scorer{"ocr", "word read exactly", "1 - CER", ocr},
    Scorer{"ocrbench", "a gold answer's characters stand in the answer (OCRBench)", "", ocrbench},
    Scorer{"relaxed", "number within 5 % of the gold number, else equal", "", relaxed},
    Scorer{"rouge_l", "ROUGE-L F1 of the words, best gold", "", rules::rouge_l, nullptr, Form::caption},
    Scorer{"sat", "the gold answer stands in the answer (SAT)", "", sat},
    Scorer{"token_f1", "F1 of the words", "exact match", token_f1, nullptr, Form::caption},
    Scorer{"vqa_soft", "VQA soft accuracy against ten human answers or one", "", vqa_soft}};

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

}  // namespace mcit
