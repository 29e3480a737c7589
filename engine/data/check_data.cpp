#include "data/check_data.hpp"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "core/json_rows.hpp"
#include "data/classification.hpp"
#include "data/image.hpp"
#include "data/records.hpp"
#include "data/suite_files.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

/// Collects the faults of one file, at most `limit` of them in full.
class FileCheck {
 public:
  FileCheck(DataReport& report, std::string task, std::string file, std::int64_t limit)
      : report_(report), task_(std::move(task)), file_(std::move(file)), limit_(limit) {}
  void fault(std::int64_t row, const std::string& what) {
    ++report_.total_faults;
    if (shown_++ < limit_) report_.faults.push_back({task_, file_, row, what});
  }
  void missing_picture(std::int64_t row, const std::string& what) {
    constexpr std::int64_t kShown = 3;
    if (missing_++ < kShown) return fault(row, what);
    ++report_.total_faults;
  }

 private:
  DataReport& report_;
  std::string task_, file_;
  std::int64_t limit_, shown_ = 0, missing_ = 0;
};

/// The outermost folder on the way to `path` that is not there, and whether all of them are.
MissingPictures where_missing(const fs::path& path) {
  MissingPictures out;
  fs::path folder = path.parent_path();
  out.there = fs::is_directory(folder);
  while (!out.there && folder.has_relative_path() && !fs::is_directory(folder.parent_path()))
    folder = folder.parent_path();
  out.folder = folder.string();
  return out;
}

/// What a look at pictures has found, over all tasks.
class Pictures {
 public:
  Pictures(DataReport& report, bool deep) : report_(report), deep_(deep) {}

  /// Why a picture cannot be used; empty when it can. Looks once at each.
  const std::string& fault(TaskCheck& task, const fs::path& file) {
    const std::string path = file.string();
    const auto [at, fresh] = known_.try_emplace(path);
    Known& known = at->second;
    if (fresh) look(path, known);
    if (known.last != &task) {  // tasks may share pictures: each counts its own
      known.last = &task;
      ++task.pictures;
      if (known.missing) {
        ++task.missing_pictures;
        note(task.task, path);
      }
    }
    return known.fault;
  }

 private:
  struct Known {
    std::string fault;
    bool missing = false;
    const TaskCheck* last = nullptr;  ///< task that named it last
  };

  void look(const std::string& path, Known& known) const {
    known.missing = !fs::is_regular_file(path);
    if (known.missing) known.fault = "'" + path + "' does not exist";
    if (known.missing || !deep_) return;
    try {
      read_image(path);
    } catch (const std::exception& e) {
      known.fault = e.what();
    }
  }

  void note(const std::string& task, const std::string& path) {
    std::string parent = fs::path(path).parent_path().string();
    auto [place, fresh] = places_.try_emplace(std::move(parent));
    if (fresh) place->second = where_missing(path);
    const MissingPictures& at = place->second;
    auto& all = report_.missing;
    auto same = std::find_if(all.rbegin(), all.rend(), [&](const MissingPictures& one) {
      return one.task == task && one.folder == at.folder;
    });
    if (same == all.rend()) {
      all.push_back({task, at.folder, at.there, 0, path});
      same = all.rbegin();
    }
    ++same->pictures;
  }

  DataReport& report_;
  bool deep_;
  std::unordered_map<std::string, Known> known_;             ///< by path
  std::unordered_map<std::string, MissingPictures> places_;  ///< by the folder of a missing picture
};

struct Context {
  const Suite& suite;
  const SuiteTask& task;
  const CheckOptions& options;
  DataReport& report;
  Pictures& pictures;
  TaskCheck& check;
};

void check_picture(Context& context, FileCheck& check, std::int64_t row, const fs::path& root,
                   const std::string& image) {
  if (image.empty()) return;
  const std::string& what = context.pictures.fault(context.check, root / image);
  if (what.ends_with("' does not exist")) return check.missing_picture(row, "image: " + what);
  if (!what.empty()) check.fault(row, "image: " + what);
}

/// The identity of a row as a question about a picture.
std::string question_key(const Record& record) { return record.image + "\n" + record.turns.front().first; }

void check_answer(const Context& context, FileCheck& check, std::int64_t row, const std::string& answer) {
  const auto& set = context.task.answers;
  if (!set.empty() && std::find(set.begin(), set.end(), answer) == set.end())
    check.fault(row, "answer: '" + answer + "' is not in the task's answer set");
}

