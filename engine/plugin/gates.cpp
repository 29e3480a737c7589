#include "plugin/gates.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <stdexcept>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "mcit/build_tag.hpp"
#include "mcit/errors.hpp"
#include "plugin/boost_dll.hpp"
#include "plugin/elf.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSectionPrefix = "mcit.plugin.";
constexpr const char* kSymbol = "mcit_plugin";
constexpr std::size_t kLongestText = 1024;
constexpr std::uint32_t kMostStrategies = 256;

/// Ends the passage of one file.
struct Turned : std::runtime_error {
  Turned(PluginStatus turned_status, const std::string& reason)
      : std::runtime_error(reason), status(turned_status) {}
  PluginStatus status;
};
[[noreturn]] void refuse(const std::string& reason) { throw Turned(PluginStatus::refused, reason); }

std::string read_plugin(const fs::path& file) {
  std::error_code error;
  const fs::file_status status = fs::status(file, error);
  if (status.type() == fs::file_type::not_found)
    refuse(fs::is_symlink(fs::symlink_status(file, error)) ? "a symbolic link to a file that does not exist"
                                                           : "does not exist");
  if (error) refuse("cannot be looked at: " + error.message());
  if (fs::is_directory(status)) refuse("a folder, not a file");
  if (!fs::is_regular_file(status)) refuse("not a regular file");
  try {
    return read_file(file);
  } catch (const DataError& e) {
    const std::string_view text = e.what(), where = file.native();
    refuse(std::string(text.substr(0, where.size()) == where && text.size() > where.size() + 2
                           ? text.substr(where.size() + 2)
                           : text));
  }
}

/// Gate 1: what the bytes of the file say about it. No code of it runs.
std::string checked_tag(const fs::path& file, std::string_view bytes) {
  const ElfFile elf(bytes);
  // ElfFile has bounded the tables that Boost.DLL's reader takes at their word.
  const std::vector<std::string> sections = boost::dll::library_info(file).sections();
  if (std::find(sections.begin(), sections.end(), MCIT_PLUGIN_SECTION) == sections.end()) {
    for (const std::string& section : sections)
      if (section.starts_with(kSectionPrefix))
        refuse("built for plugin epoch " + section.substr(kSectionPrefix.size()) +
               "; this engine has epoch " + MCIT_STRINGIZE(MCIT_PLUGIN_EPOCH));
    throw Turned(PluginStatus::foreign, "no section " MCIT_PLUGIN_SECTION ": not a plugin of mcit");
  }
  std::string_view tag = elf.section(MCIT_PLUGIN_SECTION);
  tag = tag.substr(0, tag.find('\0'));
  if (tag.size() > kLongestText) refuse("its build tag has no end");
  if (tag != MCIT_BUILD_TAG) refuse(tag_difference(tag, MCIT_BUILD_TAG));
  const std::vector<std::string> exports = elf.exports();
  if (std::find(exports.begin(), exports.end(), kSymbol) == exports.end())
    refuse("has the section of a plugin but does not export " + std::string(kSymbol));
  return std::string(tag);
}

/// Gate 2: opens the library, for good. An autograd node or an exception of an unloaded plugin would crash
/// whoever still holds it, at the latest at exit; so the handles are reachable for ever and destroyed never.
const boost::dll::shared_library& opened(const fs::path& file) {
  static auto& libraries = *new std::deque<boost::dll::shared_library>;
  boost::dll::shared_library library;
  std::error_code error;
  library.load(fs::absolute(file), boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local,
               error);
  if (error) {
    const char* cause = ::dlerror();
    refuse(std::string("cannot be opened: ") + (cause != nullptr ? cause : error.message()));
  }
  return libraries.emplace_back(std::move(library));
}

