#pragma once
/// The conformance suite: what every plugin must hold to, ours or a stranger's, checked on a backbone of a
/// few thousand numbers in about a second a strategy.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "mcit/params.hpp"

namespace mcit {

enum class Outcome {
  passed,
  warning,  ///< allowed, but the author should know
  failed,
  skipped,  ///< does not apply, or an earlier failure left nothing to check
};
std::string_view outcome_name(Outcome outcome);  ///< "pass", "warning", "FAIL", "skip"

struct CheckResult {
  std::string strategy;  ///< empty for what concerns the file
  std::string check;     ///< what must hold, as a sentence
  Outcome outcome = Outcome::passed;
  std::string detail;  ///< what was found instead, one line
};

struct ConformanceOptions {
  std::string strategy;  ///< only this one; empty = all of the file
  Params params;         ///< the strategy's settings
  std::uint64_t seed = 1;
  std::function<void(const std::string& strategy, const std::string& check)>
      on_begin;  ///< for whoever wants to know what crashed
  std::function<void(const CheckResult&)> on_result;
};

/// Runs all checks. Exceptions of the plugin are results; a plugin that crashes takes the process with it.
/// @throws PluginError when options.strategy is not in the file.
std::vector<CheckResult> check_plugin(const std::filesystem::path& file,
                                      const ConformanceOptions& options = {});

/// Whether nothing failed.
bool conforms(const std::vector<CheckResult>& results);

}  // namespace mcit
