#include "data/classification.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>

#include "core/files.hpp"
#include "core/random.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

std::string words_of(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

bool is_picture(const fs::path& file) {
  const std::string extension = lowered(file.extension().string());
  return extension == ".jpg" || extension == ".jpeg" || extension == ".png";
}

bool is_inside(const fs::path& path) {
  return path.is_relative() && std::find(path.begin(), path.end(), "..") == path.end();
}

/// Names of the entries of `folder` that `keep` accepts, sorted.
template <class Keep>
std::vector<std::string> names_in(const fs::path& folder, const Keep& keep) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (keep(entry)) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// "relative/path label". @throws std::runtime_error saying what is wrong with the line.
ClassRecord read_line(std::string_view line) {
  const std::size_t blank = line.rfind(' ');
  if (blank == std::string_view::npos)
    throw std::runtime_error("expected 'path label', found '" + std::string(line) + "'");
  const std::string_view digits = line.substr(blank + 1);
  ClassRecord out;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out.label);
  if (error != std::errc{} || end != digits.data() + digits.size() || out.label < 0)
    throw std::runtime_error("'" + std::string(digits) + "' is no label; labels are whole numbers from 0");
  const fs::path written = trimmed(line.substr(0, blank));
  const std::string quoted = "'" + written.string() + "'";
  if (!is_inside(written))
    throw std::runtime_error(quoted + " leads out of the data; write a path below image_root, without '..'");
  if (!is_picture(written))
    throw std::runtime_error(quoted + " is no picture; known extensions: .jpg, .jpeg, .png");
  const fs::path path = written.lexically_normal();
  if (!path.has_parent_path())
    throw std::runtime_error(quoted + " lies in no folder; its folder's name is its class");
  out.id = out.image = path.generic_string();
  return out;
}

class Reader {
 public:
  Reader(const Suite& suite, const SuiteTask& task, const ClassFault& fault)
      : suite_(suite), task_(task), fault_(fault) {}

  ClassTask read() {
    task_.folder.empty() ? read_lists() : read_folder();
    // What a faulty line or folder would have given may be just what is missing.
    if (!faulty_) check_whole();
    return std::move(out_);
  }

 private:
  /// Where a class of the lists was first seen.
  struct First {
    std::string name;
    fs::path file;
    std::int64_t line;
  };

  void fault(const fs::path& file, std::int64_t line, const std::string& what) {
    faulty_ = true;
    fault_(file, line, what);
  }

  void read_folder();
  void split(const std::string& name, const std::vector<std::string>& pictures);
  void read_lists();
  std::vector<ClassRecord> read_list(const fs::path& file);
  ClassRecord read_named(std::string_view line, const fs::path& file, std::int64_t number);
  void check_whole();

  const Suite& suite_;
  const SuiteTask& task_;
  const ClassFault& fault_;
  bool faulty_ = false;
  std::map<std::int64_t, First> labels_;  // of both lists
  ClassTask out_;
};

void Reader::read_folder() {
  const fs::path top = suite_.data / suite_.image_root / task_.folder;
  if (!is_inside(task_.folder))
    return fault(top, 0, "leads out of the data; give 'folder' below image_root, without '..'");
  if (!fs::is_directory(top)) return fault(top, 0, "is no folder; check 'folder', image_root and --data");
  auto names = names_in(top, [](const fs::directory_entry& entry) { return entry.is_directory(); });
  if (suite_.most_classes > 0 && std::ssize(names) > suite_.most_classes)
    names.resize(static_cast<std::size_t>(suite_.most_classes));
  for (const std::string& name : names) {
    const auto pictures = names_in(top / name, [](const fs::directory_entry& entry) {
      return entry.is_regular_file() && is_picture(entry.path());
    });
    if (pictures.empty())
      fault(top, 0,
            "the class folder '" + name + "' holds no picture; remove it or add .jpg, .jpeg or .png files");
    else
      split(name, pictures);
    out_.classes.push_back(words_of(name));
  }
}

