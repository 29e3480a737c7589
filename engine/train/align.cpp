#include "train/align.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/progress.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "train/optimizer.hpp"
#include "train/pretrain_parts.hpp"

namespace mcit {
namespace {

/// How far the rows of patches are from the embeddings of the words for what they show.
class PatchWords {
 public:
  PatchWords(const Mllm& model, const std::vector<std::int64_t>& words) {
    std::vector<std::int64_t> distinct = words;
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    std::vector<std::int64_t> place;
    for (const std::int64_t word : words)
      place.push_back(std::lower_bound(distinct.begin(), distinct.end(), word) - distinct.begin());
    const Tensor embedding = model.embedding().detach();
    index_ = at::tensor(place, at::kLong).to(embedding.device());
    const Tensor rows = embedding.index_select(0, at::tensor(distinct, at::kLong).to(embedding.device()));
    length_ = rows.norm(2, -1).mean().log();
    directions_ = rows / rows.norm(2, -1, true);
  }

  /// Cross-entropy over the words by direction, and the squared error of the logarithm of the length: an
  /// embedding's length is what the decoder's first norm and its residual stream are used to.
  /// @param features [pictures, patches, D] @param targets label of each patch [pictures * patches]
  Tensor loss(Mllm& model, const Tensor& features, const Tensor& targets) const {
    const Tensor rows = model.visual_tokens(features, {});
    const Tensor length = rows.norm(2, -1, true).clamp_min(1e-6);
    const Tensor label = targets.to(rows.device());
    const Tensor error = at::cross_entropy_loss(kSharpness * at::linear(rows / length, directions_),
                                                index_.index_select(0, label), {}, at::Reduction::None);
    // Most of a picture is background; what is shown weighs more.
    const Tensor weight = at::where(label > 0, 1.0, kBackground).to(error.scalar_type());
    return (error * weight).sum() / weight.sum() + (length.log() - length_).square().mean();
  }

 private:
  static constexpr double kSharpness = 20.0, kBackground = 0.2;
  Tensor index_;       ///< [labels] row of directions_
  Tensor directions_;  ///< [words, d] of length 1
  Tensor length_;      ///< logarithm of the words' mean length
};

}  // namespace

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
  const std::int64_t total = o.word_steps + o.steps;
  const std::optional<PatchWords> words =
      o.word_steps > 0 ? std::optional(PatchWords(model, o.patch_words)) : std::nullopt;
  Progress progress("aligning the connector", total);
  progress.skip(start);
  for (std::int64_t step = start; step < total; ++step) {
    const bool naming = step < o.word_steps;
    const LanguageBatch data = draw_batch(source, step, naming ? o.word_batch : o.batch);
    if (naming && !data.patch_targets.defined()) continue;  // texts alone
    Tensor features;
    if (data.pixels.defined()) {
      const at::NoGradGuard no_grad;
      features = model.vision_features(data.pixels);
    }
    const Tensor loss = naming ? words->loss(model, features, data.patch_targets)
                               : answer_loss(model.forward_with(data.batch, features));
    const double value = loss.item<double>();
    if (!std::isfinite(value))
      throw Error("alignment", "the loss is no longer finite at step " + std::to_string(step), "lower lr");
    loss.backward();
    clip_gradients(trained, o.clip);
    const double factor = naming ? factor_at("cosine", step, o.warmup, o.word_steps)
                                 : factor_at("cosine", step - o.word_steps, o.warmup, o.steps);
    adam.step({{"connector", o.lr * factor}});
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
