#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "core/console.hpp"
#include "core/json.hpp"
#include "plugin/catalogue.hpp"
#include "report/table.hpp"

namespace mcit {
namespace {

struct Flags {
  std::vector<std::string> dirs;
  bool json = false, all = false;
};

Json as_json(const PluginReport& report) {
  Json strategies = Json::array();
  for (const ProvidedStrategy& s : report.strategies) {
    Json entry = {{"name", s.name}, {"summary", s.summary}};
    if (!s.shadowed_by.empty()) entry["shadowed_by"] = s.shadowed_by.string();
    strategies.push_back(entry);
  }
  return {{"file", report.file.string()}, {"status", status_name(report.status)},
          {"reason", report.reason},      {"name", report.name},
          {"version", report.version},    {"build_tag", report.build_tag},
          {"hash", report.hash},          {"strategies", strategies}};
}

void print_table(const Catalogue& catalogue, bool all) {
  Table table({{"strategy", false},
               {"plugin", false},
               {"version", false},
               {"file", false},
               {"what it is, or why it was not taken", false}});
  for (const PluginReport& report : catalogue.reports()) {
    const std::string file = report.file.filename().string();
    if (report.status == PluginStatus::loaded) {
      for (const ProvidedStrategy& s : report.strategies) {
        const bool usable = s.shadowed_by.empty();
        table.row({{s.name, usable},
                   {report.name},
                   {report.version},
                   {file},
                   {usable ? s.summary : "shadowed by " + s.shadowed_by.string()}});
      }
    } else if (all || report.status == PluginStatus::refused) {
      table.row({{"–"},
                 {report.name},
                 {report.version},
                 {file},
                 {std::string(status_name(report.status)) + ": " + report.reason}});
    }
  }
  constexpr int kUnbroken = 1000;  // a long line is easier to read than a table in pieces
  std::cout << table.terminal(kUnbroken, console::colours(console::Stream::out));
  std::cout << "\nSearched:\n";
  for (const PluginFolder& folder : catalogue.folders())
    std::cout << "  " << folder.path.string() << "  (" << folder.origin << ")\n";
}

void list_plugins(const Flags& flags) {
  const Catalogue catalogue(plugin_folders({flags.dirs.begin(), flags.dirs.end()}));
  if (!flags.json) return print_table(catalogue, flags.all);
  Json plugins = Json::array(), folders = Json::array();
  for (const PluginReport& report : catalogue.reports()) plugins.push_back(as_json(report));
  for (const PluginFolder& folder : catalogue.folders())
    folders.push_back({{"path", folder.path.string()}, {"origin", folder.origin}});
  std::cout << dump_json({{"folders", folders}, {"plugins", plugins}}, 2) << "\n";
}

}  // namespace

void add_plugins(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("plugins", "Strategies that can be run, and plugin files that were refused");
  command->add_option("--plugin-dir", flags->dirs, "Folder to search first (repeatable)")->type_name("DIR");
  command->add_flag("--all", flags->all,
                    "Also shared libraries that are no plugins, and second paths to the same file");
  command->add_flag("--json", flags->json, "Everything that is known, as JSON");
  command->footer(
      "Search order: --plugin-dir, MCIT_PLUGIN_PATH, then lib/mcit/plugins beside the executable's folder.\n"
      "Example:\n  mcit plugins --plugin-dir ~/my-plugins");
  command->callback([flags] { list_plugins(*flags); });
}

}  // namespace mcit