void check_prefix(const Context& context, FileCheck& check, std::int64_t row, const std::string& image) {
  const std::string prefix = context.task.image_prefix.string();
  if (!image.empty() && !fs::path(image).lexically_normal().string().starts_with(prefix))
    check.fault(row, "image: '" + image + "' does not start with '" + prefix +
                         "', as this task's pictures do; is it the file of another task?");
}

bool is_expected(const Context& context, const std::vector<std::int64_t>& counts, std::int64_t rows) {
  return context.options.excerpt || counts.empty() ||
         std::find(counts.begin(), counts.end(), rows) != counts.end();
}

/// That a file is there by none of its names, and which folder is not there either.
std::string all_missing(const Suite& suite, const FileNames& names) {
  const MissingPictures at = where_missing(suite.data / names.front());
  constexpr std::size_t kListed = 4;
  std::string out = "does not exist";
  for (std::size_t i = 1; i < names.size() && names.size() <= kListed; ++i)
    out += ", nor does '" + names[i].string() + "'";
  if (names.size() > kListed)
    out += ", nor do the other " + std::to_string(names.size() - 1) + " names that it may have, as '" +
           names[1].string() + "'";
  return at.there ? out : out + "; there is no folder '" + at.folder + "'";
}

/// What the rows of one side of a task have said so far.
struct Side {
  RecordKind kind;
  fs::path root;  ///< of its pictures
  std::unordered_set<std::string> ids;
};

/// @param asked questions about pictures of the training rows
/// @return rows read, faulty ones included
std::int64_t check_file(Context& context, const fs::path& file, Side& side,
                        std::unordered_set<std::string>& asked) {
  const bool train = side.kind == RecordKind::train;
  FileCheck check(context.report, context.task.name, file.string(), context.options.limit);
  std::vector<Record> records;
  std::int64_t bad = 0;
  try {
    records = read_records(file, side.kind, train ? context.task.train_form : context.task.test_form,
                           [&](std::int64_t row, const std::string& what) {
                             check.fault(row, what);
                             ++bad;
                           });
  } catch (const std::exception& e) {
    check.fault(0, e.what());
    return 0;
  }
  for (const Record& record : records) {
    const std::int64_t row = record.row;
    if (!side.ids.insert(record.id).second) check.fault(row, "id: '" + record.id + "' occurs twice");
    check_picture(context, check, row, side.root, record.image);
    if (!context.task.image_prefix.empty()) check_prefix(context, check, row, record.image);
    if (train) {
      for (const auto& [question, answer] : record.turns) check_answer(context, check, row, answer);
      asked.insert(question_key(record));
    } else {
      for (const std::string& gold : record.golds) check_answer(context, check, row, gold);
      if (!record.image.empty() && asked.contains(question_key(record)))
        check.fault(row, "the same question about the same picture is a training row");
    }
  }
  return std::ssize(records) + bad;
}

std::int64_t check_side(Context& context, RecordKind kind, std::unordered_set<std::string>& asked) {
  const SuiteTask& task = context.task;
  const bool train = kind == RecordKind::train;
  const fs::path& name = train ? task.train : task.test;
  FileCheck whole(context.report, task.name, (context.suite.data / name).string(), context.options.limit);
  const std::vector<fs::path> files = files_of(context.suite, name);
  if (files.empty() || (files.size() == 1 && !fs::exists(files.front()))) {
    whole.fault(0, all_missing(context.suite, train ? task.train_names : task.test_names));
    return 0;
  }
  Side side{kind, picture_root(context.suite, task, kind), {}};
  std::int64_t rows = 0;
  const std::int64_t before = context.report.total_faults;
  for (const fs::path& file : files) rows += check_file(context, file, side, asked);
  const bool unread = rows == 0 && context.report.total_faults > before;
  const auto& expected = train ? task.expected_train : task.expected_test;
  if (!unread && !is_expected(context, expected, rows))
    whole.fault(0, "holds " + std::to_string(rows) + " rows, the suite expects " + counts_text(expected));
  return rows;
}

/// Client files are a split of training rows; their rows are not read one by one.
/// @param rows_of_task how many training rows they may hold in all
void check_clients(Context& context, const std::string& name, const fs::path& clients,
                   std::int64_t rows_of_task) {
  const SuiteTask& task = context.task;
  const std::vector<fs::path> files = files_of(context.suite, clients);
  if (files.empty()) return;
  FileCheck check(context.report, name, (context.suite.data / clients).string(), context.options.limit);
  std::int64_t rows = 0;
  for (const fs::path& file : files) {
    try {
      rows += count_json_rows(file);
    } catch (const std::exception& e) {
      check.fault(0, e.what());
    }
  }
  try {
    const std::vector<Record> first = read_records(files.front(), RecordKind::train, task.train_form);
    if (clients == task.clients) check_prefix(context, check, 1, first.front().image);
  } catch (const std::exception& e) {
    check.fault(0, e.what());
  }
  if (!context.options.excerpt && rows_of_task > 0 && rows > rows_of_task)
    check.fault(0, std::to_string(files.size()) + " files hold " + std::to_string(rows) + " rows, and '" +
                       name + "' has " + std::to_string(rows_of_task) + " training rows");
}

