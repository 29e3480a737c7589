#pragma once
/// A benchmark suite: which tasks, in which order, from which files, scored how. TOML, never code.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/config.hpp"

namespace mcit {

struct SuiteTask {
  std::string name;
  std::filesystem::path train, test;  ///< relative to the suite's data folder
  std::string scorer = "exact";
  std::vector<std::string> answers;  ///< closed answer set; empty for free text
  bool closed = false;               ///< the set is every answer of the task's records
  std::optional<double> chance;      ///< percent, best guess without the picture
  std::int64_t max_new_tokens = 16;
  std::int64_t steps = 0;  ///< optimizer steps for this task alone; 0 = the run's train.steps
  std::string suffix;      ///< appended to every question
  std::optional<std::int64_t> expected_train, expected_test;  ///< row counts, for check-data
};

struct Suite {
  std::string name;
  std::string prompt_template = "plain";
  std::filesystem::path data;        ///< folder that files and pictures start from; empty until it is known
  std::filesystem::path image_root;  ///< relative to `data`
  std::vector<SuiteTask> tasks;      ///< in stream order
  std::filesystem::path probe;       ///< training records like the model's pre-training data; may be empty
  std::optional<Config> builtin;     ///< the [mini] table: the data is made, not given
  Config file;                       ///< all of it; whoever has read [mini] finishes it
};

/// Reads `file`. Keys: name, template, data, image_root, order, probe, [mini], and [[tasks]] with name,
/// train, test, scorer, answers, closed, chance, max_new_tokens, steps, suffix, expected_train,
/// expected_test.
/// @param order task names in the order to stream them, a subset allowed; empty = the suite's own
/// @throws ConfigError naming file, line and key.
Suite read_suite(const std::filesystem::path& file, const std::vector<std::string>& order = {});

/// Files called *.toml below the folders that are suites, by name, sorted.
std::vector<std::pair<std::string, std::filesystem::path>> list_suites(
    const std::vector<std::filesystem::path>& folders);

/// A suite's name or file. @throws ConfigError with near names.
std::filesystem::path find_suite(const std::string& name, const std::vector<std::filesystem::path>& folders);

}  // namespace mcit
