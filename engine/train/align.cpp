#include "train/align.hpp"

#include <cmath>

#include "core/progress.hpp"
#include "core/random.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "train/optimizer.hpp"

namespace mcit {

void add_initial_connector(StateDict& tensors, const MllmConfig& c, std::uint64_t seed) {
  const auto add = [&](const std::string& name, std::int64_t out, std::int64_t in) {
    const std::string prefix = "multi_modal_projector." + name;
    if (tensors.contains(prefix + ".weight")) return;
    Tensor weight = at::empty({out, in}, at::kFloat);
    Rng rng(derive(seed, {"connector", std::string_view(name)}));
    const double deviation = 1.0 / std::sqrt(static_cast<double>(in));
    float* values = weight.data_ptr<float>();
    for (std::int64_t i = 0; i < weight.numel(); ++i)
      values[i] = static_cast<float>(deviation * rng.normal());
    tensors[prefix + ".weight"] = weight;
    if (c.projector_bias) tensors[prefix + ".bias"] = at::zeros({out});
  };
  add("linear_1", c.text.hidden_size, c.vision.hidden_size);
  add("linear_2", c.text.hidden_size, c.text.hidden_size);
}

bool align_connector(Mllm& model, const PretrainSource& source, const AlignOptions& o,
                     const std::filesystem::path& snapshot, PretrainReport& report) {
  Parameters trained = model.parameters("connector");
  for (Parameter& p : trained) p.value.set_requires_grad(true);
  AdamW adam(trained, {});
  std::int64_t start = 0;
  double spent = 0.0;
  if (std::filesystem::exists(snapshot)) {
    const StateDict saved = read_safetensors(snapshot).tensors;
    const at::NoGradGuard no_grad;
    StateDict moments;
    for (const auto& [name, tensor] : saved)
      if (name.starts_with("adam.")) moments[name.substr(5)] = tensor;
    adam.load_state(moments);
    for (Parameter& p : trained) p.value.copy_(saved.at("model." + p.name));
    start = saved.at("step").item<std::int64_t>();
    spent = saved.at("cpu_seconds").item<double>();
    const Tensor curve = saved.at("loss_curve");
    report.loss_curve.assign(curve.const_data_ptr<double>(), curve.const_data_ptr<double>() + curve.numel());
  }
  const double cpu_start = cpu_seconds();
  Progress progress("aligning the connector", o.steps);
  progress.skip(start);
  for (std::int64_t step = start; step < o.steps; ++step) {
    Batch batch;
    std::vector<Tensor> pixels;
    for (std::int64_t i = 0; i < o.batch; ++i) {
      PretrainSample sample = source(static_cast<std::uint64_t>(step * o.batch + i));
      if (sample.pixels.defined()) pixels.push_back(sample.pixels);
      batch.examples.push_back(std::make_shared<const Example>(std::move(sample.example)));
    }
    Tensor features;
    if (!pixels.empty()) {
      const at::NoGradGuard no_grad;
      features = model.vision_features(at::stack(pixels));
    }
    const Tensor loss = answer_loss(model.forward_with(batch, features));
    const double value = loss.item<double>();
    if (!std::isfinite(value))
      throw Error("alignment", "the loss is no longer finite at step " + std::to_string(step), "lower lr");
    loss.backward();
    clip_gradients(trained, o.clip);
    const double warm = std::min(
        1.0, static_cast<double>(step + 1) / static_cast<double>(std::max<std::int64_t>(1, o.warmup)));
    adam.step({{"connector", o.lr * std::min(warm, schedule_factor("cosine", step, 0, o.steps))}});
    adam.zero_grad();
    report.loss_curve.push_back(std::round(1e4 * value) / 1e4);
    progress.advance(1, "loss " + std::to_string(value).substr(0, 5));
    const bool stop = interrupted();
    if ((step + 1) % o.save_every != 0 && !stop) continue;
    StateDict out;
    for (const auto& [name, tensor] : adam.state()) out["adam." + name] = tensor;
    for (const Parameter& p : trained) out["model." + p.name] = p.value.detach();
    out["step"] = at::scalar_tensor(step + 1, at::kLong);
    out["cpu_seconds"] = at::scalar_tensor(spent + cpu_seconds() - cpu_start, at::kDouble);
    out["loss_curve"] = at::tensor(report.loss_curve, at::kDouble);
    write_safetensors(snapshot, out);
    if (stop) return false;
  }
  for (Parameter& p : trained) p.value.set_requires_grad(false);
  report.cpu_seconds += spent + cpu_seconds() - cpu_start;
  return true;
}

}  // namespace mcit
