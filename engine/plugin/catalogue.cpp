#include "plugin/catalogue.hpp"

#include <algorithm>
#include <cstdlib>

#include "core/files.hpp"
#include "core/log.hpp"
#include "mcit/errors.hpp"
#include "mcit/params.hpp"
#include "plugin/gates.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

PluginReport refused_folder(const PluginFolder& folder, const std::string& reason) {
  PluginReport report;
  report.file = folder.path;
  report.reason = "plugin folder (" + folder.origin + ") " + reason;
  return report;
}

/// The *.so entries of the folder in alphabetical order. @throws fs::filesystem_error
std::vector<fs::path> libraries_in(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".so") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

/// The path with all symbolic links resolved, or as it is when that cannot be done.
fs::path identity(const fs::path& path) {
  std::error_code error;
  fs::path resolved = fs::canonical(path, error);
  return error ? path : resolved;
}

/// Files of one folder that provide the same strategy are both refused: neither is meant more than the other.
void refuse_twins(std::vector<GatedPlugin>& plugins) {
  std::map<std::string, std::vector<GatedPlugin*>> providers;
  for (GatedPlugin& plugin : plugins)
    for (const ProvidedStrategy& strategy : plugin.report.strategies)
      providers[strategy.name].push_back(&plugin);
  for (const auto& [name, twins] : providers) {
    if (twins.size() < 2) continue;
    for (GatedPlugin* twin : twins) {
      const GatedPlugin* other = twin == twins[0] ? twins[1] : twins[0];
      twin->report.status = PluginStatus::refused;
      twin->report.reason = "strategy '" + name + "' is also in " + other->report.file.filename().string() +
                            " of the same folder; remove one of them";
    }
  }
}

}  // namespace

std::string_view status_name(PluginStatus status) {
  switch (status) {
    case PluginStatus::loaded:
      return "loaded";
    case PluginStatus::refused:
      return "refused";
    case PluginStatus::foreign:
      return "not a plugin";
    case PluginStatus::alias:
      return "alias";
  }
  return "";
}

std::vector<PluginFolder> plugin_folders(const std::vector<fs::path>& command_line,
                                         const std::vector<fs::path>& configured) {
  std::vector<PluginFolder> folders;
  for (const fs::path& path : command_line) folders.push_back({path, "--plugin-dir"});
  for (const fs::path& path : configured) folders.push_back({path, "[plugins] path"});
  if (const char* list = std::getenv("MCIT_PLUGIN_PATH")) {
    const std::string_view paths = list;
    for (std::size_t begin = 0; begin <= paths.size();) {
      const std::size_t end = std::min(paths.find(':', begin), paths.size());
      if (end > begin) folders.push_back({fs::path(paths.substr(begin, end - begin)), "MCIT_PLUGIN_PATH"});
      begin = end + 1;
    }
  }
  folders.push_back({(executable_dir() / "../lib/mcit/plugins").lexically_normal(), "built in", false});
  return folders;
}

Catalogue::Catalogue(std::vector<PluginFolder> folders) : folders_(std::move(folders)) {
  std::vector<fs::path> seen;
  for (const PluginFolder& folder : folders_) {
    const fs::path resolved = identity(folder.path);
    if (std::find(seen.begin(), seen.end(), resolved) != seen.end()) continue;
    seen.push_back(resolved);
    scan(folder);
  }
}

Catalogue Catalogue::of_file(const fs::path& file) {
  Catalogue catalogue;
  catalogue.add({pass_gates(file)});
  return catalogue;
}

void Catalogue::scan(const PluginFolder& folder) {
  std::vector<fs::path> files;
  try {
    if (!fs::exists(folder.path)) {
      if (folder.named) reports_.push_back(refused_folder(folder, "does not exist"));
      return;
    }
    if (!fs::is_directory(folder.path)) return reports_.push_back(refused_folder(folder, "is not a folder"));
    files = libraries_in(folder.path);
  } catch (const fs::filesystem_error& e) {
    return reports_.push_back(refused_folder(folder, "cannot be read: " + e.code().message()));
  }
  std::vector<GatedPlugin> plugins;
  std::map<fs::path, fs::path> met;  // file behind all links -> the path it was met under
  for (const PluginReport& report : reports_) met.emplace(identity(report.file), report.file);
  for (const fs::path& file : files) {
    const auto [first, fresh] = met.emplace(identity(file), file);
    if (fresh) {
      plugins.push_back(pass_gates(file));
    } else {
      GatedPlugin alias;
      alias.report.file = file;
      alias.report.status = PluginStatus::alias;
      alias.report.reason = "the same file as " + first->second.string();
      plugins.push_back(std::move(alias));
    }
  }
  refuse_twins(plugins);
  add(std::move(plugins));
}

void Catalogue::add(std::vector<GatedPlugin> plugins) {
  for (GatedPlugin& plugin : plugins) {
    if (plugin.report.status == PluginStatus::loaded) {
      for (std::size_t i = 0; i < plugin.strategies.size(); ++i) {
        ProvidedStrategy& strategy = plugin.report.strategies[i];
        const auto [first, fresh] =
            provided_.try_emplace(strategy.name, Provided{reports_.size(), &plugin.strategies[i]});
        if (!fresh) strategy.shadowed_by = reports_[first->second.report].file;
      }
    }
    reports_.push_back(std::move(plugin.report));
  }
}

std::vector<std::string> Catalogue::strategies() const {
  std::vector<std::string> names;
  for (const auto& [name, provided] : provided_) names.push_back(name);
  return names;
}

void Catalogue::announce() const {
  for (const PluginReport& report : reports_) {
    if (report.status == PluginStatus::refused)
      log::warn(report.file.string(), ": ", report.reason);
    else if (report.status != PluginStatus::loaded)
      log::debug(report.file.string(), ": ", report.reason);
    for (const ProvidedStrategy& strategy : report.strategies)
      if (!strategy.shadowed_by.empty())
        log::warn(report.file.string(), ": strategy '", strategy.name, "' is taken from ",
                  strategy.shadowed_by.string(), ", which comes earlier in the search path");
  }
}

const Catalogue::Provided& Catalogue::find(std::string_view strategy) const {
  const auto found = provided_.find(strategy);
  if (found != provided_.end()) return found->second;
  std::string hint = suggestion(strategy, strategies());
  for (const PluginReport& report : reports_)
    if (report.status != PluginStatus::loaded && report.status != PluginStatus::alias)
      hint += "; not taken: " + report.file.string() + " (" + report.reason + ")";
  throw PluginError("strategy '" + std::string(strategy) + "'", "no plugin provides it", hint);
}

const PluginReport& Catalogue::provider(std::string_view strategy) const {
  return reports_[find(strategy).report];
}

StrategyPtr Catalogue::create(std::string_view strategy, const Params& params, Host& host) const {
  const mcit_strategy_entry& entry = *find(strategy).entry;
  const std::string where = "'" + std::string(strategy) + "' in its constructor";
  Strategy* made = nullptr;
  try {
    made = entry.create(params, host);
  } catch (const ConfigError&) {
    throw;
  } catch (const std::exception& e) {
    throw StrategyError(where, cause_of(e));
  } catch (...) {
    throw StrategyError(where, "threw something that is no std::exception");
  }
  if (made == nullptr) throw StrategyError(where, "made nothing");
  StrategyPtr owned(made, StrategyDeleter{entry.destroy});
  params.finish();
  return owned;
}

}  // namespace mcit
