#pragma once
/// A benchmark suite: which tasks, in which order, from which files, scored how. TOML, never code.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/config.hpp"
#include "data/records.hpp"

namespace mcit {

/// What a file or folder may be called, most wanted first: distributions of one benchmark differ.
using FileNames = std::vector<std::filesystem::path>;

struct SuiteTask {
  std::string name;
  /// Relative to the suite's data folder; empty where `folder` is given. The first of the names below, until
  /// locate() has found the one that is there. May hold a "*" in its last part: all such files, see
  /// files_of().
  std::filesystem::path train, test;
  FileNames train_names, test_names, golds_names;
  std::filesystem::path clients;  ///< the training rows split by client, "Task1/client_*.json"; may be empty
  std::filesystem::path folder;   ///< classify: one folder for each class, below data/image_root
  RecordForm train_form, test_form;
  std::optional<std::filesystem::path> image_root, test_image_root;  ///< instead of the suite's
  FileNames image_root_names, test_image_root_names;
  std::filesystem::path image_prefix;  ///< that every picture's path starts with; may be empty
  std::string scorer = "exact";
  std::vector<std::string> answers;  ///< closed answer set; empty for free text
  bool closed = false;               ///< the set is every answer of the task's records
  std::optional<double> chance;      ///< percent, best guess without the picture
  std::int64_t max_new_tokens = 16;
  std::int64_t steps = 0;  ///< optimizer steps for this task alone; 0 = by epochs, else the run's train.steps
  double epochs = 0;       ///< passes over its rows, where steps is 0; 0 = the run's train.steps
  std::string suffix;      ///< appended to every question
  std::vector<std::int64_t> expected_train, expected_test;  ///< row counts that are right; empty: not known
};

/// Tasks that are trained together, where a published stream has such stages.
struct SuiteStage {
  std::string name;
  std::vector<std::string> tasks;
  std::filesystem::path clients;  ///< the stage's training rows split by client; may be empty
};

/// What a suite says to its readers; nothing is computed from it.
struct SuiteTexts {
  std::string title, paper;
  std::string source;              ///< where the data comes from
  std::string layout;              ///< of the data folder
  std::string prompts, pictures;   ///< how the published code writes prompts and prepares pictures
  std::vector<std::string> notes;  ///< what distributions, papers and code do not agree on
};

struct Suite {
  std::string name;
  std::string kind = "instruct";     ///< or "classify": pictures to classes by image-text similarity
  std::string prompt_template;       ///< empty: the model's own
  std::filesystem::path data;        ///< folder that files and pictures start from; empty until it is known
  std::vector<std::string> homes;    ///< what that folder is called inside a folder of data sets
  std::filesystem::path image_root;  ///< relative to `data`
  FileNames image_root_names;
  bool pad_square = false;         ///< pictures are padded to squares, unless a run says otherwise
  std::vector<SuiteTask> tasks;    ///< in stream order
  std::vector<SuiteStage> stages;  ///< in stream order; empty: one for each task
  std::string class_template = "a photo of a {}.";  ///< classify: a class name's text; {} is the name
  double train_share = 0.1;       ///< classify: of each class of a `folder`, at least one picture
  std::uint64_t split_seed = 1;   ///< classify: which pictures these are
  std::int64_t most_classes = 0;  ///< classify: only the first so many classes of each task; 0 = all
  std::filesystem::path probe;    ///< training records like the model's pre-training data; may be empty
  std::optional<Config> builtin;  ///< the [mini] table: the data is made, not given
  SuiteTexts texts;
  Config file;  ///< all of it; whoever has read [mini] finishes it
};

/// Reads `file`. Keys of both kinds: name, kind, extends, data, homes, image_root, order, [folders], [mini],
/// title, paper, source, layout, prompts, pictures, notes, and [[tasks]] with name, chance, steps, epochs,
/// expected_train, expected_test. Only of
///   instruct  template, probe, pad_square, [[stages]] (name, tasks, clients); tasks: train, test,
///   train_form, test_form,
///             golds, clients, question, [[question_end]] (answers, text), image_root, test_image_root,
///             image_prefix, scorer, answers, closed, max_new_tokens, suffix
///   classify  class_template, classes, train_share, split_seed; tasks: folder, or train and test
/// `extends` names another suite, by its file or by its name, whose keys hold where this one has none; so do
/// the entries of [folders]. "{name}" in a file name is replaced by what [folders] has under that name, each
/// of its entries in turn.
/// @param order task names in the order to stream them, a subset allowed, each a stage of its own; empty =
/// the
///   suite's own
/// @param folders where suites that are extended by name are found
/// @throws ConfigError naming file, line and key.
Suite read_suite(const std::filesystem::path& file, const std::vector<std::string>& order = {},
                 const std::vector<std::filesystem::path>& folders = {});

/// Files called *.toml below the folders that are suites, by name, sorted; those in published/ hold numbers.
std::vector<std::pair<std::string, std::filesystem::path>> list_suites(
    const std::vector<std::filesystem::path>& folders);

/// "40000", "129833 or 117715"; "–" where no count is known.
std::string counts_text(const std::vector<std::int64_t>& expected);

/// A suite's name or file. @throws ConfigError with near names.
std::filesystem::path find_suite(const std::string& name, const std::vector<std::filesystem::path>& folders);

}  // namespace mcit
