#include "score/meteor.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <tuple>
#include <unordered_map>

namespace mcit {
namespace {

constexpr double kAlpha = 0.85, kBeta = 0.2, kGamma = 0.6;
constexpr std::size_t kBeam = 256;
constexpr std::size_t kNone = SIZE_MAX;

/// The words of an answer up to some place, aligned.
struct Partial {
  std::vector<bool> used;  ///< words of the reference
  std::size_t chunks = 0, way = 0;
  std::size_t last = kNone;  ///< where the word before this one went

  auto place() const { return std::tie(last, used); }
  auto cost() const { return std::pair(chunks, way); }
};

Partial matched(const Partial& before, std::size_t from, std::size_t to) {
  Partial next = before;
  next.used[to] = true;
  next.chunks += before.last != kNone && before.last + 1 == to ? 0 : 1;
  next.way += from > to ? from - to : to - from;
  next.last = to;
  return next;
}

/// The best of those that go on alike, at most kBeam.
void prune(std::vector<Partial>& beam) {
  std::sort(beam.begin(), beam.end(), [](const Partial& a, const Partial& b) {
    return std::tuple(a.place(), a.cost()) < std::tuple(b.place(), b.cost());
  });
  const auto same = [](const Partial& a, const Partial& b) { return a.place() == b.place(); };
  beam.erase(std::unique(beam.begin(), beam.end(), same), beam.end());
  std::stable_sort(beam.begin(), beam.end(),
                   [](const Partial& a, const Partial& b) { return a.cost() < b.cost(); });
  if (beam.size() > kBeam) beam.resize(kBeam);
}

/// Every alignment here has all matches there can be; they differ in chunks.
MeteorCounts align(const std::vector<std::string>& answer, const std::vector<std::string>& reference) {
  std::unordered_map<std::string_view, std::vector<std::size_t>> places;
  std::unordered_map<std::string_view, std::size_t> left;  // occurrences in the answer from here on
  for (std::size_t j = 0; j < reference.size(); ++j) places[reference[j]].push_back(j);
  for (const std::string& word : answer) ++left[word];
  MeteorCounts out{answer.size(), reference.size(), 0, 0};
  for (const auto& [word, at] : places) {
    const auto said = left.find(word);
    out.matches += said == left.end() ? 0 : std::min(said->second, at.size());
  }
  std::vector<Partial> beam{{.used = std::vector<bool>(reference.size(), false)}};
  for (std::size_t i = 0; i < answer.size(); ++i) {
    std::vector<Partial> next;
    const auto found = places.find(answer[i]);
    const std::size_t later = --left[answer[i]];
    for (Partial& partial : beam) {
      std::size_t open = 0;
      for (const std::size_t j : found == places.end() ? std::vector<std::size_t>{} : found->second) {
        if (partial.used[j]) continue;
        ++open;
        next.push_back(matched(partial, i, j));
      }
      if (open > later) continue;  // to leave this word out would cost a match
      partial.last = kNone;
      next.push_back(std::move(partial));
    }
    prune(next);
    beam = std::move(next);
  }
  out.chunks = beam.front().chunks;
  return out;
}

}  // namespace

MeteorCounts& MeteorCounts::operator+=(const MeteorCounts& other) {
  answer += other.answer;
  reference += other.reference;
  matches += other.matches;
  chunks += other.same() ? 0 : other.chunks;  // as METEOR's own sums have it
  return *this;
}

double MeteorCounts::score() const {
  if (matches == 0) return 0;
  const auto m = static_cast<double>(matches);
  const double precision = m / static_cast<double>(answer), recall = m / static_cast<double>(reference);
  const double f = 1 / ((1 - kAlpha) / precision + kAlpha / recall);
  const double scattered = same() ? 0 : static_cast<double>(chunks) / m;
  return f * (1 - kGamma * std::pow(scattered, kBeta));
}

MeteorCounts meteor_counts(const std::vector<std::string>& answer,
                           std::span<const std::vector<std::string>> references) {
  MeteorCounts best;
  for (std::size_t i = 0; i < references.size(); ++i) {
    const MeteorCounts counts = align(answer, references[i]);
    if (i == 0 || counts.score() > best.score()) best = counts;
  }
  return best;
}

}  // namespace mcit
