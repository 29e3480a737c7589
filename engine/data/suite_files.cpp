#include "data/suite_files.hpp"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <tuple>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

bool is_pattern(const fs::path& name) { return name.filename().string().find('*') != std::string::npos; }

/// The number that stands in a file name where the pattern has its star; big when there is none.
std::tuple<std::uint64_t, std::string> rank(const fs::path& file, std::size_t before) {
  const std::string name = file.filename().string();
  std::uint64_t number = 0;
  std::size_t at = before;
  constexpr std::uint64_t kMost = UINT64_MAX / 10 - 1;
  for (; at < name.size() && name[at] >= '0' && name[at] <= '9' && number < kMost; ++at)
    number = 10 * number + static_cast<std::uint64_t>(name[at] - '0');
  return {at == before ? UINT64_MAX : number, name};
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// The first of `names` that is there below `data`.
std::optional<fs::path> first_there(const Suite& suite, const FileNames& names) {
  for (const fs::path& name : names)
    if (is_pattern(name) ? !files_of(suite, name).empty() : is_there(suite.data / name)) return name;
  return std::nullopt;
}

void take(const Suite& suite, const FileNames& names, fs::path& out) {
  if (!names.empty()) out = first_there(suite, names).value_or(names.front());
}

/// Every file or folder that the suite cannot do without, with its other names.
std::vector<FileNames> wanted(const Suite& suite) {
  std::vector<FileNames> out;
  for (const SuiteTask& task : suite.tasks) {
    if (!task.folder.empty()) {
      out.push_back({suite.image_root / task.folder});
      continue;
    }
    out.push_back(task.train_names);
    out.push_back(task.test_names);
    if (!task.golds_names.empty()) out.push_back(task.golds_names);
  }
  return out;
}

}  // namespace

void locate(Suite& suite) {
  take(suite, suite.image_root_names, suite.image_root);
  for (SuiteTask& task : suite.tasks) {
    take(suite, task.train_names, task.train);
    take(suite, task.test_names, task.test);
    if (!task.golds_names.empty()) {
      take(suite, task.golds_names, task.test_form.golds);
      task.test_form.golds = suite.data / task.test_form.golds;
    }
    if (task.image_root) take(suite, task.image_root_names, *task.image_root);
    if (task.test_image_root) take(suite, task.test_image_root_names, *task.test_image_root);
  }
}

std::vector<fs::path> files_of(const Suite& suite, const fs::path& name) {
  const fs::path file = suite.data / name;
  if (!is_pattern(name)) return {file};
  const std::string pattern = name.filename().string();
  const std::size_t star = pattern.find('*');
  const std::string before = pattern.substr(0, star), behind = pattern.substr(star + 1);
  std::vector<fs::path> out;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(file.parent_path(), ignored)) {
    const std::string found = entry.path().filename().string();
    if (found.size() >= before.size() + behind.size() && found.starts_with(before) && found.ends_with(behind))
      out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end(), [&](const fs::path& a, const fs::path& b) {
    return rank(a, before.size()) < rank(b, before.size());
  });
  return out;
}

std::vector<Record> read_task(const Suite& suite, const SuiteTask& task, RecordKind kind) {
  const bool train = kind == RecordKind::train;
  const fs::path& name = train ? task.train : task.test;
  const std::vector<fs::path> files = files_of(suite, name);
  if (files.empty()) throw DataError((suite.data / name).string(), "there is no such file");
  std::vector<Record> out;
  for (const fs::path& file : files) {
    std::vector<Record> rows = read_records(file, kind, train ? task.train_form : task.test_form);
    if (out.empty()) {
      out = std::move(rows);
    } else {
      out.insert(out.end(), std::make_move_iterator(rows.begin()), std::make_move_iterator(rows.end()));
    }
  }
  return out;
}

fs::path picture_root(const Suite& suite, const SuiteTask& task, RecordKind kind) {
  const bool test = kind == RecordKind::test;
  if (test && task.test_image_root) return suite.data / *task.test_image_root;
  return suite.data / task.image_root.value_or(suite.image_root);
}

DataPlace find_data(const Suite& suite, const std::vector<fs::path>& roots) {
  DataPlace best;
  const std::vector<FileNames> all = wanted(suite);
  Suite looked;  // only its data folder is asked for
  const auto look = [&](const fs::path& folder) {
    if (!is_there(folder)) return;
    looked.data = folder;
    const auto found = std::count_if(all.begin(), all.end(), [&](const FileNames& names) {
      return first_there(looked, names).has_value();
    });
    if (found > best.found) best = {folder, found, std::ssize(all)};
  };
  for (const fs::path& root : roots) {
    look(root);
    look(root / suite.name);
    for (const std::string& home : suite.homes) look(root / home);
  }
  best.wanted = std::ssize(all);
  return best;
}

std::vector<fs::path> data_roots() {
  std::vector<fs::path> out;
  const char* given = std::getenv("MCIT_DATA");
  const std::string all = given == nullptr ? "" : given;
  for (std::size_t at = 0; at < all.size();) {
    const std::size_t end = std::min(all.find(':', at), all.size());
    if (end > at) out.emplace_back(all.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

}  // namespace mcit
