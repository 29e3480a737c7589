#pragma once
/// What `run` and `federate` are set up from, alike.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "app/flags.hpp"
#include "app/workload.hpp"
#include "metrics/result.hpp"
#include "plugin/catalogue.hpp"

namespace mcit {

/// The settings that say on what, with which strategy and where.
struct RunSettings {
  std::string suite, model, device, dtype, strategy, prompt_template;
  std::vector<std::string> order;
  std::filesystem::path data, out, adapter;
  std::uint64_t seed = 1;
  std::int64_t threads = 0, loader_threads = 1, feature_memory_mb = 2048;
  std::optional<bool> pad_square;  ///< instead of the suite's
  std::vector<std::filesystem::path> plugin_path;
  std::map<std::string, Params::Value> params;  ///< of the strategy

  static RunSettings read(const Config& config);
  WorkloadOptions workload(const Suite& suite, at::Device on) const;
  std::string suite_name() const;  ///< without folder and ending where it is a file
};

/// The settings of a fresh run hold the command line's plugin folders already; those of a resumed run hold
/// the ones it began with.
Catalogue find_plugins(const RunFlags& flags, const RunSettings& settings);

/// What the result says before the first stage.
/// @param command as typed @param config the settings in effect, as the run's folder keeps them
RunResult head_of(const RunSettings& settings, const Suite& suite, const Workload& work,
                  const PluginReport& provider, int threads, const std::string& command,
                  const std::string& config);

}  // namespace mcit
