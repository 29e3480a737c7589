#pragma once
/// What a grid's progress looks like: one block with a line for each running job on a terminal, plain lines
/// elsewhere.

#include <cstddef>
#include <string>
#include <vector>

#include "app/grid.hpp"
#include "core/system.hpp"

namespace mcit {

/// One job while it runs.
struct RunningJob {
  const GridJob* job = nullptr;
  std::string device;   ///< empty = the settings' own
  std::string last;     ///< line that it printed
  std::string failure;  ///< last error line
  Stopwatch clock;
};

/// Counts, estimates and draws. Not thread-safe.
class GridView {
 public:
  /// @param work of all jobs, see GridJob::work @param slots jobs at a time
  GridView(std::size_t jobs, double work, std::size_t slots);
  ~GridView();  ///< leaves the terminal clean
  GridView(const GridView&) = delete;
  GridView& operator=(const GridView&) = delete;

  /// A whole line of a run.
  void line(RunningJob& running, const std::string& text);
  void ended(const RunningJob& running, bool well, const std::vector<RunningJob>& others);
  void skipped(const GridJob& job, const std::string& why);
  /// Redraws on a terminal, at most ten times a second.
  void draw(const std::vector<RunningJob>& running);

  /// "3 of 12 runs done, 2 running, 1 failed, about 4 min 10 s left"
  std::string summary(std::size_t running) const;

 private:
  std::size_t jobs_, slots_, done_ = 0, failed_ = 0;
  double work_left_, work_done_ = 0.0, busy_seconds_ = 0.0;
  bool in_place_;
  Stopwatch drawn_;
};

}  // namespace mcit
