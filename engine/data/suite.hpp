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
  std::filesystem::path train, test;  ///< relative to the suite's data folder; empty where `folder` is given
  std::filesystem::path folder;       ///< classify: one folder for each class, below data/image_root
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
  std::string kind = "instruct";  ///< or "classify": pictures to classes by image-text similarity
  std::string prompt_template;  ///< empty: the model's own
  std::filesystem::path data;        ///< folder that files and pictures start from; empty until it is known
  std::filesystem::path image_root;  ///< relative to `data`
  std::vector<SuiteTask> tasks;      ///< in stream order
  std::string class_template = "a photo of a {}.";  ///< classify: a class name's text; {} is the name
  double train_share = 0.1;       ///< classify: of each class of a `folder`, at least one picture
  std::uint64_t split_seed = 1;   ///< classify: which pictures these are
  std::int64_t most_classes = 0;  ///< classify: only the first so many classes of each task; 0 = all
  std::filesystem::path probe;    ///< training records like the model's pre-training data; may be empty
  std::optional<Config> builtin;  ///< the [mini] table: the data is made, not given
  Config file;                    ///< all of it; whoever has read [mini] finishes it
};

/// Reads `file`. Keys of both kinds: name, kind, data, image_root, order, [mini], and [[tasks]] with name,
/// chance, steps, expected_train, expected_test. Only of
///   instruct  template, probe; tasks: train, test, scorer, answers, closed, max_new_tokens, suffix
///   classify  class_template, classes, train_share, split_seed; tasks: folder, or train and test
/// @param order task names in the order to stream them, a subset allowed; empty = the suite's own
/// @throws ConfigError naming file, line and key.
Suite read_suite(const std::filesystem::path& file, const std::vector<std::string>& order = {});

/// Files called *.toml below the folders that are suites, by name, sorted.
std::vector<std::pair<std::string, std::filesystem::path>> list_suites(
    const std::vector<std::filesystem::path>& folders);

/// A suite's name or file. @throws ConfigError with near names.
std::filesystem::path find_suite(const std::string& name, const std::vector<std::filesystem::path>& folders);

}  // namespace mcit
