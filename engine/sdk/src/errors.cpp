#include "mcit/errors.hpp"

#include <algorithm>
#include <numeric>

namespace mcit {
namespace {

std::string sentence(std::string_view where, std::string_view what, std::string_view hint) {
  std::string text;
  if (!where.empty()) text.append(where).append(": ");
  text.append(what);
  if (!hint.empty()) text.append("; ").append(hint);
  return text;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

Error::Error(std::string_view where, std::string_view what, std::string_view hint)
    : std::runtime_error(sentence(where, what, hint)) {}

// Key functions: the one copy of each type's identity, shared by the engine and every plugin.
Error::~Error() = default;
ConfigError::~ConfigError() = default;
DataError::~DataError() = default;
CheckpointError::~CheckpointError() = default;
PluginError::~PluginError() = default;
StrategyError::~StrategyError() = default;

std::string cause_of(const std::exception& thrown) {
  const std::string_view text = thrown.what();
  return std::string(text.substr(0, text.find("\nException raised from ")));
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string near = nearest(word, candidates);
  if (!near.empty()) return "did you mean '" + near + "'?";
  if (candidates.empty()) return "none is known";
  std::string text = "known: ";
  for (std::size_t i = 0; i < candidates.size(); ++i) text.append(i == 0 ? "" : ", ").append(candidates[i]);
  return text;
}

}  // namespace mcit
