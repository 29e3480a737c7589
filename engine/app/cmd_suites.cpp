#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/console.hpp"
#include "core/json.hpp"
#include "core/json_rows.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/text.hpp"
#include "data/suite_files.hpp"
#include "mcit/errors.hpp"
#include "report/table.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string suite;
  std::vector<std::string> roots;
  bool json = false;
};

/// A suite and what of it is on disk.
struct Known {
  Suite suite;
  fs::path file;
  DataPlace place;
  bool builtin() const { return suite.builtin.has_value(); }
};

Known look(const fs::path& file, const std::vector<fs::path>& roots) {
  Known out{read_suite(file, {}, {share_dir()}), file, {}};
  if (out.builtin()) return out;
  out.place = find_data(out.suite, out.suite.data.empty() ? roots : std::vector<fs::path>{out.suite.data});
  if (out.suite.data.empty()) out.suite.data = out.place.folder;
  if (!out.place.folder.empty()) locate(out.suite);
  return out;
}

std::vector<fs::path> roots_of(const Flags& flags) {
  std::vector<fs::path> out(flags.roots.begin(), flags.roots.end());
  for (const fs::path& root : out)
    if (!fs::is_directory(root)) throw ConfigError("--root", "'" + root.string() + "' is no folder");
  for (fs::path& root : data_roots()) out.push_back(std::move(root));
  return out;
}

/// Of all tasks, by the first count of each; nothing when one has none.
std::string total(const Suite& suite, std::vector<std::int64_t> SuiteTask::*expected) {
  std::int64_t sum = 0;
  for (const SuiteTask& task : suite.tasks) {
    if ((task.*expected).empty()) return "–";
    sum += (task.*expected).front();
  }
  return std::to_string(sum);
}

std::vector<std::string> scorers_of(const Suite& suite) {
  std::vector<std::string> out;
  for (const SuiteTask& task : suite.tasks)
    if (std::find(out.begin(), out.end(), task.scorer) == out.end()) out.push_back(task.scorer);
  return out;
}

std::string place_text(const Known& known) {
  if (known.builtin()) return "built in";
  if (known.place.found == 0) return "not found";
  const std::string folder = known.place.folder.string();
  if (known.place.found == known.place.wanted) return folder;
  return folder + " (" + std::to_string(known.place.found) + " of " + std::to_string(known.place.wanted) +
         " files)";
}

Json as_json(const Known& known) {
  const Suite& suite = known.suite;
  Json tasks = Json::array();
  for (const SuiteTask& task : suite.tasks)
    tasks.push_back({{"name", task.name},
                     {"scorer", suite.kind == "classify" ? "exact" : task.scorer},
                     {"train", task.folder.empty() ? task.train.string() : task.folder.string()},
                     {"test", task.test.string()},
                     {"epochs", task.epochs},
                     {"steps", task.steps},
                     {"expected_train", task.expected_train},
                     {"expected_test", task.expected_test}});
  Json stages = Json::array();
  for (const SuiteStage& stage : suite.stages)
    stages.push_back({{"name", stage.name}, {"tasks", stage.tasks}});
  return {{"name", suite.name},
          {"file", known.file.string()},
          {"kind", suite.kind},
          {"title", suite.texts.title},
          {"paper", suite.texts.paper},
          {"source", suite.texts.source},
          {"notes", suite.texts.notes},
          {"built_in", known.builtin()},
          {"data", known.place.folder.string()},
          {"files_found", known.place.found},
          {"files_wanted", known.place.wanted},
          {"tasks", tasks},
          {"stages", stages}};
}

void list(const Flags& flags) {
  const std::vector<fs::path> roots = roots_of(flags);
  Table table({{"suite", false},
               {"tasks"},
               {"training rows"},
               {"test rows"},
               {"scorers", false},
               {"data", false},
               {"what it is", false}});
  Json all = Json::array();
  for (const auto& [name, file] : list_suites({share_dir()})) {
    Known known;
    try {
      known = look(file, roots);
    } catch (const ConfigError& e) {
      log::warn(e.what());
      continue;
    }
    if (flags.json) {
      all.push_back(as_json(known));
      continue;
    }
    const Suite& suite = known.suite;
    table.row({{name, known.builtin() || (known.place.found > 0 && known.place.found == known.place.wanted)},
               {std::to_string(suite.tasks.size())},
               {total(suite, &SuiteTask::expected_train)},
               {total(suite, &SuiteTask::expected_test)},
               {suite.kind == "classify" ? "classes" : joined(scorers_of(suite), ", ")},
               {place_text(known)},
               {suite.texts.title}});
  }
  if (flags.json) {
    std::cout << dump_json(all, 2) << "\n";
    return;
  }
  constexpr int kUnbroken = 1000;  // a long line is easier to read than a table in pieces
  std::cout << table.terminal(kUnbroken, console::colours(console::Stream::out));
  if (roots.empty())
    std::cout << "\nData was looked for nowhere: give --root DIR, or set MCIT_DATA.\n";
  else
    std::cout << "\nLooked for data in:\n";
  for (const fs::path& root : roots) std::cout << "  " << root.string() << "\n";
}

