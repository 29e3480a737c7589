#pragma once
/// Scorers: predictions against their gold answers, by name. All of them are the `strict` profile: rules that
/// are the same for every fork of a benchmark, and an empty prediction is never right. What forks do instead
/// stands in score/profiles.hpp.

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace mcit {

/// The verdict on one row.
struct Score {
  double value = 0;          ///< 0..1 (CIDEr: 0..10); see Scorer for how rows make a cell
  bool well_formed = false;  ///< the answer has the form the task asked for, right or wrong
  std::optional<double> second = std::nullopt;  ///< what Scorer::second_name says
  std::string_view note = {};  ///< why the answer could not be right ("empty answer", "no box"); else empty
};

/// What a rule may see of the row besides prediction and golds.
struct ScoreContext {
  std::vector<std::string>
      options{};              ///< multiple choice: the options' texts in letter order, if the record has them
  std::string_view prompt{};  ///< else they are read from here, see lettered_options()
  std::string_view image{};   ///< path or name of the picture
  std::string_view category{};  ///< the record's answer_type or type
  double scale = 1;             ///< larger side of the picture, where boxes are compared in pixels
};

/// One row of a corpus.
struct CorpusRow {
  std::string_view prediction;
  std::span<const std::string> golds;
};

/// The verdict on all rows of a task together.
struct CorpusScore {
  double percent = 0;
  std::vector<Score> rows{};                                 ///< each row by itself
  std::vector<std::pair<std::string_view, double>> parts{};  ///< what `percent` is made of, in percent
};

/// Which of SMoLoRA's three rules says whether an answer has the form that was asked for (score/form.hpp).
enum class Form { short_answer, caption, letter };

/// @param prediction the decoded answer, UTF-8 (malformed bytes are compared as they are)
/// @param golds the accepted answers; how many depends on the rule
/// @throws DataError if the golds have not the form or number the rule needs
using RowRule = Score (*)(std::string_view prediction, std::span<const std::string> golds,
                          const ScoreContext& context);
/// @throws DataError as RowRule
using CorpusRule = CorpusScore (*)(std::span<const CorpusRow> rows);

/// A named scorer; a plain value of the table scorers(). It has one rule of the two: a cell is 100 times the
/// mean of the rows' values, or what the corpus rule says of all rows.
struct Scorer {
  std::string_view name;
  std::string_view summary;      ///< one line for listings
  std::string_view second_name;  ///< what Score::second is, or empty
  RowRule score = nullptr;
  CorpusRule corpus = nullptr;
  Form form = Form::short_answer;
};

/// Every scorer, sorted by name; docs/reference/scoring.md has rule and golds of each.
std::span<const Scorer> scorers();

/// The scorer called `name`. @throws ConfigError naming the nearest known name
const Scorer& find_scorer(std::string_view name);

/// The options of a multiple-choice prompt: the texts behind "A." "B." … or "(A)" "(B)" …, from A on and in
/// order, on lines of their own or in one line. Empty if there are fewer than two.
std::vector<std::string> lettered_options(std::string_view prompt);

}  // namespace mcit
