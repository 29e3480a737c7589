#pragma once
/// Numbers that papers print, as data: benchmarks/mcit/published/*.toml (docs/reference/published.md).

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/matrix.hpp"

namespace mcit {

/// How a number is known.
enum class Evidence { read, quoted, reported, unverified };
/// "read", …, as in the files; and in words: "read in another paper's or a reviewer's copy".
std::string_view evidence_name(Evidence evidence);
std::string_view evidence_words(Evidence evidence);

/// Under what numbers were made, by condition; what is not known is not there.
using Conditions = std::map<std::string, std::string>;
struct ConditionInfo {
  std::string_view name;
  std::string_view title;
};
/// All conditions in the order they are shown.
const std::vector<ConditionInfo>& condition_catalogue();

struct PublishedTask {
  std::string name;   ///< as suites call it
  std::string title;  ///< as it is printed
  std::vector<std::string> aliases;
};

/// A number with the digits that it was printed with.
struct PrintedNumber {
  std::string text;
  double value = 0.0;
};

/// One method in one table.
struct PublishedRow {
  std::string method;
  std::string strategy;  ///< mcit's name for it; empty where there is none
  bool bound = false;    ///< untrained, joint or single-task training: no method
  Evidence evidence = Evidence::unverified;
  std::vector<std::optional<double>> finals;     ///< by task; none, or one a task
  std::vector<std::optional<double>> learned;    ///< right after each task was learned; likewise
  std::optional<AccuracyMatrix> matrix;          ///< then finals and learned are its own
  std::map<std::string, double> metrics;         ///< by the name in metric_catalogue()
  std::map<std::string, PrintedNumber> printed;  ///< under a name whose definition is not known or not ours
  int decimals = 2;                              ///< of all but `printed`: rounding errors follow from them
  std::string reason;  ///< why the numbers do not agree with each other; empty where they do
  std::string note;
  Conditions conditions;  ///< the table's, overridden by the row's
};

/// What one source prints together: numbers of one table were meant to be compared.
struct PublishedTable {
  std::string name;
  std::string title;
  std::string source;
  std::string note;
  Evidence evidence = Evidence::unverified;
  Conditions conditions;
  std::vector<PublishedRow> rows;
};

/// A suite whose runs may be held against these tables, and what it fixes.
struct PublishedSuite {
  std::string name;
  Conditions conditions;
};

struct Published {
  std::string name;  ///< the file's
  std::string title;
  std::vector<std::string> notes;
  std::vector<PublishedSuite> suites;
  std::vector<PublishedTask> tasks;                         ///< in stream order
  std::map<std::string, std::vector<std::string>> aliases;  ///< of backbones
  std::vector<PublishedTable> tables;

  /// By name, title or alias; case, "-", "_" and blanks do not count.
  std::optional<std::size_t> task(std::string_view name) const;
  const PublishedSuite* suite(std::string_view name) const;
};

/// Lower case, without "-", "_", "." and blanks: how names from different hands are held against each other.
std::string plain_name(std::string_view name);

/// @throws ConfigError naming file, line and key: an unknown key, metric, condition or evidence, a row
/// without numbers, finals that do not fit the tasks.
Published read_published(const std::filesystem::path& file);
/// Names of the tables in a folder, sorted.
std::vector<std::string> list_published(const std::filesystem::path& folder);
/// By name, or by a suite that a file claims. @throws ConfigError with what is known.
Published find_published(const std::string& name, const std::filesystem::path& folder);

/// One equation between printed numbers.
struct PublishedCheck {
  std::string table, method;
  std::string what;      ///< "acc = mean of the final scores"
  double printed = 0.0;  ///< the left side
  double computed = 0.0;
  double tolerance = 0.0;  ///< what rounding to the printed decimals may come to
  bool holds() const;
};
/// Every equation that the printed numbers allow: means, backward transfer and forgetting against ACC - MFT
/// with its divisor, metrics of a matrix.
std::vector<PublishedCheck> check_published(const Published& published);

/// A method that is printed with different ACC under the same backbone and prompts, in words.
std::vector<std::string> published_disagreements(const Published& published);

}  // namespace mcit
