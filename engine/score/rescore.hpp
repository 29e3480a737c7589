#pragma once
/// A run's stored predictions under another scoring profile: what `mcit rescore` does.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/result.hpp"
#include "score/profiles.hpp"

namespace mcit {

/// Rows of the last stage that are scored otherwise than before.
struct Changed {
  std::int64_t better = 0, worse = 0;
};

struct RescoredTask {
  std::string name;
  ProfileRule rule;
  std::string kept{};                     ///< why the profile's rule could not be used; empty when it was
  std::optional<double> before, after{};  ///< percent after the last stage
  std::map<std::string, Changed> why{};   ///< "empty answer", "case or stop", "parse", "other rule"
  std::optional<double> followed{};  ///< percent of answers with the form asked for, after the last stage
};

struct Rescored {
  RunResult result;  ///< of the run, its matrices, counts and split computed anew
  std::vector<RescoredTask> tasks;
  std::string profile;

  std::optional<double> followed() const;  ///< MIF: mean of the tasks'
};

/// @param scorers task -> scorer, for runs whose result.json does not name them, or to try another
/// @throws ConfigError, DataError for a run without predictions
Rescored rescore(const std::filesystem::path& run, const std::string& profile,
                 const std::map<std::string, std::string>& scorers);

/// RUN/rescored/<profile>.json: result.json with `profile`, `rules` and `mif`; mcit metrics reads it.
void write_rescored(const std::filesystem::path& run, const Rescored& rescored);

}  // namespace mcit
