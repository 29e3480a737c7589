#pragma once
/// Scorers: one prediction against its gold answers, by name. All of them are the `strict` profile: rules
/// that are the same for every fork of a benchmark, and an empty prediction is never right.

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mcit {

/// The verdict on one row.
struct Score {
  double value = 0;          ///< 0..1; the mean over rows times 100 is a cell of the accuracy matrix
  bool well_formed = false;  ///< the answer has the form the task asked for, right or wrong
  std::optional<double> second = std::nullopt;  ///< 0..1, what Scorer::second_name says
  std::string note = {};  ///< why the answer could not be right ("empty answer", "no box"); else empty
};

/// What a scorer may see of the row besides prediction and golds.
struct ScoreContext {
  std::vector<std::string>
      options;              ///< multiple choice: the options' texts in letter order, if the record has them
  std::string_view prompt;  ///< else they are read from here, see lettered_options()
};

/// A named scorer; a plain value of the table scorers().
struct Scorer {
  std::string_view name;
  std::string_view summary;      ///< one line for listings
  std::string_view second_name;  ///< what Score::second is, or empty
  /// @param prediction the decoded answer, UTF-8 (malformed bytes are compared as they are)
  /// @param golds the accepted answers; how many depends on the scorer
  /// @throws DataError if the golds have not the form or number the scorer needs
  Score (*score)(std::string_view prediction, std::span<const std::string> golds,
                 const ScoreContext& context);
};

/// Every scorer, sorted by name:
///
/// | name      | right if                                                                    | golds  |
/// |-----------|-----------------------------------------------------------------------------|--------|
/// | exact     | equal, ignoring case, surrounding white space and one final "."             | 1      |
/// | exact_any | as `exact` for any gold                                                     | >= 1   |
/// | iou       | the first four numbers, x1 y1 x2 y2, overlap the gold box with IoU > 0.5     | 1 box  |
/// | iou_bins  | the same for inclusive grid cells, so that "3 3 3 3" is one cell            | 1 box  |
/// | letter    | names the gold option by letter or by text                                  | 1      |
/// | ocr       | as `exact`; second number 1 - character error rate                          | 1      |
/// | token_f1  | F1 of the answers' words, best gold; second number exact match              | >= 1   |
/// | vqa_soft  | VQA soft accuracy of 10 human answers, equality with a single one           | 1 / 10 |
std::span<const Scorer> scorers();

/// The scorer called `name`. @throws ConfigError naming the nearest known name
const Scorer& find_scorer(std::string_view name);

/// The options of a multiple-choice prompt: the texts behind "A." "B." … or "(A)" "(B)" …, from A on and in
/// order, on lines of their own or in one line. Empty if there are fewer than two.
std::vector<std::string> lettered_options(std::string_view prompt);

}  // namespace mcit
