#pragma once
/// Which tasks share prompts: affinities from gradients, and the partition that they favour.

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "mcit/types.hpp"

namespace mcit::mmap {

/// S[i][j] of T tasks, symmetric; the diagonal means nothing.
using Affinity = std::vector<std::vector<double>>;

/// Group of each task, numbered in the order of their first tasks.
using Partition = std::vector<std::int64_t>;

/// Σ over groups of Σ_{i<j} (S_ij − θ): pairs whose affinity is above θ belong together, those below do not.
double partition_score(const Affinity& affinity, const Partition& partition, double threshold);

/// The partition of the best score: among all of them up to 8 tasks, beyond that by joining the two groups
/// whose union raises the score most, as long as one does.
Partition best_partition(const Affinity& affinity, double threshold);

/// What the affinities are measured with: gradients of tasks' losses in shared parameters.
struct GroupingOptions {
  enum class Measure { cosine, lookahead };
  Measure measure = Measure::cosine;
  std::int64_t steps = 10;     ///< matched steps, over which affinities are averaged
  std::int64_t examples = 16;  ///< of each task in a step
  double rate = 2e-3;          ///< how far a step moves a number, as root mean square over each tensor
};

/// Loss of examples under the parameters as they stand, on the graph in grad mode.
using GroupLoss = std::function<Tensor(const Batch&)>;

/// Trains `parameters` on all tasks together for some steps and compares the tasks' gradients g_i on the way:
///   cosine     S_ij = mean over steps of cos(g_i, g_j)
///   lookahead  Z_ij = 1 − L_j(θ − η g_i) / L_j(θ), averaged; S = (Z + Zᵀ) / 2 (Fifty et al. 2021)
/// The parameters are left where the steps led.
Affinity measure_affinity(const Parameters& parameters, const std::vector<std::vector<ExamplePtr>>& tasks,
                          const GroupingOptions& options, const at::Generator& generator,
                          const GroupLoss& loss);

/// The gradient of `loss` in all parameters, one vector of float64 and unit length. [n]
Tensor gradient_signature(const Parameters& parameters, const Batch& batch, const GroupLoss& loss);

}  // namespace mcit::mmap