void Reader::split(const std::string& name, const std::vector<std::string>& pictures) {
  auto order = Rng(derive(suite_.split_seed, {"split", std::string_view(task_.name), std::string_view(name)}))
                   .permutation(pictures.size());
  const auto share = std::llround(suite_.train_share * static_cast<double>(pictures.size()));
  const auto first_test = order.begin() + std::max<std::ptrdiff_t>(1, share);
  std::sort(order.begin(), first_test);
  std::sort(first_test, order.end());
  for (auto at = order.begin(); at != order.end(); ++at) {
    const fs::path path = task_.folder / name / pictures[static_cast<std::size_t>(*at)];
    const std::string image = path.lexically_normal().generic_string();
    (at < first_test ? out_.train : out_.test).push_back({image, image, std::ssize(out_.classes)});
  }
}

void Reader::read_lists() {
  out_.train = read_list(suite_.data / task_.train);
  out_.test = read_list(suite_.data / task_.test);
  for (const auto& [label, first] : labels_) {
    const auto expected = std::ssize(out_.classes);
    if (label != expected && !faulty_)
      fault(first.file, first.line,
            "label " + std::to_string(label) + ", and no picture has label " + std::to_string(expected) +
                "; labels count from 0 without a gap");
    out_.classes.push_back(first.name);
  }
  if (suite_.most_classes == 0 || std::ssize(out_.classes) <= suite_.most_classes) return;
  out_.classes.resize(static_cast<std::size_t>(suite_.most_classes));
  for (auto* records : {&out_.train, &out_.test})
    std::erase_if(*records, [&](const ClassRecord& record) { return record.label >= suite_.most_classes; });
}

std::vector<ClassRecord> Reader::read_list(const fs::path& file) {
  std::vector<ClassRecord> out;
  if (!fs::is_regular_file(file)) {
    fault(file, 0, "does not exist; 'train' and 'test' start from the folder of --data");
    return out;
  }
  std::istringstream lines(read_file(file));
  std::int64_t number = 0;
  for (std::string text; std::getline(lines, text);) {
    ++number;
    const std::string_view line = trimmed(text);
    if (line.empty()) continue;
    std::string what;
    try {
      out.push_back(read_named(line, file, number));
    } catch (const std::runtime_error& e) {
      what = e.what();
    }
    if (!what.empty()) fault(file, number, what);
  }
  return out;
}

/// A line whose label and class name go with those of the lines before.
ClassRecord Reader::read_named(std::string_view line, const fs::path& file, std::int64_t number) {
  ClassRecord record = read_line(line);
  record.line = number;
  const std::string name = words_of(fs::path(record.image).parent_path().filename().string());
  const First& first = labels_.try_emplace(record.label, First{name, file, number}).first->second;
  if (first.name != name)
    throw std::runtime_error("label " + std::to_string(record.label) + " is '" + name + "' here and '" +
                             first.name + "' in line " + std::to_string(first.line) + " of " +
                             first.file.string() + "; a label has one class name");
  return record;
}

void Reader::check_whole() {
  const bool listed = task_.folder.empty();
  const fs::path train = listed ? suite_.data / task_.train : suite_.data / suite_.image_root / task_.folder;
  if (out_.train.empty()) return fault(train, 0, "holds no picture; a task needs training and test pictures");
  if (out_.test.empty() && listed)
    return fault(suite_.data / task_.test, 0, "holds no picture; a task needs training and test pictures");
  if (out_.test.empty()) return fault(train, 0, "no picture is left for the test; lower train_share");
  if (out_.classes.size() < 2) fault(train, 0, "holds one class; a task needs at least two");
  std::set<std::string> names;
  for (const std::string& name : out_.classes)
    if (!names.insert(name).second)
      fault(train, 0, "two classes are called '" + name + "' ('_' is read as ' '); rename one");
}

}  // namespace

ClassTask read_class_task(const Suite& suite, const SuiteTask& task) {
  return read_class_task(suite, task, [](const fs::path& file, std::int64_t line, const std::string& what) {
    const std::string at = line > 0 ? ": line " + std::to_string(line) : "";
    throw DataError(file.string() + at, what);
  });
}

ClassTask read_class_task(const Suite& suite, const SuiteTask& task, const ClassFault& fault) {
  return Reader(suite, task, fault).read();
}

}  // namespace mcit
