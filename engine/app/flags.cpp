#include "app/flags.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/json.hpp"

namespace mcit {

bool RunFlags::settings_given() const {
  return !config.empty() || !suite.empty() || !strategy.empty() || !out.empty() || !model.empty() ||
         !data.empty() || !device.empty() || seed || !sets.empty() || !order.empty();
}

void add_setting_flags(CLI::App& command, RunFlags& flags, const char* set) {
  command.add_option("CONFIG", flags.config, "Settings as TOML; flags win over the file")
      ->type_name("")
      ->check(CLI::ExistingFile);
  command.add_option("--strategy", flags.strategy, "Name of a strategy (mcit plugins lists them)")
      ->type_name("NAME");
  command.add_option("--seed", flags.seed, "Seed of everything random [1]")->type_name("N");
  command.add_option("--model", flags.model, "Model folder in Hugging Face form, or mini [mini]")
      ->type_name("DIR|NAME");
  command.add_option("--data,--root", flags.data, "Folder with the suite's files [in MCIT_DATA's folders]")
      ->type_name("DIR");
  command.add_option("--device", flags.device, "cpu, cuda or cuda:N [cpu]")->type_name("NAME");
  command.add_option("--set", flags.sets, set)->type_name("KEY=VALUE")->take_all();
  command.add_option("--plugin-dir", flags.plugin_dirs, "Folder of strategy plugins (repeatable)")
      ->type_name("DIR");
}

void add_run_flags(CLI::App& command, RunFlags& flags, const char* out, const char* set,
                   const char* stop_after) {
  add_setting_flags(command, flags, set);
  command.add_option("--out", flags.out, out)->type_name("DIR");
  command.add_option("--resume", flags.resume, "Go on with the run in this folder")->type_name("DIR");
  command.add_option("--stop-after", flags.stop_after, stop_after)->type_name("N");
}

Config with_flags(Config config, const RunFlags& flags) {
  const auto set = [&](const std::string& key, const std::string& value) {
    if (!value.empty()) config.set(key + "=" + Json(value).dump());
  };
  set("suite", flags.suite);
  set("strategy.name", flags.strategy);
  set("model", flags.model);
  set("device", flags.device);
  if (!flags.data.empty()) set("data", std::filesystem::absolute(flags.data).string());
  if (!flags.out.empty()) set("out", std::filesystem::absolute(flags.out).string());
  if (flags.seed) config.set("seed=" + std::to_string(*flags.seed));
  if (!flags.order.empty()) config.set("order=" + Json(flags.order).dump());
  for (const std::string& assignment : flags.sets) config.set(assignment);
  std::vector<std::string> folders;
  for (const std::string& folder : flags.plugin_dirs)
    folders.push_back(std::filesystem::absolute(folder).lexically_normal().string());
  for (const std::filesystem::path& folder : config.child("plugins").paths("path"))
    folders.push_back(folder.string());
  if (!folders.empty()) config.set("plugins.path=" + Json(folders).dump());
  return config;
}

void add_grid_flags(CLI::App& command, GridOptions& grid, std::vector<std::string>& plugin_dirs) {
  command.add_option("--jobs", grid.jobs, "Runs at a time [usable cores, or the devices given]")
      ->type_name("N");
  command.add_option("--devices", grid.devices, "GPUs that runs are dealt to, e.g. cuda:0,cuda:1")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("NAMES");
  command.add_option("--plugin-dir", plugin_dirs, "Folder of strategy plugins (repeatable)")
      ->allow_extra_args(false)
      ->type_name("DIR");
}

std::string typed_command() {
  std::string line;
  std::ifstream raw("/proc/self/cmdline", std::ios::binary);
  std::getline(raw, line, '\n');
  std::replace(line.begin(), line.end(), '\0', ' ');
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

}  // namespace mcit
