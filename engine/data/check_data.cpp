#include "data/check_data.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "data/classification.hpp"
#include "data/image.hpp"
#include "data/records.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

/// Collects the faults of one file, at most `limit` of them in full.
class FileCheck {
 public:
  FileCheck(DataReport& report, std::string task, std::string file, std::int64_t limit)
      : report_(report), task_(std::move(task)), file_(std::move(file)), limit_(limit) {}
  void fault(std::int64_t row, const std::string& what) {
    ++report_.total_faults;
    if (shown_++ < limit_) report_.faults.push_back({task_, file_, row, what});
  }

 private:
  DataReport& report_;
  std::string task_, file_;
  std::int64_t limit_, shown_ = 0;
};

struct Context {
  const Suite& suite;
  const SuiteTask& task;
  bool deep;
  std::map<std::string, std::string>& pictures;  ///< path -> what is wrong with it, or empty
};

void check_picture(Context& context, FileCheck& check, std::int64_t row, const std::string& image) {
  if (image.empty()) return;
  const std::string path = (context.suite.data / context.suite.image_root / image).string();
  const auto [known, fresh] = context.pictures.try_emplace(path);
  if (fresh) {
    if (!std::filesystem::is_regular_file(path)) {
      known->second = "'" + path + "' does not exist";
    } else if (context.deep) {
      try {
        read_image(path);
      } catch (const std::exception& e) {
        known->second = e.what();
      }
    }
  }
  if (!known->second.empty()) check.fault(row, "image: " + known->second);
}

/// The identity of a row as a question about a picture.
std::string question_key(const Record& record) { return record.image + "\n" + record.turns.front().first; }

void check_answer(const Context& context, FileCheck& check, std::int64_t row, const std::string& answer) {
  const auto& set = context.task.answers;
  if (!set.empty() && std::find(set.begin(), set.end(), answer) == set.end())
    check.fault(row, "answer: '" + answer + "' is not in the task's answer set");
}

/// @return rows read, faulty ones included
std::int64_t check_file(Context& context, DataReport& report, const std::filesystem::path& name,
                        RecordKind kind, std::optional<std::int64_t> expected, std::int64_t limit,
                        std::map<std::string, std::string>& answers_of) {
  const auto file = context.suite.data / name;
  FileCheck check(report, context.task.name, file.string(), limit);
  std::vector<Record> records;
  std::vector<std::int64_t> bad;
  try {
    records = read_records(file, kind, [&](std::int64_t row, const std::string& what) {
      check.fault(row, what);
      bad.push_back(row);
    });
  } catch (const std::exception& e) {
    check.fault(0, e.what());
    return 0;
  }
  const auto rows = static_cast<std::int64_t>(records.size() + bad.size());
  if (expected && rows != *expected)
    check.fault(0, "holds " + std::to_string(rows) + " rows, the suite expects " + std::to_string(*expected));
  std::set<std::string> ids;
  std::size_t next_bad = 0;
  std::int64_t row = 0;
  for (const Record& record : records) {
    for (++row; next_bad < bad.size() && bad[next_bad] == row; ++row) ++next_bad;
    if (!ids.insert(record.id).second) check.fault(row, "id: '" + record.id + "' occurs twice");
    check_picture(context, check, row, record.image);
    if (kind == RecordKind::train) {
      for (const auto& [question, answer] : record.turns) check_answer(context, check, row, answer);
      answers_of.emplace(question_key(record), record.turns.front().second);
    } else {
      for (const std::string& gold : record.golds) check_answer(context, check, row, gold);
      if (!record.image.empty() && answers_of.contains(question_key(record)))
        check.fault(row, "the same question about the same picture is a training row");
    }
  }
  return rows;
}

TaskCheck check_records(Context& context, DataReport& report, std::int64_t limit) {
  const SuiteTask& task = context.task;
  std::map<std::string, std::string> answers_of;
  TaskCheck check{task.name, 0, 0, 0};
  check.train_rows =
      check_file(context, report, task.train, RecordKind::train, task.expected_train, limit, answers_of);
  check.test_rows =
      check_file(context, report, task.test, RecordKind::test, task.expected_test, limit, answers_of);
  return check;
}

/// The pictures of one side of a classify task; `earlier` holds those of the sides before and gets these.
/// @return their number
std::int64_t check_side(Context& context, FileCheck& check, const std::string& side,
                        const std::vector<ClassRecord>& records, std::optional<std::int64_t> expected,
                        std::set<std::string>& earlier) {
  if (expected && std::ssize(records) != *expected)
    check.fault(0, "holds " + std::to_string(records.size()) + " " + side + " pictures, the suite expects " +
                       std::to_string(*expected));
  std::set<std::string> seen;
  for (const ClassRecord& record : records) {
    const std::string quoted = "image: '" + record.image + "'";
    if (!seen.insert(record.image).second) check.fault(record.line, quoted + " occurs twice");
    if (earlier.contains(record.image)) check.fault(record.line, quoted + " is a training picture");
    check_picture(context, check, record.line, record.image);
  }
  earlier.merge(seen);
  return std::ssize(records);
}

TaskCheck check_classes(Context& context, DataReport& report, std::int64_t limit) {
  const Suite& suite = context.suite;
  const SuiteTask& task = context.task;
  std::map<std::filesystem::path, FileCheck> checks;  // of both lists, or of the folder
  const auto check = [&](const std::filesystem::path& file) -> FileCheck& {
    return checks.try_emplace(file, report, task.name, file.string(), limit).first->second;
  };
  const bool listed = task.folder.empty();
  const auto folder = suite.data / suite.image_root / task.folder;
  FileCheck& train = check(listed ? suite.data / task.train : folder);
  FileCheck& test = check(listed ? suite.data / task.test : folder);
  ClassTask read;
  bool whole = true;
  try {
    read = read_class_task(
        suite, task, [&](const std::filesystem::path& file, std::int64_t line, const std::string& what) {
          check(file).fault(line, what);
          whole = false;
        });
  } catch (const std::exception& e) {
    train.fault(0, e.what());
    whole = false;
  }
  const auto expected = [&](std::optional<std::int64_t> rows) { return whole ? rows : std::nullopt; };
  std::set<std::string> pictures;
  TaskCheck out{task.name, 0, 0, 0};
  out.train_rows =
      check_side(context, train, "training", read.train, expected(task.expected_train), pictures);
  out.test_rows = check_side(context, test, "test", read.test, expected(task.expected_test), pictures);
  return out;
}

}  // namespace

DataReport check_data(const Suite& suite, bool deep, std::int64_t limit,
                      const std::function<void(const std::string&)>& progress) {
  DataReport report;
  std::map<std::string, std::string> pictures;
  for (const SuiteTask& task : suite.tasks) {
    if (progress) progress(task.name);
    const std::size_t before = pictures.size();
    Context context{suite, task, deep, pictures};
    TaskCheck check = suite.kind == "classify" ? check_classes(context, report, limit)
                                               : check_records(context, report, limit);
    check.pictures = static_cast<std::int64_t>(pictures.size() - before);
    report.tasks.push_back(check);
  }
  return report;
}

}  // namespace mcit
