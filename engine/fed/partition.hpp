#pragma once
/// How the rows of a training set are dealt out to clients. Every kind is a function of (rows, options,
/// seed).

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/config.hpp"

namespace mcit::fed {

/// rows[k]: what client k has, ascending. No row is given twice.
using Partition = std::vector<std::vector<std::int64_t>>;

struct PartitionOptions {
  /// iid              the same number of random rows for each client
  /// dirichlet        each label's rows in proportions ~ Dir(alpha) over clients (Hsu et al. 2019)
  /// inner_dirichlet  clients of one size, whose labels are ~ Dir(alpha) (Acar et al. 2021)
  /// pathological     `classes_per_client` labels a client, all of a label's clients alike
  /// shard            rows sorted by label, `shards_per_client` equal pieces a client (McMahan et al. 2017)
  /// size             random rows, sizes by `skew`
  /// label            each client the rows of one label (a task type); clients of a label share them evenly
  std::string kind = "iid";
  std::int64_t clients = 8;
  double alpha = 0.5;
  std::int64_t classes_per_client = 2;
  std::int64_t shards_per_client = 2;
  std::string skew = "dirichlet";  ///< linear: k; square: k²; geometric: last = ratio x first; dirichlet: ~
                                   ///< Dir(alpha), as FCIT
  double ratio = 10.0;             ///< of skew = "geometric"
  std::int64_t least = 1;          ///< rows that every client must have
  std::uint64_t seed = 1;

  static PartitionOptions read(const Config& table);  ///< [partition]; the seed is the run's
};

/// @param labels of each row, 0 .. L-1: a class, an answer, a task type
/// @throws ConfigError when the options cannot be kept for these rows
Partition make_partition(std::span<const std::int64_t> labels, const PartitionOptions& options);

/// Clients as the data has them: one for each id, in alphabetical order of ids.
struct NaturalPartition {
  std::vector<std::string> names;
  Partition rows;
};
NaturalPartition natural_partition(std::span<const std::string> ids);

/// The folder that FCIT's script writes for a task: client_0.json, client_1.json, ... each a list of records
/// with `question_id` or `id`. @param ids of the training rows @throws DataError naming the file
Partition read_fcit_partition(const std::filesystem::path& folder, std::span<const std::string> ids);

/// [clients][labels]
std::vector<std::vector<std::int64_t>> histogram(const Partition& partition,
                                                 std::span<const std::int64_t> labels,
                                                 std::int64_t label_count);
/// A table to look at: clients below one another, labels side by side, sums at the edges.
std::string histogram_text(const std::vector<std::vector<std::int64_t>>& counts,
                           const std::vector<std::string>& clients, const std::vector<std::string>& labels);
/// Mean over clients of the total variation distance between their labels and all labels: 0 alike .. 1
/// disjoint.
double heterogeneity(const std::vector<std::vector<std::int64_t>>& counts);

}  // namespace mcit::fed
