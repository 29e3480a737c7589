// Coordinate-wise rules that a few wrong updates cannot pull away (Yin et al. 2018). They weigh clients
// alike.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "fed/rules.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

/// x ← x + f(Δ_1[i] .. Δ_K[i]) for every coordinate i. @param f gets the K numbers in ascending order
template <class Statistic>
Arrays by_coordinate(const AggregatorInput& input, Statistic f) {
  constexpr std::size_t kChunk = 1024;
  const std::size_t count = input.updates.size();
  Arrays next = input.state;
  std::vector<double> chunk(count * kChunk), column(count);
  for (auto& [key, array] : next) {
    const std::string name = model_name(key);
    if (name.empty()) continue;
    std::vector<double> step(array.size());
    std::vector<Contribution::Part> parts;
    for (const Contribution& update : input.updates) parts.push_back(update.part(name));
    for (std::size_t begin = 0; begin < step.size(); begin += kChunk) {
      const std::size_t n = std::min(kChunk, step.size() - begin);
      for (std::size_t k = 0; k < count; ++k) parts[k].delta(begin, std::span(chunk).subspan(k * kChunk, n));
      for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t k = 0; k < count; ++k) column[k] = chunk[k * kChunk + i];
        std::sort(column.begin(), column.end());
        step[begin + i] = f(column);
      }
    }
    array = moved(array, step);
  }
  return next;
}

class Median final : public Aggregator {
 public:
  std::string name() const override { return "median"; }
  Arrays aggregate(const AggregatorInput& input, Json&) const override {
    return by_coordinate(input, [](const std::vector<double>& sorted) {
      const std::size_t half = sorted.size() / 2;
      return sorted.size() % 2 == 1 ? sorted[half] : 0.5 * (sorted[half - 1] + sorted[half]);
    });
  }
};

/// The mean of what is left when ⌊trim K⌋ of the largest and of the smallest are dropped.
class TrimmedMean final : public Aggregator {
 public:
  explicit TrimmedMean(const Config& settings) : trim_(settings.number("trim", 0.1, 0.0, 0.5)) {
    if (trim_ >= 0.5)
      throw ConfigError(settings.where("trim"), "must be less than 0.5", "nothing would be left");
  }
  std::string name() const override { return "trimmed_mean"; }
  Arrays aggregate(const AggregatorInput& input, Json& notes) const override {
    const auto cut = static_cast<std::size_t>(trim_ * static_cast<double>(input.updates.size()));
    notes["trimmed"] = cut;
    return by_coordinate(input, [cut](const std::vector<double>& sorted) {
      double sum = 0.0;
      for (std::size_t k = cut; k + cut < sorted.size(); ++k) sum += sorted[k];
      return sum / static_cast<double>(sorted.size() - 2 * cut);
    });
  }

 private:
  double trim_;
};

}  // namespace

std::unique_ptr<Aggregator> make_median(const Config&) { return std::make_unique<Median>(); }
std::unique_ptr<Aggregator> make_trimmed_mean(const Config& settings) {
  return std::make_unique<TrimmedMean>(settings);
}

}  // namespace mcit::fed
