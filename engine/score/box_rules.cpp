/// Boxes.

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "score/rules.hpp"

namespace mcit::rules {
namespace {

constexpr double kMinIou = 0.5;  // Grounding of CoIN: right above it

/// The box with its far edges moved out by `last_cell`.
std::optional<Box> widened(std::optional<Box> box, double last_cell) {
  if (box) box = Box{box->x1, box->y1, box->x2 + last_cell, box->y2 + last_cell};
  return box;
}

double area(const Box& box) { return std::max(0.0, box.x2 - box.x1) * std::max(0.0, box.y2 - box.y1); }

/// @param last_cell width that the last coordinate adds: 0 for edges, 1 for inclusive cells
/// @param at_least exactly half is enough
Score overlap(std::string_view name, double last_cell, bool at_least, std::string_view prediction,
              Golds golds) {
  const std::string& gold_text = only_gold(name, golds);
  const std::optional<Box> gold = widened(first_box(gold_text), last_cell);
  if (!gold || !(area(*gold) > 0)) {
    bad_golds(name, "gold answer '" + gold_text + "' is no box x1 y1 x2 y2 with x1 < x2 and y1 < y2");
  }
  if (is_empty(prediction)) return {.second = 0.0, .note = "empty answer"};
  const std::optional<Box> box = widened(first_box(prediction), last_cell);
  if (!box) return {.second = 0.0, .note = "no box"};
  const double iou = intersection_over_union(*box, *gold);
  return {
      .value = iou > kMinIou || (at_least && iou == kMinIou) ? 1.0 : 0.0, .well_formed = true, .second = iou};
}

}  // namespace

std::optional<Box> first_box(std::string_view answer) {
  std::array<double, 4> numbers{};
  std::size_t count = 0;
  const char* const end = answer.data() + answer.size();
  for (const char* at = answer.data(); at != end && count < numbers.size();) {
    const auto [after, error] = std::from_chars(at, end, numbers[count]);
    const bool is_number =
        error == std::errc() && std::isfinite(numbers[count]);  // "inf" and "nan" are words
    count += is_number ? 1 : 0;
    at = is_number || error == std::errc::result_out_of_range ? after : at + 1;
  }
  if (count < numbers.size()) return std::nullopt;
  return Box{numbers[0], numbers[1], numbers[2], numbers[3]};
}

double intersection_over_union(const Box& left, const Box& right) {
  const Box common{std::max(left.x1, right.x1), std::max(left.y1, right.y1), std::min(left.x2, right.x2),
                   std::min(left.y2, right.y2)};
  const double shared = area(common);
  const double either = area(left) + area(right) - shared;
  return std::isfinite(either) && either > 0 ? shared / either : 0.0;
}

Score iou(std::string_view prediction, Golds golds, const ScoreContext&) {
  return overlap("iou", 0.0, false, prediction, golds);
}

Score iou_ge(std::string_view prediction, Golds golds, const ScoreContext&) {
  return overlap("iou_ge", 0.0, true, prediction, golds);
}

Score iou_bins(std::string_view prediction, Golds golds, const ScoreContext&) {
  return overlap("iou_bins", 1.0, false, prediction, golds);
}

}  // namespace mcit::rules
