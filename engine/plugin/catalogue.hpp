#pragma once
/// Which plugins there are, which strategies they provide, and why a file was not taken.

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

struct mcit_strategy_entry;

namespace mcit {

class Host;
class Params;
class Strategy;

/// Gives a strategy back to the plugin that made it.
struct StrategyDeleter {
  void (*destroy)(Strategy*) = nullptr;
  void operator()(Strategy* strategy) const { destroy(strategy); }
};
using StrategyPtr = std::unique_ptr<Strategy, StrategyDeleter>;

enum class PluginStatus {
  loaded,   ///< its strategies can be made
  refused,  ///< meant as a plugin, but unusable here
  foreign,  ///< a shared library that is no plugin of this engine
  alias,    ///< another path to a file that was met before
};
std::string_view status_name(PluginStatus status);  ///< "loaded", "refused", "not a plugin", "alias"

struct ProvidedStrategy {
  std::string name;
  std::string summary;
  std::filesystem::path
      shadowed_by;  ///< the file earlier in the search path that provides this name; empty = usable
};

/// What became of one file or folder of the search path.
struct PluginReport {
  std::filesystem::path file;
  PluginStatus status = PluginStatus::refused;
  std::string reason;  ///< why it was not taken, one line; empty when loaded
  std::string name;    ///< of the plugin, once its descriptor was read
  std::string version;
  std::string build_tag;  ///< once its section was read
  std::string hash;       ///< of the file's bytes, for provenance
  std::vector<ProvidedStrategy> strategies;
};

/// A folder to search. Only a `named` one is expected to exist.
struct PluginFolder {
  std::filesystem::path path;
  std::string origin;  ///< "--plugin-dir", "[plugins] path", "MCIT_PLUGIN_PATH" or "built in"
  bool named = true;
};

/// The search path: --plugin-dir, [plugins] path, MCIT_PLUGIN_PATH, <executable>/../lib/mcit/plugins, in this
/// order.
std::vector<PluginFolder> plugin_folders(const std::vector<std::filesystem::path>& command_line,
                                         const std::vector<std::filesystem::path>& configured = {});

/// Opens every *.so of the folders, sorted by name, not recursively. A bad file costs a report, never an
/// exception. The first folder that provides a strategy name wins; twice in one folder refuses both files.
class Catalogue {
 public:
  explicit Catalogue(std::vector<PluginFolder> folders);
  /// A single file, for checking it.
  static Catalogue of_file(const std::filesystem::path& file);

  const std::vector<PluginFolder>& folders() const { return folders_; }
  const std::vector<PluginReport>& reports() const { return reports_; }
  std::vector<std::string> strategies() const;  ///< usable names, in alphabetical order

  /// Logs one line for each refused file and each shadowed strategy (warnings), and each foreign file
  /// (debug).
  void announce() const;

  /// The report of the file that provides the strategy. @throws PluginError as create() does.
  const PluginReport& provider(std::string_view strategy) const;

  /// Makes a strategy and checks that it knows every parameter it was given. `host` must outlive it.
  /// @throws PluginError when no plugin provides it, with near names and the files that were refused;
  ///         ConfigError for its parameters; StrategyError when its constructor fails in another way.
  StrategyPtr create(std::string_view strategy, const Params& params, Host& host) const;

 private:
  struct Provided {
    std::size_t report = 0;
    const mcit_strategy_entry* entry = nullptr;
  };
  Catalogue() = default;
  void scan(const PluginFolder& folder);
  void add(std::vector<struct GatedPlugin> plugins);
  const Provided& find(std::string_view strategy) const;

  std::vector<PluginFolder> folders_;
  std::vector<PluginReport> reports_;
  std::map<std::string, Provided, std::less<>> provided_;
};

}  // namespace mcit
