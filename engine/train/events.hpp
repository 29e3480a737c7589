#pragma once
/// metrics.jsonl and the accuracy matrix as TensorBoard shows them. No LibTorch.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/event_file.hpp"
#include "core/json.hpp"
#include "metrics/matrix.hpp"

namespace mcit {

/// From lines of metrics.jsonl, in order, to events. Step numbers run on over the stages: TensorBoard knows
/// no stages.
class LineEvents {
 public:
  struct Event {
    std::int64_t step = 0;
    std::vector<Scalar> scalars;
  };
  /// Every number of the line but its stage and step: "loss" as train/loss, "strategy.x" as strategy/x, and
  /// where a hook outside of steps recorded it as <hook>/x.
  Event next(const Json& line);

 private:
  std::int64_t stage_ = 0, before_ = 0, step_ = 0;  ///< before_: steps of the stages before this one
};

/// The event file of a run. metrics.jsonl and the matrix are the truth: a run that is taken up again gets the
/// file made anew from what was kept of them, so that no point is lost or there twice, also when the file
/// was removed or the run's folder was copied without it.
class RunEvents {
 public:
  /// @param metrics metrics.jsonl as it stands, cut to the snapshot; may be absent
  /// @param matrix rows that were measured, as far as they are kept
  RunEvents(const std::filesystem::path& file, const std::filesystem::path& metrics,
            const AccuracyMatrix& matrix);

  void line(const Json& line);
  /// score/<task> of a row of the matrix, its number being the step.
  void scores(const AccuracyMatrix& matrix, std::int64_t row);

 private:
  LineEvents lines_;
  std::unique_ptr<EventFile> file_;
};

}  // namespace mcit
