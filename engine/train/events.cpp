#include "train/events.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/files.hpp"

namespace mcit {
namespace {

std::vector<Scalar> scores_of(const AccuracyMatrix& matrix, std::int64_t row) {
  std::vector<Scalar> out;
  for (std::int64_t j = 0; j < matrix.tasks(); ++j)
    if (const auto percent = matrix.at(row, j))
      out.push_back({"score/" + matrix.names()[static_cast<std::size_t>(j)], *percent});
  return out;
}

/// Calls see(line) for each line of metrics.jsonl.
template <class See>
void for_each_line(const std::filesystem::path& metrics, const See& see) {
  std::ifstream in(metrics);
  std::string text;
  for (std::int64_t number = 1; std::getline(in, text); ++number)
    see(parse_json(text, metrics.string() + ":" + std::to_string(number)));
}

/// The times at which lines were written are not kept, what the steps took is: the last one ends now.
double first_time(const std::filesystem::path& metrics) {
  double seconds = 0.0;
  for_each_line(metrics, [&](const Json& line) { seconds += line.value("seconds", 0.0); });
  return wall_clock() - seconds;
}

}  // namespace

LineEvents::Event LineEvents::next(const Json& line) {
  const std::int64_t stage = line.value("stage", std::int64_t{0});
  if (stage != stage_) {
    before_ += step_;
    step_ = 0;
    stage_ = stage;
  }
  step_ = line.value("step", step_);
  const std::string hook = line.value("hook", "");
  Event event{before_ + step_, {}};
  constexpr std::string_view kStrategy = "strategy.";
  for (const auto& [name, value] : line.items()) {
    if (!value.is_number() || name == "stage" || name == "step") continue;
    if (!std::isfinite(value.get<double>())) continue;  // null in metrics.jsonl
    const bool own = name.starts_with(kStrategy);
    const std::string group = !hook.empty() ? hook : own ? "strategy" : "train";
    event.scalars.push_back({group + "/" + (own ? name.substr(kStrategy.size()) : name), value});
  }
  return event;
}

RunEvents::RunEvents(const std::filesystem::path& file, const std::filesystem::path& metrics,
                     const AccuracyMatrix& matrix) {
  double time = first_time(metrics);
  constexpr std::size_t kBuffer = std::size_t{1} << 20;
  AtomicFile again(file);
  std::string buffer = event_record(version_event(time));
  const auto put = [&](std::int64_t step, const std::vector<Scalar>& scalars) {
    if (!scalars.empty()) buffer += event_record(scalars_event(time, step, scalars));
    if (buffer.size() < kBuffer) return;
    again.write(buffer);
    buffer.clear();
  };
  std::int64_t row = 0;  // rows before this one are written
  const auto put_rows_before = [&](std::int64_t end) {
    for (; row < std::min(end, matrix.stages() + 1); ++row) put(row, scores_of(matrix, row));
  };
  for_each_line(metrics, [&](const Json& line) {
    put_rows_before(line.value("stage", std::int64_t{0}));
    time += line.value("seconds", 0.0);
    const LineEvents::Event event = lines_.next(line);
    put(event.step, event.scalars);
  });
  put_rows_before(matrix.stages() + 1);
  again.write(buffer);
  again.commit();
  file_ = std::make_unique<EventFile>(file);
}

void RunEvents::line(const Json& line) {
  const LineEvents::Event event = lines_.next(line);
  file_->scalars(event.step, event.scalars);
}

void RunEvents::scores(const AccuracyMatrix& matrix, std::int64_t row) {
  file_->scalars(row, scores_of(matrix, row));
  file_->flush();
}

}  // namespace mcit
