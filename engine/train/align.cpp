#include "train/align.hpp"

#include <cmath>

#include "core/progress.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "train/optimizer.hpp"
#include "train/pretrain_parts.hpp"

namespace mcit {

void add_initial_connector(StateDict& tensors, const MllmConfig& config, std::uint64_t seed) {
  StateDict fresh;
  Initialiser(seed).connector(fresh, config);
  tensors.merge(fresh);  // what is there stays
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
    adam.load_state(stripped("adam.", saved));
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
    const LanguageBatch data = draw_batch(source, step, o.batch);
    Tensor features;
    if (data.pixels.defined()) {
      const at::NoGradGuard no_grad;
      features = model.vision_features(data.pixels);
    }
    const Tensor loss = answer_loss(model.forward_with(data.batch, features));
    const double value = loss.item<double>();
    if (!std::isfinite(value))
      throw Error("alignment", "the loss is no longer finite at step " + std::to_string(step), "lower lr");
    loss.backward();
    clip_gradients(trained, o.clip);
    adam.step({{"connector", o.lr * factor_at("cosine", step, o.warmup, o.steps)}});
    adam.zero_grad();
    report.loss_curve.push_back(std::round(1e4 * value) / 1e4);
    progress.advance(1, "loss " + std::to_string(value).substr(0, 5));
    const bool stop = interrupted();
    if ((step + 1) % o.save_every != 0 && !stop) continue;
    StateDict out = prefixed("adam.", adam.state());
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
