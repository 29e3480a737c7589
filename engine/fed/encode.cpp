// The client's side of an update: from trained tensors to bytes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/text.hpp"
#include "fed/update.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

/// The pieces of one tensor as they travel, and what they decode to.
struct Encoded {
  Arrays arrays;
  std::vector<double> decoded;
};

Encoded as_delta(const std::string& name, const TensorSpec& spec, std::span<const double> delta,
                 Dtype dtype) {
  Encoded out;
  out.arrays[name] = array_of(dtype, spec.shape, delta);
  out.decoded = values_of(out.arrays[name]);
  return out;
}

Encoded as_int8(const std::string& name, const TensorSpec& spec, std::span<const double> delta) {
  constexpr double kLargest = 127.0;
  const std::size_t rows = spec.shape.size() >= 2 ? static_cast<std::size_t>(spec.shape[0]) : 1;
  const std::size_t row = rows == 0 ? 0 : delta.size() / rows;
  std::vector<double> scales(rows), numbers(delta.size());
  for (std::size_t r = 0; r < rows; ++r) {
    double most = 0.0;
    for (std::size_t i = r * row; i < (r + 1) * row; ++i) most = std::max(most, std::fabs(delta[i]));
    scales[r] = static_cast<double>(static_cast<float>(most / kLargest));  // as it travels
    for (std::size_t i = r * row; i < (r + 1) * row; ++i)
      numbers[i] =
          scales[r] > 0.0 ? std::clamp(std::nearbyint(delta[i] / scales[r]), -kLargest, kLargest) : 0.0;
  }
  Encoded out;
  out.arrays[name] = array_of(Dtype::i8, spec.shape, numbers);
  out.arrays[name + "#scale"] = array_of(Dtype::f32, {static_cast<std::int64_t>(rows)}, scales);
  out.decoded.resize(delta.size());
  for (std::size_t i = 0; i < delta.size(); ++i) out.decoded[i] = numbers[i] * scales[i / row];
  return out;
}

Encoded as_topk(const std::string& name, std::span<const double> delta, const EncodeOptions& options) {
  const auto keep =
      std::min(delta.size(),
               static_cast<std::size_t>(std::ceil(options.fraction * static_cast<double>(delta.size()))));
  std::vector<std::size_t> order(delta.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto larger = [&](std::size_t a, std::size_t b) {
    const double x = std::fabs(delta[a]), y = std::fabs(delta[b]);
    return x != y ? x > y : a < b;
  };
  std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep), order.end(), larger);
  order.resize(keep);
  std::sort(order.begin(), order.end());
  std::vector<double> places, numbers;
  for (const std::size_t i : order) {
    places.push_back(static_cast<double>(i));
    numbers.push_back(delta[i]);
  }
  const std::vector<std::int64_t> shape{static_cast<std::int64_t>(keep)};
  Encoded out;
  out.arrays[name + "#index"] = array_of(Dtype::i32, shape, places);
  const Array& sent = out.arrays[name + "#value"] = array_of(options.dtype, shape, numbers);
  const std::vector<double> rounded = values_of(sent);
  out.decoded.assign(delta.size(), 0.0);
  for (std::size_t i = 0; i < keep; ++i) out.decoded[order[i]] = rounded[i];
  return out;
}

std::map<std::string, std::string> metadata_of(const UpdateInfo& info) {
  std::map<std::string, std::string> out = {{"schema", kUpdateSchema},
                                            {"run", info.run},
                                            {"task", info.task},
                                            {"round", std::to_string(info.round)},
                                            {"base", info.base},
                                            {"client", info.client},
                                            {"examples", std::to_string(info.examples)},
                                            {"strategy", info.strategy},
                                            {"strategy_version", info.strategy_version},
                                            {"encoding", encoding_text(info.encoding)}};
  for (const auto& [name, value] : info.statistics) out["stat." + name] = shortest(value);
  return out;
}

std::vector<double> difference(const std::string& name, const TensorSpec& spec, const ArrayView& trained,
                               const Arrays& base) {
  std::vector<double> delta = values_of(trained);
  const auto from = base.find(name);
  if (from == base.end() || spec.group != Group::model) return delta;
  if (from->second.shape != trained.shape) throw Error("update: " + name, "the base has another shape");
  const std::vector<double> before = values_of(from->second);
  for (std::size_t i = 0; i < delta.size(); ++i) delta[i] -= before[i];
  return delta;
}

}  // namespace

std::string encode_update(const UpdateInfo& info, const Layout& layout, const ArrayViews& model,
                          const Arrays& base, const EncodeOptions& options,
                          std::map<std::string, std::vector<double>>* residual) {
  if (options.encoding == Encoding::topk && !(options.fraction > 0.0 && options.fraction <= 1.0))
    throw ConfigError("fraction", "must lie in (0, 1]");
  if (!is_float(options.dtype)) throw ConfigError("dtype", "must be a floating-point type");
  Arrays made;
  ArrayViews out;  // what travels as it is is not copied first
  for (const auto& [name, spec] : layout) {
    const auto found = model.find(name);
    if (found == model.end()) throw Error("update: " + name, "the client has no such tensor");
    if (found->second.shape != spec.shape) throw Error("update: " + name, "is of another shape");
    if (options.encoding == Encoding::full || spec.group == Group::statistic) {
      const bool same = found->second.dtype == spec.dtype;
      if (!same) made[name] = array_of(spec.dtype, spec.shape, values_of(found->second));
      out[name] = same ? found->second : ArrayView(made[name]);
      continue;
    }
    std::vector<double> delta = difference(name, spec, found->second, base);
    std::vector<double>* left = residual == nullptr ? nullptr : &(*residual)[name];
    if (left != nullptr && left->size() == delta.size())
      for (std::size_t i = 0; i < delta.size(); ++i) delta[i] += (*left)[i];
    Encoded encoded = options.encoding == Encoding::int8_delta ? as_int8(name, spec, delta)
                      : options.encoding == Encoding::topk     ? as_topk(name, delta, options)
                                                               : as_delta(name, spec, delta, options.dtype);
    if (left != nullptr) {
      for (std::size_t i = 0; i < delta.size(); ++i) delta[i] -= encoded.decoded[i];
      *left = std::move(delta);
    }
    for (auto& [piece, array] : encoded.arrays) out[piece] = made[piece] = std::move(array);
  }
  UpdateInfo described = info;
  described.encoding = options.encoding;
  return to_blob(out, metadata_of(described));
}

}  // namespace mcit::fed
