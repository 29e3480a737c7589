#pragma once
/// From the settings of `mcit split` to the objects it works on, alike for one process and for many.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "data/suite.hpp"
#include "fed/partition.hpp"
#include "split/loop.hpp"

namespace mcit {

struct SplitSettings {
  std::string suite = "mini4", model = "mini";
  std::vector<std::string> order;
  std::filesystem::path data, out;
  std::uint64_t seed = 1;
  std::int64_t threads = 0;
  split::Shape shape;  ///< what [split] says of it; make_base() fills in the rest
  split::Training training;
  split::LoopOptions loop;
  fed::PartitionOptions partition;

  /// @throws ConfigError, also for unknown keys
  static SplitSettings read(const Config& config);
  std::string suite_name() const;
  std::vector<std::string> clients() const;  ///< ids
};

/// The suite without its data: enough for a server. @throws ConfigError unless every task has a closed set of
/// answers
Suite split_suite(const SplitSettings& settings, bool with_data);
/// All answers of all tasks, sorted: the classes of the tail.
std::vector<std::string> split_classes(const Suite& suite);
/// Opens the model folder. @throws ConfigError for a model without a tower and a decoder
split::Base split_base(const SplitSettings& settings, const std::vector<std::string>& classes);

/// Hash of all that server and clients must have alike.
std::string split_agreement(const SplitSettings& settings, const std::vector<std::string>& classes);

/// The rows of each client, and which files they came from.
struct SplitRows {
  std::vector<std::vector<split::TaskRows>> clients;  ///< [client][task]
  std::map<std::string, std::string> hashes;          ///< file -> hash
  std::string histogram;                              ///< training rows of each client and task, as text
};
/// @param whole the folder's rows are one client's own: nothing is dealt out
SplitRows split_rows(const SplitSettings& settings, const Suite& suite, const split::Base& base,
                     const std::vector<std::string>& classes, bool whole);
/// Turns pictures into the tower's pixels, [1, 3, S, S].
std::function<Tensor(const Image&)> split_pixels(const SplitSettings& settings);

/// What the result says before the first step.
RunResult split_head(const SplitSettings& settings, const Suite& suite, const SplitRows& rows, int threads,
                     const std::string& command, const std::string& config);

}  // namespace mcit
