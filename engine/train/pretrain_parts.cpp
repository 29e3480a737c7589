#include "train/pretrain_parts.hpp"

#include <cmath>

#include "core/random.hpp"
#include "train/optimizer.hpp"

namespace mcit {

Tensor Initialiser::normal(const std::string& name, const std::vector<std::int64_t>& shape,
                           double deviation) const {
  Tensor out = at::empty(shape, at::kFloat);
  Rng rng(derive(seed_, {"init", std::string_view(name)}));
  float* p = out.data_ptr<float>();
  for (std::int64_t i = 0; i < out.numel(); ++i) p[i] = static_cast<float>(deviation * rng.normal());
  return out;
}

void Initialiser::linear(StateDict& out, const std::string& name, std::int64_t rows, std::int64_t columns,
                         double gain, bool bias) const {
  out[name + ".weight"] = normal(name, {rows, columns}, gain / std::sqrt(static_cast<double>(columns)));
  if (bias) out[name + ".bias"] = at::zeros({rows});
}

void Initialiser::norm(StateDict& out, const std::string& name, std::int64_t width, bool bias) {
  out[name + ".weight"] = at::ones({width});
  if (bias) out[name + ".bias"] = at::zeros({width});
}

void Initialiser::connector(StateDict& out, const MllmConfig& c) const {
  linear(out, "multi_modal_projector.linear_1", c.text.hidden_size, c.vision.hidden_size, 1.0,
         c.projector_bias);
  linear(out, "multi_modal_projector.linear_2", c.text.hidden_size, c.text.hidden_size, 1.0,
         c.projector_bias);
}

StateDict prefixed(const std::string& prefix, const StateDict& state) {
  StateDict out;
  for (const auto& [name, tensor] : state) out[prefix + name] = tensor;
  return out;
}

StateDict stripped(const std::string& prefix, const StateDict& state) {
  StateDict out;
  for (const auto& [name, tensor] : state)
    if (name.starts_with(prefix)) out[name.substr(prefix.size())] = tensor;
  return out;
}

double factor_at(const std::string& decay, std::int64_t step, std::int64_t warmup, std::int64_t total) {
  return step < warmup ? static_cast<double>(step + 1) / static_cast<double>(warmup)
                       : schedule_factor(decay, step, warmup, total);
}

LanguageBatch draw_batch(const PretrainSource& source, std::int64_t step, std::int64_t size) {
  LanguageBatch out;
  std::vector<Tensor> pixels;
  std::vector<std::int64_t> patches;
  for (std::int64_t i = 0; i < size; ++i) {
    PretrainSample sample = source(static_cast<std::uint64_t>(step * size + i));
    if (sample.pixels.defined()) {
      pixels.push_back(sample.pixels);
      patches.insert(patches.end(), sample.patches.begin(), sample.patches.end());
    }
    out.batch.examples.push_back(std::make_shared<const Example>(std::move(sample.example)));
  }
  if (!pixels.empty()) out.pixels = at::stack(pixels);
  if (!patches.empty()) out.patch_targets = at::tensor(patches, at::kLong);
  return out;
}

}  // namespace mcit
