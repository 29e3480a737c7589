#pragma once
/// Every metric of continual learning that needs only the accuracy matrix, each under a name that says which
/// of the printed definitions it is.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/matrix.hpp"

namespace mcit {

/// What metrics are computed from. Only the matrix is always needed.
struct MetricInputs {
  AccuracyMatrix matrix;
  std::vector<std::optional<double>>
      single;  ///< S[j]: percent on task j when it alone is trained from the base
  std::vector<std::optional<double>> baseline;  ///< b[j]: percent on task j of a randomly initialised model
  std::vector<std::int64_t> test_examples;      ///< n[j]
};

enum class Better { higher, lower };

/// T tasks, R the matrix, l[j] the stage that learns task j (j itself in a plain stream), L the last stage.
struct MetricInfo {
  std::string_view name;
  std::string_view title;    ///< the words used in papers
  std::string_view formula;  ///< in the symbols above, for a plain stream (l[j] = j, L = T)
  std::string_view source;
  std::string_view needs;  ///< beyond the lower triangle of the matrix; may be empty
  Better better = Better::higher;
};

/// A number, or why there is none.
struct MetricValue {
  std::optional<double> value;
  std::string missing;  ///< e.g. "'vqa' after stage 3 is missing"
};

struct Metric {
  MetricInfo info;
  MetricValue result;
};

/// All metrics in the order they are shown.
const std::vector<MetricInfo>& metric_catalogue();

/// @throws ConfigError for an unknown name.
MetricValue compute_metric(std::string_view name, const MetricInputs& inputs);
std::vector<Metric> compute_metrics(const MetricInputs& inputs);

/// S[j] of a run that trains each task from the base: its score right after learning.
std::vector<std::optional<double>> scores_when_learned(const AccuracyMatrix& matrix);

}  // namespace mcit
