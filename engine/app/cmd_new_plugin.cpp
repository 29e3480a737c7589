#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <filesystem>
#include <iostream>
#include <memory>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/files.hpp"
#include "mcit/abi.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

/// The project's files lie in share/mcit/new_plugin; in them and in their names, @name@ and @Class@ are
/// filled in.
std::string filled(std::string text, const std::string& name, const std::string& class_name,
                   const std::string& cmake_dir) {
  for (const auto& [hole, value] : {std::pair<std::string, std::string>{"@name@", name},
                                    {"@Class@", class_name},
                                    {"@mcit_DIR@", cmake_dir},
                                    {"@version@", MCIT_VERSION}})
    for (auto at = text.find(hole); at != std::string::npos; at = text.find(hole, at + value.size()))
      text.replace(at, hole.size(), value);
  return text;
}

/// "my_method" -> "MyMethod"
std::string class_of(const std::string& name) {
  std::string out;
  bool upper = true;
  for (const char c : name) {
    if (c == '_')
      upper = true;
    else
      out += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(c))) : c;
    if (c != '_') upper = false;
  }
  return out;
}

/// Where find_package(mcit) succeeds for the running executable: its build tree or its installation.
fs::path cmake_dir() {
  const fs::path prefix = executable_dir().parent_path();
  const fs::path folder = prefix / "lib" / "cmake" / "mcit";
  return fs::exists(folder / "mcitConfig.cmake") ? folder : fs::path();
}

void write_project(const std::string& name, std::string folder) {
  const auto plain = [](char c) {
    return std::islower(static_cast<unsigned char>(c)) || std::isdigit(static_cast<unsigned char>(c)) ||
           c == '_';
  };
  if (name.empty() || !std::islower(static_cast<unsigned char>(name.front())) ||
      !std::all_of(name.begin(), name.end(), plain))
    throw ConfigError("new-plugin", "'" + name + "' cannot be a strategy's name",
                      "use a lower-case letter, then letters, digits and _, e.g. my_method");
  if (folder.empty()) folder = name;
  if (fs::exists(folder) && !fs::is_empty(folder))
    throw ConfigError(folder, "exists and is not empty", "choose another folder with --out");
  const fs::path templates = share_dir() / "new_plugin", found = cmake_dir();
  if (!fs::is_directory(templates))
    throw DataError(templates.string(), "is missing",
                    "the installation is incomplete; MCIT_SHARE overrules where it is looked for");
  for (const auto& entry : fs::recursive_directory_iterator(templates)) {
    if (!entry.is_regular_file()) continue;
    const std::string file = filled(fs::relative(entry.path(), templates).string(), name, class_of(name), "");
    write_atomic(fs::path(folder) / file,
                 filled(read_file(entry.path()), name, class_of(name), found.string()));
  }
  std::cout << folder << ": a plugin with the strategy '" << name << "'. Build and test it:\n"
            << "  cmake -S " << folder << " -B " << folder << "/build -DCMAKE_BUILD_TYPE=Release"
            << (found.empty() ? "" : " -Dmcit_DIR=" + found.string()) << "\n"
            << "  cmake --build " << folder << "/build\n"
            << "  ctest --test-dir " << folder << "/build --output-on-failure\n";
}

}  // namespace

void add_new_plugin(CLI::App& app) {
  auto name = std::make_shared<std::string>(), folder = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "new-plugin", "Write a project with a strategy plugin that builds and passes at once");
  command->add_option("NAME", *name, "The strategy's name, e.g. my_method")->required()->type_name("");
  command->add_option("--out", *folder, "Folder of the project [NAME]")->type_name("DIR");
  command->footer("Example:\n  mcit new-plugin my_method");
  command->callback([name, folder] { write_project(*name, *folder); });
}

}  // namespace mcit
