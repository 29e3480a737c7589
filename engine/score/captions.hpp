#pragma once
/// Metrics of whole sets of captions, as pycocoevalcap computes them.

#include <array>
#include <span>
#include <string>
#include <vector>

#include "score/scorers.hpp"

namespace mcit {

/// One picture: the answer's words and those of its references.
struct Caption {
  std::vector<std::string> answer;
  std::vector<std::vector<std::string>> references;  ///< at least one
};

/// BLEU-1 to BLEU-4 of all captions together and of each alone (Papineni et al. 2002): n-gram counts clipped
/// by the best reference, brevity by the reference of the closest length (by the mean length when there is
/// only one caption, as the original has it).
struct Bleu {
  std::array<double, 4> corpus{};
  std::vector<std::array<double, 4>> rows;
};
Bleu bleu(std::span<const Caption> captions);

/// CIDEr of each caption (Vedantam et al. 2015, CIDEr-D): 10 times the mean over n = 1..4 of the clipped
/// cosine of tf-idf vectors, less for a difference of lengths (sigma 6); document frequencies over the
/// references of all captions. The corpus has their mean.
std::vector<double> cider(std::span<const Caption> captions);

/// ROUGE-L of a caption: F with beta 1.2 of the best precision and the best recall over the references. An
/// empty answer has 0.
double rouge_l(const Caption& caption);

/// Rules of the table: the mean of BLEU-1..4, METEOR's exact stage, ROUGE-L and CIDEr, times 100 (UCIT), and
/// CIDEr times 100 against each picture's best reference (CVIT).
CorpusScore score_captions(std::span<const CorpusRow> rows);
CorpusScore score_cider_best(std::span<const CorpusRow> rows);

}  // namespace mcit