void check_records(Context& context) {
  const SuiteTask& task = context.task;
  std::unordered_set<std::string> asked;
  context.check.train_rows = check_side(context, RecordKind::train, asked);
  bool golds = true;
  if (!task.golds_names.empty() && !fs::exists(task.test_form.golds)) {
    FileCheck check(context.report, task.name, task.test_form.golds.string(), context.options.limit);
    check.fault(0, all_missing(context.suite, task.golds_names) + "; it holds the answers to the test");
    golds = false;
  }
  if (golds) context.check.test_rows = check_side(context, RecordKind::test, asked);
  if (!task.clients.empty()) check_clients(context, task.name, task.clients, context.check.train_rows);
}

/// The pictures of one side of a classify task; `earlier` holds those of the sides before and gets these.
/// @return their number
std::int64_t check_class_side(Context& context, FileCheck& check, const std::string& side,
                              const std::vector<ClassRecord>& records,
                              const std::vector<std::int64_t>& expected,
                              std::unordered_set<std::string>& earlier) {
  if (!is_expected(context, expected, std::ssize(records)))
    check.fault(0, "holds " + std::to_string(records.size()) + " " + side + " pictures, the suite expects " +
                       counts_text(expected));
  std::unordered_set<std::string> seen;
  const fs::path root = context.suite.data / context.suite.image_root;
  for (const ClassRecord& record : records) {
    const std::string quoted = "image: '" + record.image + "'";
    if (!seen.insert(record.image).second) check.fault(record.line, quoted + " occurs twice");
    if (earlier.contains(record.image)) check.fault(record.line, quoted + " is a training picture");
    check_picture(context, check, record.line, root, record.image);
  }
  earlier.merge(seen);
  return std::ssize(records);
}

void check_classes(Context& context) {
  const Suite& suite = context.suite;
  const SuiteTask& task = context.task;
  std::map<fs::path, FileCheck> checks;  // of both lists, or of the folder
  const auto check = [&](const fs::path& file) -> FileCheck& {
    return checks.try_emplace(file, context.report, task.name, file.string(), context.options.limit)
        .first->second;
  };
  const bool is_list = task.folder.empty();
  const auto folder = suite.data / suite.image_root / task.folder;
  FileCheck& train = check(is_list ? suite.data / task.train : folder);
  FileCheck& test = check(is_list ? suite.data / task.test : folder);
  ClassTask read;
  bool whole = true;
  try {
    read =
        read_class_task(suite, task, [&](const fs::path& file, std::int64_t line, const std::string& what) {
          check(file).fault(line, what);
          whole = false;
        });
  } catch (const std::exception& e) {
    train.fault(0, e.what());
    whole = false;
  }
  const auto expected = [&](const std::vector<std::int64_t>& rows) {
    return whole ? rows : std::vector<std::int64_t>{};
  };
  std::unordered_set<std::string> pictures;
  context.check.train_rows =
      check_class_side(context, train, "training", read.train, expected(task.expected_train), pictures);
  context.check.test_rows =
      check_class_side(context, test, "test", read.test, expected(task.expected_test), pictures);
}

}  // namespace

DataReport check_data(const Suite& suite, const CheckOptions& options,
                      const std::function<void(const std::string&)>& progress) {
  DataReport report;
  Pictures pictures(report, options.deep);
  report.tasks.reserve(suite.tasks.size());
  for (const SuiteTask& task : suite.tasks) {
    if (progress) progress(task.name);
    TaskCheck& check = report.tasks.emplace_back();
    check.task = task.name;
    Context context{suite, task, options, report, pictures, check};
    suite.kind == "classify" ? check_classes(context) : check_records(context);
  }
  std::size_t next = 0;
  for (const SuiteStage& stage : suite.stages) {
    std::int64_t rows = 0;
    const std::size_t first = next;
    for (; next < first + stage.tasks.size(); ++next) rows += report.tasks[next].train_rows;
    if (stage.clients.empty()) continue;
    TaskCheck none;
    Context context{suite, suite.tasks[first], options, report, pictures, none};
    check_clients(context, stage.name, stage.clients, rows);
  }
  return report;
}

}  // namespace mcit
