#include "fed/screening.hpp"

#include <algorithm>
#include <cmath>

namespace mcit::fed {
namespace {

constexpr std::size_t kChunk = 1024;  // stays in the first-level cache

bool all_finite(std::span<const double> x) {
  return std::all_of(x.begin(), x.end(), [](double number) { return std::isfinite(number); });
}

double factor(double norm, double bound) { return bound > 0.0 && norm > bound ? bound / norm : 1.0; }

}  // namespace

std::string first_not_finite(const Arrays& arrays) {
  std::vector<double> part;
  for (const auto& [name, array] : arrays) {
    const std::size_t size = array.size(), width = element_bytes(array.dtype);
    for (std::size_t begin = 0; begin < size; begin += kChunk) {
      part.resize(std::min(kChunk, size - begin));
      load(array.dtype, array.bytes.data() + begin * width, part);
      if (!std::isfinite(square_sum(part)) && !all_finite(part)) return name;
    }
  }
  return {};
}

std::string screen(Contribution& update, const Layout& layout) {
  double model = 0.0, control = 0.0;
  std::vector<double> part;
  Hasher hasher;  // while the numbers are in the cache anyway
  update.update->hash_header(hasher);
  for (const auto& [name, spec] : layout) {
    const std::size_t size = count_of(spec.shape);
    const Contribution::Part tensor = update.part(name, spec.group);
    for (std::size_t begin = 0; begin < size; begin += kChunk) {
      part.resize(std::min(kChunk, size - begin));
      tensor.hash(hasher, begin, part.size());
      const double sum = tensor.square_sum(begin, part);
      if (!std::isfinite(sum)) {  // it is, if every number is finite and none is huge
        tensor.delta(begin, part);
        if (!all_finite(part)) return name + " is not finite";
      }
      if (spec.group == Group::model) model += sum;
      if (spec.group == Group::control) control += sum;
    }
  }
  update.digest = hasher.hex();
  update.norm = std::sqrt(model);
  update.control_norm = std::sqrt(control);
  if (!std::isfinite(update.norm) || !std::isfinite(update.control_norm))
    return "its norm is beyond all numbers";
  return {};
}

void clip(std::vector<Contribution>& updates, const Clipping& bounds) {
  std::vector<double> norms;
  for (const Contribution& update : updates)
    if (update.norm > 0.0) norms.push_back(update.norm);
  std::sort(norms.begin(), norms.end());
  const double median = norms.empty() ? 0.0 : norms[(norms.size() - 1) / 2];  // the lower one of two
  for (Contribution& update : updates) {
    update.scale = std::min(factor(update.norm, bounds.norm), factor(update.norm, bounds.ratio * median));
    update.control_scale = factor(update.control_norm, bounds.control_norm);
  }
}

}  // namespace mcit::fed
