#pragma once
/// The folder of one run: who may write it, and what its files are called.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace mcit {

/// Holds the lock of a run's folder: two processes cannot write one run. The lock ends with the process,
/// however it ends.
class RunDir {
 public:
  /// Makes the folder or takes an empty one. @throws ConfigError when it holds something else, naming what to
  /// do.
  static RunDir create(const std::filesystem::path& root);
  /// An existing run, to go on. @throws ConfigError when it is not one or another process has it.
  static RunDir open(const std::filesystem::path& root);
  /// Empties an existing run's folder of the files named here and takes it. Foreign files are refused, not
  /// deleted.
  static RunDir overwrite(const std::filesystem::path& root);
  /// A run that another process of the same group has made or opened: to read, without the lock.
  static RunDir beside(const std::filesystem::path& root) { return {root, -1}; }

  RunDir(const RunDir&) = delete;
  RunDir& operator=(const RunDir&) = delete;
  RunDir(RunDir&& other) noexcept;
  RunDir& operator=(RunDir&& other) noexcept;
  ~RunDir();

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path result() const { return root_ / "result.json"; }
  std::filesystem::path matrix_csv() const { return root_ / "matrix.csv"; }
  std::filesystem::path matrix_svg() const { return root_ / "matrix.svg"; }
  std::filesystem::path config() const { return root_ / "config.toml"; }
  std::filesystem::path log() const { return root_ / "log.txt"; }
  std::filesystem::path metrics() const { return root_ / "metrics.jsonl"; }
  /// Of TensorBoard, whose file names must hold "tfevents".
  std::filesystem::path events() const { return root_ / "events.out.tfevents.mcit"; }
  std::filesystem::path snapshots() const { return root_ / "snapshots"; }
  /// predictions/<stage>_<task>.jsonl, stage 0 being the untrained base. The task name is made safe as a file
  /// name.
  std::filesystem::path predictions(std::int64_t stage, std::string_view task) const;
  /// plots/<stage>_<name>.svg, of a table that the strategy kept of a stage.
  std::filesystem::path plot(std::int64_t stage, std::string_view name) const;

 private:
  RunDir(std::filesystem::path root, int lock) : root_(std::move(root)), lock_(lock) {}

  std::filesystem::path root_;
  int lock_ = -1;
};

/// What RunDir::predictions() names, without the lock: for readers of a run.
std::filesystem::path predictions_file(const std::filesystem::path& root, std::int64_t stage,
                                       std::string_view task);

/// Letters, digits, '-', '_' and '.' stay, the rest becomes '_'; never empty, never a dot file.
std::string safe_file_name(std::string_view name);

}  // namespace mcit
