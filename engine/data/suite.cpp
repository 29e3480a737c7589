#include "data/suite.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "core/text.hpp"
#include "data/suite_files.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

using Folders = std::map<std::string, std::vector<std::string>>;

/// `name` with what [folders] has for its first "{...}", each entry in turn, and so on for the rest.
void expand(const std::string& name, const Folders& folders, const std::string& where, FileNames& out) {
  const std::size_t open = name.find('{'), close = name.find('}', open);
  if (open == std::string::npos || close == std::string::npos) {
    out.push_back(std::filesystem::path(name).lexically_normal());
    return;
  }
  const std::string key = name.substr(open + 1, close - open - 1);
  const auto found = folders.find(key);
  if (found == folders.end()) {
    std::vector<std::string> known;
    for (const auto& [folder, entries] : folders) known.push_back(folder);
    throw ConfigError(where, "[folders] does not say what '{" + key + "}' is", suggestion(key, known));
  }
  for (const std::string& entry : found->second)
    expand(name.substr(0, open) + entry + name.substr(close + 1), folders, where, out);
}

/// The file names under `key`, with those of [folders]; none when it is absent.
FileNames read_names(const Config& table, std::string_view key, const Folders& folders) {
  FileNames out;
  for (const std::string& name : table.texts(key, {})) expand(name, folders, table.where(key), out);
  return out;
}

FileNames require_names(const Config& table, std::string_view key, const Folders& folders) {
  if (table.require_texts(key).empty()) throw ConfigError(table.where(key), "names no file");
  return read_names(table, key, folders);
}

void read_forms(const Config& table, SuiteTask& out) {
  const std::vector<std::string>&train = record_forms(RecordKind::train),
        &test = record_forms(RecordKind::test);
  out.train_form.name = table.choice("train_form", train.front(), train);
  RecordForm& form = out.test_form;
  form.name = table.choice("test_form", test.front(), test);
  form.question = table.text("question", "");
  if (form.question.empty() && (form.name == "boxes" || form.name == "captions"))
    throw ConfigError(table.where("question"), "is missing: rows of the form '" + form.name + "' do not ask");
  if (!form.question.empty() && form.name == "captions" && form.question.find('{') != std::string::npos)
    throw ConfigError(table.where("question"), "rows of the form 'captions' have no texts to put in");
  for (const Config& end : table.children("question_end"))
    form.ends.push_back({end.texts("answers", {}), end.require_text("text")});
}

void read_instruct_task(const Config& table, const Folders& folders, SuiteTask& out) {
  out.train_names = require_names(table, "train", folders);
  out.test_names = require_names(table, "test", folders);
  out.golds_names = read_names(table, "golds", folders);
  if (const FileNames clients = read_names(table, "clients", folders); !clients.empty())
    out.clients = clients.front();
  read_forms(table, out);
  if (table.has("image_root")) {
    out.image_root_names = read_names(table, "image_root", folders);
    out.image_root.emplace();
  }
  if (table.has("test_image_root")) {
    out.test_image_root_names = read_names(table, "test_image_root", folders);
    out.test_image_root.emplace();
  }
  out.image_prefix = table.text("image_prefix", "");
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
    out.train_names = {table.require_text("train")};
    out.test_names = {table.require_text("test")};
  } else if (table.has("train") || table.has("test")) {
    throw ConfigError(table.where("folder"), "is split by train_share, and 'train' and 'test' list a split",
                      "keep one of the two");
  }
}

std::vector<std::int64_t> read_counts(const Config& table, std::string_view key) {
  std::vector<std::int64_t> counts = table.integers(key, {});
  for (const std::int64_t count : counts)
    if (count < 1) throw ConfigError(table.where(key), "must be at least 1, found " + std::to_string(count));
  return counts;
}

