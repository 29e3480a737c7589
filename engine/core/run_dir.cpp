#include "core/run_dir.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "core/files.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLockFile = ".mcit-run";
constexpr std::array<std::string_view, 13> kOurs = {"nonfinite_batch.json",
                                                    "result.json",
                                                    "matrix.csv",
                                                    "matrix.svg",
                                                    "config.toml",
                                                    "log.txt",
                                                    "metrics.jsonl",
                                                    "events.out.tfevents.mcit",
                                                    "snapshots",
                                                    "predictions",
                                                    "plots",
                                                    "rescored",
                                                    kLockFile};

bool is_run(const fs::path& root) {
  std::error_code error;
  return fs::is_regular_file(root / kLockFile, error);
}

/// A run that has written nothing yet but its lock.
bool is_unused(const fs::path& root) {
  return std::distance(fs::directory_iterator(root), fs::directory_iterator()) == (is_run(root) ? 1 : 0);
}

/// A temporary file that a killed process left of an atomic write to one of ours: ".result.json.XXXXXX".
bool is_leftover(const std::string& name) {
  return std::any_of(kOurs.begin(), kOurs.end(), [&](std::string_view known) {
    return name.starts_with("." + std::string(known) + ".");
  });
}

/// The name of the first entry that no run of ours would have made, or empty.
std::string foreign_entry(const fs::path& root) {
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) {
    const std::string name = entry.path().filename().string();
    if (!is_leftover(name) && std::find(kOurs.begin(), kOurs.end(), std::string_view(name)) == kOurs.end())
      return name;
  }
  return {};
}

int lock(const fs::path& root) {
  const fs::path file = root / kLockFile;
  const int descriptor = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0)
    throw ConfigError(root.string(), std::string("cannot be written: ") + std::strerror(errno));
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    ::close(descriptor);
    throw ConfigError(root.string(), "another process is writing this run",
                      "wait for it, or choose another folder");
  }
  return descriptor;
}

std::string numbered(std::int64_t stage) {
  char number[24];
  std::snprintf(number, sizeof number, "%02lld_", static_cast<long long>(stage));
  return number;
}

void make_folder(const fs::path& root) {
  std::error_code error;
  fs::create_directories(root, error);
  if (error) throw ConfigError(root.string(), "cannot make the folder: " + error.message());
}

}  // namespace

RunDir RunDir::create(const fs::path& root) {
  std::error_code error;
  if (fs::exists(root, error)) {
    if (!fs::is_directory(root, error)) throw ConfigError(root.string(), "is a file, a folder is needed");
    const bool unused = is_unused(root);
    if (!unused && is_run(root))
      throw ConfigError(root.string(), "already holds a run",
                        "continue it with --resume, replace it with --overwrite, or choose another folder");
    if (!unused)
      throw ConfigError(root.string(), "is not empty and not a run of mcit", "choose a new or empty folder");
  }
  make_folder(root);
  return {root, lock(root)};
}

RunDir RunDir::open(const fs::path& root) {
  std::error_code error;
  if (!fs::exists(root, error)) throw ConfigError(root.string(), "there is no such folder");
  if (!is_run(root))
    throw ConfigError(root.string(), "is not a run of mcit", "name the folder given as --out");
  return {root, lock(root)};
}

RunDir RunDir::overwrite(const fs::path& root) {
  if (!is_run(root)) return create(root);
  const std::string foreign = foreign_entry(root);
  if (!foreign.empty())
    throw ConfigError(root.string(), "holds '" + foreign + "', which no run has written",
                      "move it away first");
  RunDir taken(root, lock(root));
  std::vector<fs::path> old;
  for (const fs::directory_entry& entry : fs::directory_iterator(root))
    if (entry.path().filename() != kLockFile) old.push_back(entry.path());
  for (const fs::path& path : old) {
    std::error_code error;
    fs::remove_all(path, error);
    if (error) throw ConfigError(path.string(), "cannot be removed: " + error.message());
  }
  return taken;
}

RunDir::RunDir(RunDir&& other) noexcept
    : root_(std::move(other.root_)), lock_(std::exchange(other.lock_, -1)) {}

RunDir& RunDir::operator=(RunDir&& other) noexcept {
  std::swap(root_, other.root_);
  std::swap(lock_, other.lock_);
  return *this;
}

RunDir::~RunDir() {
  if (lock_ >= 0) ::close(lock_);  // and with it the lock
}

fs::path RunDir::predictions(std::int64_t stage, std::string_view task) const {
  return predictions_file(root_, stage, task);
}

fs::path predictions_file(const fs::path& root, std::int64_t stage, std::string_view task) {
  return root / "predictions" / (numbered(stage) + safe_file_name(task) + ".jsonl");
}

fs::path RunDir::plot(std::int64_t stage, std::string_view name) const {
  return root_ / "plots" / (numbered(stage) + safe_file_name(name) + ".svg");
}

std::string safe_file_name(std::string_view name) {
  std::string safe;
  for (const char c : name) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_' || c == '.';
    safe.push_back(plain ? c : '_');
  }
  if (safe.empty() || safe.front() == '.') safe.insert(safe.begin(), '_');
  return safe;
}

}  // namespace mcit
