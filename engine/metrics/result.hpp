#pragma once
/// One run as it is kept: result.json (docs/reference/result.md).

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/json.hpp"
#include "core/system.hpp"
#include "metrics/federated.hpp"
#include "metrics/matrix.hpp"
#include "metrics/metrics.hpp"

namespace mcit {

struct TaskResult {
  std::string name;
  std::int64_t test_examples = 0;
  std::optional<double> chance;  ///< percent, best guess that does not look at the picture
  std::string scorer{};          ///< name of the scorer; empty in files of other programs
};

/// What one training stage took; evaluation is the one after the stage.
struct StageCost {
  std::int64_t trainable_parameters = 0;
  std::int64_t stored_parameters = 0;  ///< besides the base, needed for inference after this stage
  std::int64_t steps = 0;
  std::int64_t examples = 0;  ///< seen in training, with repeats
  std::int64_t tokens = 0;    ///< rows through the decoder in training
  double train_seconds = 0.0;
  double eval_seconds = 0.0;
  double peak_memory_mb = 0.0;  ///< of the process so far
};

/// Numbers that the strategy kept of one stage, such as how often each expert was used.
struct ResultTable {
  std::vector<std::string> rows, columns;
  std::vector<std::vector<double>> values;  ///< [rows][columns]
  bool lines = false;                       ///< drawn as a line for each row instead of a heat map
};

struct StageResult {
  std::string name;
  std::vector<std::int64_t> tasks;  ///< 0-based
  StageCost cost;
  std::optional<double> selector_accuracy;      ///< percent of test rows whose selected task is the right one
  std::map<std::string, ResultTable> tables{};  ///< by the strategy's name for them
};

/// How often a cell's answers were right: percent = 100 score / examples.
struct CellCount {
  double score = 0.0;  ///< sum of the rows' scores, each 0..1
  std::int64_t examples = 0;
  bool operator==(const CellCount&) const = default;
};

/// Everything that explains the numbers, in the order it is written. Texts only, so that nothing is lost or
/// rounded.
struct Provenance {
  std::string command;  ///< as typed
  std::string config;   ///< resolved settings, TOML
  std::map<std::string, std::string> seeds;
  std::string build;      ///< build_info()
  std::string build_tag;  ///< what plugins must agree with
  std::string plugin_file;
  std::string plugin_hash;
  std::string model;  ///< folder of the base
  std::string model_hash;
  std::map<std::string, std::string> data;  ///< file -> hash
  std::string device;
  std::string dtype;
  int threads = 0;             ///< of each process
  std::int64_t processes = 1;  ///< that trained together
  Hardware hardware;
  std::string started;   ///< UTC
  std::string finished;  ///< UTC; empty while the run goes on
};

/// What became of answers that were right, or partly right, when their task had just been learned. Cells are
/// percent of a task's rows after a later stage, empty up to the stage that learns the task; drift + loss -
/// regained = score when learned - score.
struct ForgettingSplit {
  AccuracyMatrix format_drift;    ///< lost, and now without the form asked for or out of the answer set
  AccuracyMatrix knowledge_loss;  ///< lost, in the right form
  AccuracyMatrix regained;        ///< won by rows that were worse when the task had been learned
};

struct RunResult {
  std::string suite;
  std::string strategy;
  std::uint64_t seed = 0;
  std::string profile = "strict";  ///< whose rules scored it; `mcit rescore` writes others
  bool complete = false;
  std::vector<TaskResult> tasks;
  std::vector<StageResult> stages;
  double base_eval_seconds = 0.0;  ///< evaluation of the untrained base (row 0)
  AccuracyMatrix matrix;
  AccuracyMatrix matrix_restricted;  ///< answers restricted to the task's own answer set
  AccuracyMatrix matrix_oracle;      ///< with the true task in place of the one that the strategy selected
  AccuracyMatrix matrix_selector;    ///< percent of the cell's rows for which the right task was selected
  /// counts[i][j], empty where the cell is missing; either no rows or one for each row of the matrix
  std::vector<std::vector<std::optional<CellCount>>> counts;
  std::optional<ForgettingSplit> forgetting{};  ///< of a run that has ended
  std::optional<FederatedResult> federated;     ///< of a federated run
  Provenance provenance;

  std::vector<std::string> task_names() const;
  std::vector<std::string> stage_names() const;
  /// One of the matrices and the test sizes, for compute_metrics(); S of another run may be added.
  MetricInputs inputs(const AccuracyMatrix& scores) const;
  std::optional<double> selector_accuracy() const;  ///< after the last stage
  /// Sums of time and work, largest of parameters and memory; evaluation of the base included.
  StageCost total_cost() const;
};

/// Tasks, stages and empty matrices of a run that is about to start.
RunResult make_result(std::string suite, std::string strategy, std::uint64_t seed,
                      std::vector<TaskResult> tasks,
                      const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& stages);

/// The file's content.
Json result_json(const RunResult& result);
/// Atomically. Metrics are computed here from the matrices, never stored by hand.
void write_result(const std::filesystem::path& file, const RunResult& result);
/// A folder is read as the run whose result.json it holds. @throws DataError naming file and key.
RunResult read_result(const std::filesystem::path& path);

/// What metrics need, from a run (its test sizes included) or from any matrix that read_matrix() understands.
/// @param restricted take the run's matrix of restricted answers. @throws DataError when there is none.
MetricInputs read_metric_inputs(const std::filesystem::path& path, bool restricted = false);

}  // namespace mcit
