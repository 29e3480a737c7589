#pragma once
/// Predictions in files against gold answers in files: what `mcit score` does.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "score/faults.hpp"
#include "score/gold_file.hpp"
#include "score/profiles.hpp"

namespace mcit {

struct ScoreRequest {
  std::filesystem::path gold;  ///< empty: the predictions carry their golds, as those of a run do
  GoldSplit split{};
  std::vector<std::filesystem::path> predictions;  ///< shards of one test set, in order
  std::string scorer = "exact";
  std::string profile = "strict";
  bool by_position = false;      ///< whatever the profile says
  std::filesystem::path rows{};  ///< a line for each scored prediction goes here; empty: nowhere
};

struct GroupScore {
  double sum = 0;
  std::int64_t rows = 0;
};

struct ScoreReport {
  Scorer scorer;
  ProfileRule rule;
  double percent = 0;
  double sum = 0;                ///< of the rows' values
  std::int64_t denominator = 0;  ///< percent = 100 sum / denominator, but for corpus scorers
  std::int64_t golds = 0, predictions = 0, scored = 0;
  std::int64_t followed = 0;                            ///< rows whose answer has the form asked for (MIF)
  std::optional<double> second{};                       ///< mean of Scorer::second_name, in percent
  std::vector<std::pair<std::string, double>> parts{};  ///< of a corpus score, in percent
  std::map<std::string, std::int64_t> notes{};          ///< why answers could not be right
  std::map<std::string, GroupScore> groups{};           ///< by the gold rows' category
  Faults faults{};
};

/// Rows are streamed; a corpus scorer keeps the texts of all of them.
/// @param progress told the bytes of predictions read so far
/// @throws ConfigError for names, DataError for files that cannot be read as a whole
ScoreReport score_files(const ScoreRequest& request, const std::function<void(std::uint64_t)>& progress = {});

}  // namespace mcit