SuiteTask read_task(const Config& table, const std::string& kind, const Folders& folders) {
  SuiteTask out;
  out.name = table.require_text("name");
  kind == "classify" ? read_classify_task(table, out) : read_instruct_task(table, folders, out);
  if (!out.train_names.empty()) out.train = out.train_names.front();
  if (!out.test_names.empty()) out.test = out.test_names.front();
  if (table.has("chance")) out.chance = table.number("chance", 0.0, 0.0, 100.0);
  out.steps = table.integer("steps", 0, 0);
  out.epochs = table.number("epochs", 0.0, 0.0, 1e6);
  if (out.steps > 0 && out.epochs > 0)
    throw ConfigError(table.where("epochs"), "'steps' says how long the task is trained",
                      "keep one of the two");
  out.expected_train = read_counts(table, "expected_train");
  out.expected_test = read_counts(table, "expected_test");
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

/// Adds the entries of this file's [folders] that are not there yet.
void read_folders(const Config& config, Folders& out) {
  if (!config.has("folders")) return;
  const Config table = config.child("folders");
  for (const std::string& key : table.keys()) {
    const std::vector<std::string> entries = table.texts(key, {});
    if (entries.empty()) throw ConfigError(table.where(key), "names no folder");
    out.try_emplace(key, entries);
  }
}

/// A suite's file over those that it extends, and their folders.
Config read_extended(const std::filesystem::path& file, const std::vector<std::filesystem::path>& places,
                     Folders& folders, int depth = 0) {
  constexpr int kDeepest = 4;
  const Config config = Config::read(file);
  read_folders(config, folders);
  const std::string name = config.text("extends", "");
  if (name.empty()) return config;
  if (depth == kDeepest)
    throw ConfigError(config.where("extends"), "more than " + std::to_string(kDeepest) + " files in a row");
  const std::filesystem::path base =
      name.ends_with(".toml") ? config.path("extends", "") : find_suite(name, places);
  return config.over(read_extended(base, places, folders, depth + 1));
}

SuiteTexts read_texts(const Config& config) {
  return {.title = config.text("title", ""),
          .paper = config.text("paper", ""),
          .source = config.text("source", ""),
          .layout = config.text("layout", ""),
          .prompts = config.text("prompts", ""),
          .pictures = config.text("pictures", ""),
          .notes = config.texts("notes", {})};
}

/// The tasks called so, in this order.
std::vector<SuiteTask> in_order(const Config& config, const std::vector<SuiteTask>& known,
                                const std::vector<std::string>& wanted) {
  std::vector<SuiteTask> out;
  std::set<std::string> seen;
  for (const std::string& name : wanted) {
    const auto found =
        std::find_if(known.begin(), known.end(), [&](const SuiteTask& task) { return task.name == name; });
    if (found == known.end())
      throw ConfigError(config.where("order"), "there is no task '" + name + "'",
                        suggestion(name, names_of(known)));
    if (!seen.insert(name).second) throw ConfigError(config.where("order"), "names '" + name + "' twice");
    out.push_back(*found);
  }
  return out;
}

std::vector<SuiteStage> read_stages(const Config& config, const Folders& folders,
                                    const std::vector<SuiteTask>& tasks) {
  std::vector<SuiteStage> out;
  std::vector<std::string> listed;
  for (const Config& table : config.children("stages")) {
    out.push_back({table.require_text("name"), table.require_texts("tasks"), {}});
    if (const FileNames clients = read_names(table, "clients", folders); !clients.empty())
      out.back().clients = clients.front();
    if (out.back().tasks.empty()) throw ConfigError(table.where("tasks"), "names no task");
    listed.insert(listed.end(), out.back().tasks.begin(), out.back().tasks.end());
  }
  if (!out.empty() && listed != names_of(tasks))
    throw ConfigError(config.where("stages"), "do not hold the suite's tasks, each once and in its order");
  return out;
}

}  // namespace

Suite read_suite(const std::filesystem::path& file, const std::vector<std::string>& order,
                 const std::vector<std::filesystem::path>& places) {
  Folders folders;
  const Config config = read_extended(file, places, folders);
  Suite out;
  out.file = config;
  out.name = config.text("name", file.stem().string());
  out.kind = config.choice("kind", out.kind, {"instruct", "classify"});
  out.texts = read_texts(config);
  if (out.kind == "instruct") {
    out.prompt_template = config.text("template", out.prompt_template);
    out.probe = config.text("probe", "");
    out.pad_square = config.flag("pad_square", false);
  }
  out.data = config.path("data", "");
  out.homes = config.texts("homes", {});
  out.image_root_names = read_names(config, "image_root", folders);
  if (!out.image_root_names.empty()) out.image_root = out.image_root_names.front();
  if (config.has("mini")) out.builtin = config.child("mini");
  std::vector<SuiteTask> known;
  std::set<std::string> seen;
  for (const Config& table : config.children("tasks")) {
    known.push_back(read_task(table, out.kind, folders));
    if (!seen.insert(known.back().name).second)
      throw ConfigError(table.where("name"), "two tasks are called '" + known.back().name + "'");
  }
  if (known.empty())
    throw ConfigError(config.where("tasks"), "the suite has no task", "add [[tasks]] tables");
  if (out.kind == "classify") read_classify_keys(config, known, out);
  const std::vector<std::string> own = config.texts("order", names_of(known));
  out.tasks = in_order(config, known, own);
  if (out.kind == "instruct") out.stages = read_stages(config, folders, out.tasks);
  if (!order.empty()) {
    out.tasks = in_order(config, known, order);
    out.stages.clear();
  }
  if (!out.data.empty()) locate(out);
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
      if (entry.depth() > 1 || entry->path().filename() == "published") entry.disable_recursion_pending();
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

std::string counts_text(const std::vector<std::int64_t>& expected) {
  std::vector<std::string> texts;
  for (const std::int64_t count : expected) texts.push_back(std::to_string(count));
  return texts.empty() ? "–" : joined(texts, " or ");
}

}  // namespace mcit
