#pragma once
/// METEOR, its exact stage: words match words that are spelt the same.

#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace mcit {

/// What METEOR counts; sums of rows give the score of a corpus.
struct MeteorCounts {
  std::size_t answer = 0, reference = 0;  ///< words
  std::size_t matches = 0, chunks = 0;    ///< aligned words, and runs of them in both orders

  /// The answer is its reference, word for word: nothing is scattered.
  bool same() const { return matches == answer && matches == reference && chunks <= 1; }
  MeteorCounts& operator+=(const MeteorCounts& other);
  /// METEOR 1.5 (Denkowski and Lavie, 2014) with its constants for English, alpha 0.85, beta 0.2, gamma 0.6,
  /// every word of the same weight (delta 0.5): F = P R / (alpha P + (1 - alpha) R), less
  /// gamma (chunks / matches)^beta of it.
  double score() const;
};

/// The alignment with the most matches, then the fewest chunks, then the shortest way between positions;
/// among several references the one of the best score. Searched with a beam of 256 partial alignments.
MeteorCounts meteor_counts(const std::vector<std::string>& answer,
                           std::span<const std::vector<std::string>> references);

}  // namespace mcit
