#pragma once
/// Runs the jobs of a grid as processes of their own, several at a time, and shows how far they are.

#include <filesystem>
#include <string>
#include <vector>

#include "app/grid.hpp"

namespace mcit {

/// Whoever holds it is the only one that runs the grid of a folder. The lock ends with the process.
class GridLock {
 public:
  /// Waits for runs that an earlier, killed process left and that are still saving.
  /// @throws ConfigError when another process runs this grid; Interrupted
  explicit GridLock(const std::filesystem::path& out);
  GridLock(const GridLock&) = delete;
  GridLock& operator=(const GridLock&) = delete;
  ~GridLock();

 private:
  int own_ = -1;   ///< of this process alone
  int runs_ = -1;  ///< inherited by every run: free when the last of them has ended
};

struct GridOptions {
  std::string command;               ///< "bench" or "sweep", for messages
  std::size_t jobs = 0;              ///< runs at a time; 0 = one a device, on the CPU one a usable core
  std::vector<std::string> devices;  ///< "cuda:0", …: runs are dealt to them; empty = the settings' device
};

struct GridFailure {
  std::string name, why;
};

/// What became of a grid.
struct GridOutcome {
  std::vector<GridJob> plan;                    ///< all of it
  std::vector<std::filesystem::path> complete;  ///< whole runs that are complete now, in the plan's order
  std::vector<GridFailure> failures;
};

/// Runs what is not complete yet. Keeps grid.json in the grid's folder, and refuses a grid that says other
/// things about runs that are there. Runs get an equal share of the usable cores as threads, unless the
/// settings say how many.
/// @throws Interrupted once every run has saved; ConfigError
GridOutcome run_grid(Grid grid, const GridOptions& options);

/// Prints the failures as one error. @throws CheckFailed when there are some
void report_failures(const GridOutcome& outcome, const GridOptions& options);

}  // namespace mcit
