#pragma once
/// Scoring profiles: what the evaluation files of other projects do to the same answers, faults included.

#include <span>
#include <string_view>

#include "score/scorers.hpp"

namespace mcit {

/// How predictions find their gold answers.
enum class Pairing { by_id, by_position };
/// What becomes of a second prediction of one id.
enum class Repeats { first, last, each };
/// What a sum of row scores is divided by: rows that can be scored, or predictions that were.
enum class Denominator { golds, predictions };

/// What a profile does in place of a strict scorer.
struct ProfileRule {
  std::string_view profile;
  std::string_view scorer;  ///< name of the strict scorer that it stands for
  std::string_view says;    ///< one line
  std::string_view source;  ///< file of the project
  RowRule score = nullptr;
  CorpusRule corpus = nullptr;
  Pairing pairing = Pairing::by_id;
  Repeats repeats = Repeats::each;
  Denominator denominator = Denominator::predictions;
  bool balanced_only = false;  ///< rows that say isBalanced: false do not count
  bool as_strict = false;      ///< the profile has no rule of its own
};

/// "strict" first.
std::span<const std::string_view> profile_names();
/// Every rule that is not strict's, by profile and scorer.
std::span<const ProfileRule> profile_rules();
/// The profile's rule, or strict's with as_strict set. @throws ConfigError for an unknown profile
ProfileRule find_rule(std::string_view profile, const Scorer& scorer);

}  // namespace mcit
