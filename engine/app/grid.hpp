#pragma once
/// A grid of runs, strategy x seed x order of tasks: which runs there are, what they share, which come first.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/json.hpp"

namespace mcit {

/// What a line of the table depends on, and with that how often it is run.
enum class Extent {
  every_order,  ///< seed and order: a continual learner
  once_a_seed,  ///< the seed alone: single, joint
  once,         ///< neither: the untrained base
};

/// A line of the table.
struct GridEntry {
  std::string name;  ///< in tables and as the first part of folders' names
  std::string strategy;
  std::vector<std::string> sets;  ///< settings, KEY=VALUE, of its runs alone
  std::string federate = {};      ///< file of settings of a federated run, which says suite and strategy
  Extent extent = Extent::every_order;
  bool causal = false;  ///< orders that begin alike may share those stages (mcit/causal.hpp)
};

struct Grid {
  std::string suite;  ///< name or file
  std::filesystem::path out;
  std::vector<std::uint64_t> seeds;
  /// Tasks of the suite, all of them in each; without any the suite's own order is run, and no run names one.
  std::vector<std::vector<std::string>> orders;
  std::vector<std::string> flags;  ///< of every run, e.g. --plugin-dir DIR
  std::vector<std::string> sets;   ///< settings of every run
  std::vector<GridEntry> entries;
};

/// One `mcit run` or `mcit federate`.
struct GridJob {
  std::string name;  ///< for people: "ewc 2 o1"
  std::filesystem::path folder;
  std::size_t entry = 0;
  std::uint64_t seed = 1;
  std::size_t order = 0;                   ///< 0-based; 0 where there are none
  std::int64_t until = 0;                  ///< a beginning that others share: stages it has; 0 = a whole run
  std::filesystem::path beginning;         ///< folder of the run whose stages it takes over; empty = none
  std::optional<std::size_t> begins_with;  ///< the job of that run: has to end well before
  std::vector<std::size_t> after;          ///< jobs that have to have ended before
  double work = 1.0;                       ///< stages to train, for estimates
  std::string verb = "run";                ///< or "federate"
  std::vector<std::string> settings = {};  ///< its arguments that say what is run
};

enum class JobState { fresh, begun, done };

/// Every run of the grid; a job stands behind those that it waits for. Orders that begin alike share a job of
/// their own under OUT/shared: a run of the longest common beginning, whose snapshot the others go on from.
/// The first run of an entry of extent `once` precedes all others: it fills the caches.
std::vector<GridJob> plan_grid(const Grid& grid);

/// What of a plan has to be run. Complete runs go, and so do shared beginnings that would not pay: those that
/// have not begun with one user left, and those that none needs any more. Indices are those of the answer.
std::vector<GridJob> pending_jobs(const std::vector<GridJob>& plan,
                                  const std::function<JobState(const GridJob&)>& state);

/// "3" is 1, 2, 3; "4,7" and "2..5" are what they say, and may be mixed. @param what for errors: "--seeds"
/// @throws ConfigError
std::vector<std::uint64_t> seeds_of(const std::string& text, const std::string& what);

/// The tasks' own order and further permutations of it, all different, the same for the same tasks.
/// @throws ConfigError when there are fewer than `count`
std::vector<std::vector<std::string>> seeded_orders(const std::vector<std::string>& tasks,
                                                    std::int64_t count);

/// What makes the grid's runs what they are, as OUT/grid.json keeps it.
Json describe_grid(const Grid& grid);
/// The description of both. Lines, seeds and orders may be added to a grid; what is there must stay as it is.
/// @throws ConfigError naming what differs @param where the folder
Json merge_descriptions(const Json& before, const Json& now, const std::string& where);

}  // namespace mcit
