#pragma once
/// What `run` and `federate` are set up from, alike.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "app/flags.hpp"
#include "app/workload.hpp"
#include "core/launch.hpp"
#include "metrics/result.hpp"
#include "plugin/catalogue.hpp"

namespace mcit {

/// The settings that say on what, with which strategy and where.
struct RunSettings {
  std::string suite, model, device, dtype, strategy, prompt_template;
  std::vector<std::string> order;
  std::filesystem::path data, out, adapter;
  std::uint64_t seed = 1;
  double peer_timeout = 600.0;  ///< seconds that one process of a group waits for another
  std::int64_t threads = 0, loader_threads = 1, feature_memory_mb = 2048;
  std::optional<bool> pad_square;  ///< instead of the suite's
  std::vector<std::filesystem::path> plugin_path;
  std::map<std::string, Params::Value> params;  ///< of the strategy

  static RunSettings read(const Config& config);
  WorkloadOptions workload(const Suite& suite, at::Device on) const;
  /// "cuda" is the GPU of this process's place on its machine.
  std::string device_of(const Launch& launch) const;
  /// For set_threads(): where nothing says how many, the processes of a machine share its cores.
  std::int64_t threads_of(const Launch& launch) const;
  std::string suite_name() const;  ///< without folder and ending where it is a file
};

/// The settings of a fresh run hold the command line's plugin folders already; those of a resumed run hold
/// the ones it began with.
Catalogue find_plugins(const RunFlags& flags, const RunSettings& settings);

/// What runs, federations and nodes work with: read and checked before their folders exist, so that what is
/// wrong leaves nothing behind.
struct RunParts {
  /// @throws ConfigError, DataError, CheckpointError
  RunParts(const RunFlags& flags, const RunSettings& settings, const Launch& launch, Suite suite);
  RunParts(const RunParts&) = delete;
  RunParts& operator=(const RunParts&) = delete;

  Suite suite;
  at::Device device;
  int threads;
  Catalogue catalogue;
  const PluginReport& provider;  ///< of the strategy
  Workload work;
  Params params;  ///< of the strategy
};
/// The suite that the settings name, in their order of tasks.
Suite open_suite(const RunSettings& settings);

/// The group that this process was started in. All but the first process are silent from here on, but for
/// errors.
std::unique_ptr<Group> join_launch(const Launch& launch);

/// The folder that a process other than the first writes what the first one writes, made like its and gone
/// with it.
class Mirror {
 public:
  /// @param of the first process's folder, to go on with; or empty
  explicit Mirror(const std::filesystem::path& of);
  Mirror(const Mirror&) = delete;
  Mirror& operator=(const Mirror&) = delete;
  ~Mirror();
  const std::filesystem::path& root() const { return root_; }

 private:
  std::filesystem::path root_;
};

/// What the result says before the first stage.
/// @param command as typed @param config the settings in effect, as the run's folder keeps them
RunResult head_of(const RunSettings& settings, const Suite& suite, const Workload& work,
                  const PluginReport& provider, int threads, const std::string& command,
                  const std::string& config, const Group& group = no_group());

}  // namespace mcit
