#include "app/grid_view.hpp"

#include <algorithm>

#include "core/console.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"

namespace mcit {
namespace {

constexpr std::size_t kMostLines = 16;

}  // namespace

GridView::GridView(std::size_t jobs, double work, std::size_t slots)
    : jobs_(jobs),
      slots_(std::max<std::size_t>(1, slots)),
      work_left_(work),
      in_place_(console::is_terminal(console::Stream::err) && log::console_level() <= log::Level::info) {}

GridView::~GridView() {
  if (in_place_) console::status({});
}

void GridView::line(RunningJob& running, const std::string& text) {
  running.last = text;
  if (text.starts_with("error: ")) running.failure = text.substr(std::string("error: ").size());
  const bool loud = text.starts_with("error: ") || text.starts_with("warning: ");
  if (!in_place_ || loud) log::info("[", running.job->name, "] ", text);
}

void GridView::ended(const RunningJob& running, bool well, const std::vector<RunningJob>& others) {
  const double seconds = running.clock.seconds();
  ++(well ? done_ : failed_);
  work_left_ -= running.job->work;
  if (well) {
    work_done_ += running.job->work;
    busy_seconds_ += seconds;
  }
  if (in_place_)
    log::info(running.job->name, well ? ": done in " : ": failed after ", duration_text(seconds));
  if (done_ + failed_ < jobs_) log::info(summary(others.size()));
}

void GridView::skipped(const GridJob& job, const std::string& why) {
  ++failed_;
  work_left_ -= job.work;
  log::info("[", job.name, "] not run: ", why);
}

std::string GridView::summary(std::size_t running) const {
  std::string text = std::to_string(done_) + " of " + std::to_string(jobs_) + " runs done, " +
                     std::to_string(running) + " running";
  if (failed_ > 0) text += ", " + std::to_string(failed_) + " failed";
  if (work_done_ > 0.0 && work_left_ > 0.0) {
    const std::size_t left = jobs_ - done_ - failed_;
    const double at_once = static_cast<double>(std::max<std::size_t>(1, std::min(slots_, left)));
    text += ", about " + duration_text(busy_seconds_ / work_done_ * work_left_ / at_once) + " left";
  }
  return text;
}

void GridView::draw(const std::vector<RunningJob>& running) {
  constexpr double kRedraw = 0.1;
  if (!in_place_ || drawn_.seconds() < kRedraw) return;
  drawn_.restart();
  std::string block = summary(running.size());
  for (std::size_t i = 0; i < std::min(running.size(), kMostLines); ++i) {
    const RunningJob& one = running[i];
    block += "\n  " + one.job->name + "  ";
    if (!one.device.empty()) block += one.device + "  ";
    block += duration_text(one.clock.seconds()) + "  " + one.last;
  }
  if (running.size() > kMostLines)
    block += "\n  and " + std::to_string(running.size() - kMostLines) + " more";
  console::status(block);
}

}  // namespace mcit