/// A text of the descriptor. @param name whether it must be a plain name, as a user writes it
std::string checked_text(const char* text, const std::string& what, bool name) {
  if (text == nullptr) refuse("damaged descriptor: no " + what);
  const std::string value(text, ::strnlen(text, kLongestText));
  if (value.size() == kLongestText) refuse("damaged descriptor: the " + what + " has no end");
  const auto fits = [&](char c) {
    const auto byte = static_cast<unsigned char>(c);
    if (!name) return byte >= 0x20 && byte != 0x7f;
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  if (!std::all_of(value.begin(), value.end(), fits))
    refuse("damaged descriptor: the " + what + " has other characters than " +
           (name ? "letters, digits, '_', '-' and '.'" : "printable ones"));
  if (name && value.empty()) refuse("damaged descriptor: the " + what + " is empty");
  return value;
}

/// Gate 3: plain data, read in the order in which it can be trusted.
std::span<const mcit_strategy_entry> checked_descriptor(const boost::dll::shared_library& library,
                                                        PluginReport& report) {
  const auto& plugin = library.get<const mcit_plugin_descriptor>(kSymbol);
  if (plugin.size != sizeof(mcit_plugin_descriptor))
    refuse("its descriptor has " + std::to_string(plugin.size) + " bytes; this engine's has " +
           std::to_string(sizeof(mcit_plugin_descriptor)));
  if (plugin.epoch != MCIT_PLUGIN_EPOCH)
    refuse("its descriptor is of epoch " + std::to_string(plugin.epoch) + "; this engine has epoch " +
           MCIT_STRINGIZE(MCIT_PLUGIN_EPOCH));
  const std::string tag = checked_text(plugin.build_tag, "build tag", false);
  if (tag != MCIT_BUILD_TAG) refuse(tag_difference(tag, MCIT_BUILD_TAG));
  report.name = checked_text(plugin.name, "plugin name", true);
  report.version = checked_text(plugin.version, "version", true);
  if (plugin.strategy_count == 0 || plugin.strategy_count > kMostStrategies || plugin.strategies == nullptr)
    refuse("damaged descriptor: it lists " + std::to_string(plugin.strategy_count) + " strategies");
  const std::span entries(plugin.strategies, plugin.strategy_count);
  std::set<std::string> names;
  std::vector<ProvidedStrategy> provided;
  for (const mcit_strategy_entry& entry : entries) {
    provided.push_back({checked_text(entry.name, "name of a strategy", true),
                        checked_text(entry.summary, "summary of a strategy", false),
                        {}});
    if (entry.create == nullptr || entry.destroy == nullptr)
      refuse("damaged descriptor: strategy '" + provided.back().name + "' has no " +
             (entry.create == nullptr ? "create" : "destroy"));
    if (!names.insert(provided.back().name).second)
      refuse("names strategy '" + provided.back().name + "' twice");
  }
  report.strategies = std::move(provided);
  return entries;
}

std::vector<std::pair<std::string, std::string>> fields(std::string_view tag) {
  std::vector<std::pair<std::string, std::string>> out;
  for (std::size_t begin = 0; begin < tag.size();) {
    const std::size_t end = std::min(tag.find(';', begin), tag.size());
    const std::string_view field = tag.substr(begin, end - begin);
    const std::size_t equals = std::min(field.find('='), field.size());
    out.emplace_back(field.substr(0, equals), field);
    begin = end + 1;
  }
  return out;
}

}  // namespace

std::string tag_difference(std::string_view plugin, std::string_view engine) {
  const auto theirs = fields(plugin), ours = fields(engine);
  // The fields of `from` that `other` has not; and the keys that only `other` knows, as "no key".
  const auto differing = [](const auto& from, const auto& other) {
    std::string text;
    const auto add = [&](const std::string& piece) { text += (text.empty() ? "" : ", ") + piece; };
    for (const auto& field : from)
      if (std::find(other.begin(), other.end(), field) == other.end()) add(field.second);
    for (const auto& field : other) {
      const auto same_key = [&](const auto& mine) { return mine.first == field.first; };
      if (std::none_of(from.begin(), from.end(), same_key)) add("no " + field.first);
    }
    return text;
  };
  return "built with " + differing(theirs, ours) + "; this engine has " + differing(ours, theirs);
}

GatedPlugin pass_gates(const fs::path& file) {
  GatedPlugin plugin;
  plugin.report.file = file;
  try {
    const std::string bytes = read_plugin(file);
    plugin.report.hash = hash_text(bytes);
    plugin.report.build_tag = checked_tag(file, bytes);
    plugin.strategies = checked_descriptor(opened(file), plugin.report);
    plugin.report.status = PluginStatus::loaded;
  } catch (const Turned& e) {
    plugin.report.status = e.status;
    plugin.report.reason = e.what();
  } catch (const std::exception& e) {  // from reading it as ELF
    plugin.report.reason = e.what();
  }
  std::replace(plugin.report.reason.begin(), plugin.report.reason.end(), '\n', ' ');
  return plugin;
}

}  // namespace mcit
