#include "core/progress.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

#include "core/console.hpp"
#include "core/log.hpp"
#include "core/system.hpp"

namespace mcit {
namespace {

constexpr double kRedraw = 0.1;  // seconds between drawings on a terminal

/// And between lines elsewhere: ten, unless whoever reads them wants another number.
double line_seconds() {
  static const double seconds = [] {
    const char* const given = std::getenv("MCIT_PROGRESS_SECONDS");
    const double wanted = given == nullptr ? 0.0 : std::strtod(given, nullptr);
    constexpr double kUsual = 10.0;
    return wanted > 0.0 ? wanted : kUsual;
  }();
  return seconds;
}

bool shown() { return log::console_level() <= log::Level::info; }
bool in_place() { return console::is_terminal(console::Stream::err); }

std::string rate_text(double rate) {
  char text[32];
  std::snprintf(text, sizeof text, rate >= 100 ? "%.0f" : rate >= 10 ? "%.1f" : "%.2f", rate);
  return text;
}

}  // namespace

std::string duration_text(double seconds) {
  const auto whole = static_cast<long long>(std::llround(std::max(0.0, seconds)));
  char text[64];
  if (whole < 60)
    std::snprintf(text, sizeof text, "%lld s", whole);
  else if (whole < 3600)
    std::snprintf(text, sizeof text, "%lld min %02lld s", whole / 60, whole % 60);
  else
    std::snprintf(text, sizeof text, "%lld h %02lld min", whole / 3600, whole % 3600 / 60);
  return text;
}

struct Progress::State {
  std::string title;
  std::string unit;
  std::string note;
  std::int64_t total = 0;
  std::int64_t done = 0;
  std::int64_t skipped = 0;
  Stopwatch clock;
  double drawn = 0.0;

  static std::vector<State*>& open() {
    static std::vector<State*> bars;  // innermost last
    return bars;
  }
};

Progress::Progress(std::string title, std::int64_t total, std::string unit)
    : state_(std::make_unique<State>()) {
  state_->title = std::move(title);
  state_->unit = std::move(unit);
  state_->total = total;
  State::open().push_back(state_.get());
  if (shown() && in_place()) console::status(text(0.0));
}

Progress::~Progress() {
  std::erase(State::open(), state_.get());
  if (shown() && in_place() && State::open().empty()) console::status({});
}

void Progress::skip(std::int64_t steps) {
  state_->done += steps;
  state_->skipped += steps;
}

void Progress::advance(std::int64_t steps, std::string_view note) {
  state_->done += steps;
  if (!note.empty()) state_->note = note;
  if (!shown() || State::open().back() != state_.get()) return;
  const double now = state_->clock.seconds();
  const bool terminal = in_place();
  if (now - state_->drawn < (terminal ? kRedraw : line_seconds())) return;
  state_->drawn = now;
  if (terminal)
    console::status(text(now));
  else
    console::print(text(now));
}

std::string Progress::text(double seconds) const {
  const State& s = *state_;
  std::string line = s.title + "  " + std::to_string(s.done);
  if (s.total > 0) {
    line += "/" + std::to_string(s.total);
    const double share = std::clamp(static_cast<double>(s.done) / static_cast<double>(s.total), 0.0, 1.0);
    line += " (" + std::to_string(static_cast<int>(share * 100.0)) + " %)";
  } else {
    line += " " + s.unit;
  }
  const std::int64_t here = s.done - s.skipped;
  if (here > 0 && seconds > 0.0) {
    const double rate = static_cast<double>(here) / seconds;
    line += rate >= 0.01 ? "  " + rate_text(rate) + " " + s.unit + "/s" : "";
    if (s.total > s.done)
      line += "  " + duration_text(static_cast<double>(s.total - s.done) / rate) + " left";
  }
  if (!s.note.empty()) line += "  " + s.note;
  return line;
}

}  // namespace mcit
