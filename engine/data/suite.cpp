#include "data/suite.hpp"

#include <algorithm>
#include <set>

#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

void read_instruct_task(const Config& table, SuiteTask& out) {
  out.train = table.require_text("train");
  out.test = table.require_text("test");
  out.scorer = table.text("scorer", out.scorer);
  out.answers = table.texts("answers", {});
  out.closed = table.flag("closed", false);
  if (out.closed && !out.answers.empty())
    throw ConfigError(table.where("closed"), "takes the answers of the records, and 'answers' lists others",
                      "keep one of the two");
  out.max_new_tokens = table.integer("max_new_tokens", out.max_new_tokens, 1, 4096);
  out.suffix = table.text("suffix", "");
}

void read_classify_task(const Config& table, SuiteTask& out) {
  out.folder = table.text("folder", "");
  if (out.folder.empty()) {
    if (!table.has("train") && !table.has("test"))
      throw ConfigError(table.where(), "does not say where its pictures are",
                        "give 'folder' (a folder for each class), or the lists 'train' and 'test'");
    out.train = table.require_text("train");
    out.test = table.require_text("test");
  } else if (table.has("train") || table.has("test")) {
    throw ConfigError(table.where("folder"), "is split by train_share, and 'train' and 'test' list a split",
                      "keep one of the two");
  }
}

SuiteTask read_task(const Config& table, const std::string& kind) {
  SuiteTask out;
  out.name = table.require_text("name");
  kind == "classify" ? read_classify_task(table, out) : read_instruct_task(table, out);
  if (table.has("chance")) out.chance = table.number("chance", 0.0, 0.0, 100.0);
  out.steps = table.integer("steps", 0, 0);
  if (table.has("expected_train")) out.expected_train = table.integer("expected_train", 0, 1);
  if (table.has("expected_test")) out.expected_test = table.integer("expected_test", 0, 1);
  return out;
}

std::vector<std::string> names_of(const std::vector<SuiteTask>& tasks) {
  std::vector<std::string> names;
  for (const SuiteTask& task : tasks) names.push_back(task.name);
  return names;
}

/// The keys of a classify suite beside its tasks, which are known.
void read_classify_keys(const Config& config, const std::vector<SuiteTask>& tasks, Suite& out) {
  out.class_template = config.text("class_template", out.class_template);
  const std::size_t mark = out.class_template.find("{}");
  if (mark == std::string::npos || out.class_template.find("{}", mark + 2) != std::string::npos)
    throw ConfigError(config.where("class_template"), "must hold {} once, where the class name stands",
                      "for example \"a photo of a {}.\"");
  out.most_classes = config.integer("classes", 0, 0);
  const bool split =
      std::any_of(tasks.begin(), tasks.end(), [](const SuiteTask& task) { return !task.folder.empty(); });
  for (const char* key : {"train_share", "split_seed"})
    if (config.has(key) && !split)
      throw ConfigError(config.where(key), "splits the pictures of a 'folder', and no task has one",
                        "remove the key");
  out.train_share = config.number("train_share", out.train_share);
  if (!(out.train_share > 0 && out.train_share < 1))
    throw ConfigError(config.where("train_share"),
                      "must be between 0 and 1, both excluded, found " + shortest(out.train_share));
  out.split_seed = static_cast<std::uint64_t>(config.integer("split_seed", 1, 0));
}

}  // namespace

Suite read_suite(const std::filesystem::path& file, const std::vector<std::string>& order) {
  const Config config = Config::read(file);
  Suite out;
  out.file = config;
  out.name = config.text("name", file.stem().string());
  out.kind = config.choice("kind", out.kind, {"instruct", "classify"});
  if (out.kind == "instruct") {
    out.prompt_template = config.text("template", out.prompt_template);
    out.probe = config.text("probe", "");
  }
  out.data = config.path("data", "");
  out.image_root = config.text("image_root", "");
  if (config.has("mini")) out.builtin = config.child("mini");
  std::vector<SuiteTask> known;
  std::set<std::string> seen;
  for (const Config& table : config.children("tasks")) {
    known.push_back(read_task(table, out.kind));
    if (!seen.insert(known.back().name).second)
      throw ConfigError(table.where("name"), "two tasks are called '" + known.back().name + "'");
  }
  if (known.empty())
    throw ConfigError(config.where("tasks"), "the suite has no task", "add [[tasks]] tables");
  if (out.kind == "classify") read_classify_keys(config, known, out);
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