/// Rows of the files that a name stands for, counted; "–" when there are none, "?" when they cannot be read.
std::string rows_text(const Suite& suite, const fs::path& name, const RecordForm& form) {
  std::int64_t rows = 0;
  const std::vector<fs::path> files = suite.data.empty() ? std::vector<fs::path>{} : files_of(suite, name);
  if (files.empty() || !fs::exists(files.front())) return "–";
  for (const fs::path& file : files) {
    try {
      rows += form.name == "captions" ? std::ssize(read_records(file, RecordKind::test, form))
                                      : count_json_rows(file);
    } catch (const DataError&) {
      return "?";
    }
  }
  return std::to_string(rows);
}

/// `text`, wherever its lines end, in lines of the terminal's width behind a title.
void print_text(const std::string& title, const std::string& text) {
  if (text.empty()) return;
  const int width = std::max(40, console::width(console::Stream::out) - 12);
  std::string line, out;
  const auto flush = [&] {
    out += (out.empty() ? title + std::string(title.size() < 12 ? 12 - title.size() : 1, ' ')
                        : std::string(12, ' ')) +
           line + "\n";
    line.clear();
  };
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find_first_of(" \n", at), text.size());
    const std::string word = text.substr(at, end - at);
    if (!line.empty() && console::columns(line + " " + word) > width) flush();
    if (!word.empty()) line += (line.empty() ? "" : " ") + word;
    at = end + 1;
  }
  if (!line.empty()) flush();
  std::cout << out;
}

void print_tasks(const Known& known) {
  const Suite& suite = known.suite;
  Table table({{"", true},
               {"task", false},
               {"scorer", false},
               {"epochs"},
               {"rows to train"},
               {"expected"},
               {"test rows"},
               {"expected"},
               {"files", false}});
  Progress progress("counting rows", std::ssize(suite.tasks), "tasks");
  std::int64_t number = 0;
  for (const SuiteTask& task : suite.tasks) {
    const bool records = task.folder.empty() && suite.kind == "instruct" && !known.builtin();
    table.row(
        {{std::to_string(++number)},
         {task.name},
         {suite.kind == "classify" ? "classes" : task.scorer},
         {task.epochs > 0 ? shortest(task.epochs) : "–"},
         {records ? rows_text(suite, task.train, task.train_form) : "–"},
         {counts_text(task.expected_train)},
         {records ? rows_text(suite, task.test, task.test_form) : "–"},
         {counts_text(task.expected_test)},
         {task.folder.empty() ? task.train.string() + ", " + task.test.string() : task.folder.string()}});
    progress.advance(1, task.name);
  }
  constexpr int kUnbroken = 1000;
  std::cout << "\n" << table.terminal(kUnbroken, console::colours(console::Stream::out));
}

void describe(const Flags& flags) {
  const Known known = look(find_suite(flags.suite, {share_dir()}), roots_of(flags));
  if (flags.json) {
    std::cout << dump_json(as_json(known), 2) << "\n";
    return;
  }
  const SuiteTexts& texts = known.suite.texts;
  print_text(known.suite.name, texts.title.empty() ? "a suite of kind " + known.suite.kind : texts.title);
  print_text("paper", texts.paper);
  print_text("file", known.file.string());
  print_text("data", place_text(known));
  print_tasks(known);
  std::cout << "\n";
  for (const SuiteStage& stage : known.suite.stages)
    print_text(stage.name, "trained together: " + joined(stage.tasks, ", "));
  print_text("from", texts.source);
  print_text("layout", texts.layout);
  print_text("prompts", texts.prompts);
  print_text("pictures", texts.pictures);
  for (const std::string& note : texts.notes) print_text("note", note);
}

}  // namespace

void add_suites(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("suites", "Benchmarks that can be run, and where their data was found");
  command->add_option("SUITE", flags->suite, "Describe this one: tasks, files, counts, where to get the data")
      ->type_name("");
  command->add_option("--root,--data", flags->roots, "Folder that may hold data sets (repeatable)")
      ->type_name("DIR")
      ->take_all();
  command->add_flag("--json", flags->json, "Everything that is known, as JSON");
  command->footer(
      "Examples:\n  mcit suites --root /datasets\n  mcit suites coin\n"
      "Folders of MCIT_DATA, separated by \":\", are looked through after --root.");
  command->callback([flags] { flags->suite.empty() ? list(*flags) : describe(*flags); });
}

}  // namespace mcit
