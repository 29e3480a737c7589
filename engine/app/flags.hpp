#pragma once
/// Flags that several subcommands take.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/grid_run.hpp"
#include "core/config.hpp"

namespace CLI {
class App;
}

namespace mcit {

/// What `run` and `federate` are told on the command line.
struct RunFlags {
  std::string config, suite, strategy, out, resume, model, data, device;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> sets, plugin_dirs, order;
  std::int64_t stop_after = 0;

  /// Whether anything is given that a resumed run has in its settings already.
  bool settings_given() const;
};

/// CONFIG and the flags that put settings over it; suite and order are the caller's.
void add_setting_flags(CLI::App& command, RunFlags& flags, const char* set);
/// The same, and the flags of a run in a folder of its own; suite and order are the caller's. @param out,
/// set, stop_after their help
void add_run_flags(CLI::App& command, RunFlags& flags, const char* out, const char* set,
                   const char* stop_after);
/// Settings with the flags put over them; plugin folders stand in front of the file's.
Config with_flags(Config config, const RunFlags& flags);

/// --jobs, --devices and --plugin-dir of subcommands that start runs.
void add_grid_flags(CLI::App& command, GridOptions& grid, std::vector<std::string>& plugin_dirs);

/// The command line of this process, as typed.
std::string typed_command();

}  // namespace mcit
