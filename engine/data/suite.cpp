#include "data/suite.hpp"

#include <algorithm>
#include <set>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

SuiteTask read_task(const Config& table) {
  SuiteTask out;
  out.name = table.require_text("name");
  out.train = table.require_text("train");
  out.test = table.require_text("test");
  out.scorer = table.text("scorer", out.scorer);
  out.answers = table.texts("answers", {});
  out.closed = table.flag("closed", false);
  if (out.closed && !out.answers.empty())
    throw ConfigError(table.where("closed"), "takes the answers of the records, and 'answers' lists others",
                      "keep one of the two");
  if (table.has("chance")) out.chance = table.number("chance", 0.0, 0.0, 100.0);
  out.max_new_tokens = table.integer("max_new_tokens", out.max_new_tokens, 1, 4096);
  out.steps = table.integer("steps", 0, 0);
  out.suffix = table.text("suffix", "");
  if (table.has("expected_train")) out.expected_train = table.integer("expected_train", 0, 1);
  if (table.has("expected_test")) out.expected_test = table.integer("expected_test", 0, 1);
  return out;
}

std::vector<std::string> names_of(const std::vector<SuiteTask>& tasks) {
  std::vector<std::string> names;
  for (const SuiteTask& task : tasks) names.push_back(task.name);
  return names;
}

}  // namespace

Suite read_suite(const std::filesystem::path& file, const std::vector<std::string>& order) {
  const Config config = Config::read(file);
  Suite out;
  out.file = config;
  out.name = config.text("name", file.stem().string());
  out.prompt_template = config.text("template", out.prompt_template);
  out.data = config.path("data", "");
  out.image_root = config.text("image_root", "");
  out.probe = config.text("probe", "");
  if (config.has("mini")) out.builtin = config.child("mini");
  std::vector<SuiteTask> known;
  std::set<std::string> seen;
  for (const Config& table : config.children("tasks")) {
    known.push_back(read_task(table));
    if (!seen.insert(known.back().name).second)
      throw ConfigError(table.where("name"), "two tasks are called '" + known.back().name + "'");
  }
  if (known.empty())
    throw ConfigError(config.where("tasks"), "the suite has no task", "add [[tasks]] tables");
  std::vector<std::string> wanted = config.texts("order", names_of(known));
  if (!order.empty()) wanted = order;
  seen.clear();
  for (const std::string& name : wanted) {
    const auto found =
        std::find_if(known.begin(), known.end(), [&](const SuiteTask& task) { return task.name == name; });
    if (found == known.end())
      throw ConfigError(config.where("order"), "there is no task '" + name + "'",
                        suggestion(name, names_of(known)));
    if (!seen.insert(name).second) throw ConfigError(config.where("order"), "names '" + name + "' twice");
    out.tasks.push_back(*found);
  }
  if (!out.builtin) config.finish();
  return out;
}

std::vector<std::pair<std::string, std::filesystem::path>> list_suites(
    const std::vector<std::filesystem::path>& folders) {
  std::vector<std::pair<std::string, std::filesystem::path>> out;
  for (const std::filesystem::path& folder : folders) {
    if (!std::filesystem::is_directory(folder)) continue;
    const auto options = std::filesystem::directory_options::follow_directory_symlink;
    for (auto entry = std::filesystem::recursive_directory_iterator(folder, options);
         entry != std::filesystem::recursive_directory_iterator(); ++entry) {
      if (entry.depth() > 1) entry.disable_recursion_pending();
      if (entry->path().extension() == ".toml" && entry.depth() <= 1)
        out.emplace_back(entry->path().stem().string(), entry->path());
    }
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::filesystem::path find_suite(const std::string& name, const std::vector<std::filesystem::path>& folders) {
  if (name.ends_with(".toml")) {
    if (!std::filesystem::exists(name)) throw ConfigError("suite", "'" + name + "' does not exist");
    return name;
  }
  std::vector<std::string> known;
  for (const auto& [suite, file] : list_suites(folders)) {
    if (suite == name) return file;
    known.push_back(suite);
  }
  throw ConfigError("suite", "there is no suite '" + name + "'", suggestion(name, known));
}

}  // namespace mcit
