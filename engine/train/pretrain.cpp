#include "train/pretrain.hpp"

#include <cmath>

#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "train/optimizer.hpp"
#include "train/pretrain_parts.hpp"

namespace mcit {
namespace {

/// Row and column of each patch as sines and cosines of falling frequency (MAE's fixed positions); class
/// token zero.
Tensor sine_positions(std::int64_t side, std::int64_t width) {
  Tensor out = at::zeros({side * side + 1, width}, at::kFloat);
  const std::int64_t quarter = width / 4;
  for (std::int64_t i = 0; i < side * side; ++i) {
    const std::int64_t row = i / side, column = i % side;
    for (std::int64_t k = 0; k < quarter; ++k) {
      const double frequency = std::pow(100.0, -static_cast<double>(k) / static_cast<double>(quarter));
      const double down = static_cast<double>(row) * frequency,
                   right = static_cast<double>(column) * frequency;
      float* p = out[i + 1].data_ptr<float>();
      p[k] = static_cast<float>(std::sin(down));
      p[quarter + k] = static_cast<float>(std::cos(down));
      p[2 * quarter + k] = static_cast<float>(std::sin(right));
      p[3 * quarter + k] = static_cast<float>(std::cos(right));
    }
  }
  return 0.5 * out;
}

void initial_encoder(StateDict& out, const Initialiser& init, const std::string& prefix, std::int64_t layers,
                     std::int64_t width, std::int64_t inner) {
  const double out_gain = 1.0 / std::sqrt(2.0 * static_cast<double>(layers));
  for (std::int64_t i = 0; i < layers; ++i) {
    const std::string name = prefix + "encoder.layers." + std::to_string(i) + ".";
    Initialiser::norm(out, name + "layer_norm1", width, true);
    Initialiser::norm(out, name + "layer_norm2", width, true);
    for (const char* part : {"q_proj", "k_proj", "v_proj"})
      init.linear(out, name + "self_attn." + part, width, width, 1.0, true);
    init.linear(out, name + "self_attn.out_proj", width, width, out_gain, true);
    init.linear(out, name + "mlp.fc1", inner, width, 1.0, true);
    init.linear(out, name + "mlp.fc2", width, inner, out_gain, true);
  }
}

void initial_vision(StateDict& out, const Initialiser& init, const std::string& prefix,
                    const VisionConfig& v) {
  const std::int64_t side = v.image_size / v.patch_size;
  out[prefix + "embeddings.class_embedding"] = init.normal(prefix + "class", {v.hidden_size}, 0.02);
  out[prefix + "embeddings.patch_embedding.weight"] =
      init.normal(prefix + "patch", {v.hidden_size, 3, v.patch_size, v.patch_size},
                  1.0 / std::sqrt(3.0 * static_cast<double>(v.patch_size * v.patch_size)));
  out[prefix + "embeddings.position_embedding.weight"] = sine_positions(side, v.hidden_size);
  Initialiser::norm(out, prefix + "pre_layrnorm", v.hidden_size, true);
  Initialiser::norm(out, prefix + "post_layernorm", v.hidden_size, true);
  initial_encoder(out, init, prefix, v.num_hidden_layers, v.hidden_size, v.intermediate_size);
}

/// Matrices inside blocks go to Muon; embeddings, norms, biases and the patch head to AdamW.
bool is_block_matrix(const Parameter& p) {
  return p.value.dim() == 2 && p.name.find("embed") == std::string::npos && !p.name.ends_with("_head");
}

void split_parameters(const Parameters& all, Parameters& matrices, Parameters& rest) {
  for (const Parameter& p : all) (is_block_matrix(p) ? matrices : rest).push_back({p.name, p.value, "base"});
}

/// Mean of every `window` values, for curves that fit in a file's metadata.
void add_to_curve(std::vector<double>& curve, double& sum, std::int64_t step, std::int64_t window,
                  double value) {
  sum += value;
  if ((step + 1) % window == 0) {
    curve.push_back(std::round(1e4 * sum / static_cast<double>(window)) / 1e4);
    sum = 0.0;
  }
}

/// Losses that live in training alone: what each patch of a picture shows and where it lies.
class PatchTasks {
 public:
  PatchTasks(const Mllm& model, const PretrainOptions& options) : o_(options) {
    if (o_.patch_labels == 0) return;
    const Initialiser init(o_.seed);
    const std::int64_t width = model.config().vision.hidden_size, d = model.config().text.hidden_size;
    side_ = model.config().vision.image_size / model.config().vision.patch_size;
    heads_.push_back({"patch_head", init.normal("patch_head", {o_.patch_labels, width}, 0.02), "base"});
    if (o_.token_weight == 0.0) return;
    heads_.push_back({"place_head", init.normal("place_head", {2 * side_, d}, 0.02), "base"});
    words_ = at::empty({o_.patch_labels, 2}, at::kLong);
    for (std::int64_t i = 0; i < o_.patch_labels; ++i)
      for (std::int64_t k = 0; k < 2; ++k)
        words_[i][k] = o_.patch_words[static_cast<std::size_t>(i)][static_cast<std::size_t>(k)];
  }
  const Parameters& heads() const { return heads_; }

  /// @param features [pictures, patches, D] @param targets label of each patch [pictures * patches]
  Tensor loss(Mllm& model, const Tensor& features, const Tensor& targets) const {
    const Tensor label = at::cross_entropy_loss(at::linear(features, heads_[0].value).flatten(0, 1), targets);
    if (o_.token_weight == 0.0) return o_.patch_weight * label;
    Tensor tokens = model.visual_tokens(features, {}).view({features.size(0), features.size(1), -1});
    tokens = tokens * at::rsqrt(tokens.square().mean(-1, true) + 1e-5);
    const Tensor where = at::linear(tokens, heads_[1].value).flatten(0, 1);
    const Tensor index = at::arange(features.size(1)).repeat({features.size(0)});
    const Tensor place = at::cross_entropy_loss(where.narrow(1, 0, side_), at::floor_divide(index, side_)) +
                         at::cross_entropy_loss(where.narrow(1, side_, side_), at::remainder(index, side_));
    const Tensor log_p = at::log_softmax(at::linear(tokens.flatten(0, 1), model.embedding()), -1);
    const Tensor word = -log_p.gather(1, words_.index_select(0, targets)).mean(1);
    // Most of a picture is background; what is shown weighs more.
    const Tensor shown = (targets > 0).to(word.scalar_type());
    const auto mean_where = [&](const Tensor& mask) {
      return (word * mask).sum() / mask.sum().clamp_min(1.0);
    };
    const Tensor both = mean_where(shown) + kBackground * mean_where(1.0 - shown) + place;
    return o_.patch_weight * label + o_.token_weight * both;
  }

 private:
  static constexpr double kBackground = 0.2;

  const PretrainOptions& o_;
  std::int64_t side_ = 0;
  Parameters heads_;
  Tensor words_;  ///< [labels, 2]
};

}  // namespace

StateDict initial_llava(const MllmConfig& c, std::uint64_t seed) {
  const Initialiser init(seed);
  StateDict out;
  initial_vision(out, init, "vision_tower.vision_model.", c.vision);
  init.connector(out, c);
  const DecoderConfig& t = c.text;
  const std::int64_t d = t.hidden_size, f = t.intermediate_size, q = t.num_attention_heads * t.head_dim,
                     kv = t.num_key_value_heads * t.head_dim;
  const double out_gain = 1.0 / std::sqrt(2.0 * static_cast<double>(t.num_hidden_layers));
  out["language_model.model.embed_tokens.weight"] = init.normal("embed", {t.vocab_size, d}, 0.05);
  for (std::int64_t i = 0; i < t.num_hidden_layers; ++i) {
    const std::string name = "language_model.model.layers." + std::to_string(i) + ".";
    Initialiser::norm(out, name + "input_layernorm", d, false);
    Initialiser::norm(out, name + "post_attention_layernorm", d, false);
    init.linear(out, name + "self_attn.q_proj", q, d, 1.0, false);
    init.linear(out, name + "self_attn.k_proj", kv, d, 1.0, false);
    init.linear(out, name + "self_attn.v_proj", kv, d, 1.0, false);
    init.linear(out, name + "self_attn.o_proj", d, q, out_gain, false);
    init.linear(out, name + "mlp.gate_proj", f, d, 1.0, false);
    init.linear(out, name + "mlp.up_proj", f, d, 1.0, false);
    init.linear(out, name + "mlp.down_proj", d, f, out_gain, false);
  }
  Initialiser::norm(out, "language_model.model.norm", d, false);
  if (!t.tie_word_embeddings)
    out["language_model.lm_head.weight"] = init.normal("head", {t.vocab_size, d}, 0.05);
  return out;
}

StateDict initial_clip(const ClipConfig& c, std::uint64_t seed) {
  const Initialiser init(seed);
  StateDict out;
  initial_vision(out, init, "vision_model.", c.vision);
  out["text_model.embeddings.token_embedding.weight"] =
      init.normal("token", {c.text.vocab_size, c.text.hidden_size}, 0.05);
  out["text_model.embeddings.position_embedding.weight"] =
      init.normal("position", {c.text.max_position_embeddings, c.text.hidden_size}, 0.02);
  initial_encoder(out, init, "text_model.", c.text.num_hidden_layers, c.text.hidden_size,
                  c.text.intermediate_size);
  Initialiser::norm(out, "text_model.final_layer_norm", c.text.hidden_size, true);
  init.linear(out, "visual_projection", c.projection_dim, c.vision.hidden_size, 1.0, false);
  init.linear(out, "text_projection", c.projection_dim, c.text.hidden_size, 1.0, false);
  out["logit_scale"] = at::scalar_tensor(c.logit_scale_init, at::kFloat);
  return out;
}

bool pretrain_language(Mllm& model, const PretrainSource& source, const PretrainOptions& o,
                       const std::filesystem::path& snapshot, PretrainReport& report) {
  Parameters all = model.parameters("all");
  const PatchTasks patch_tasks(model, o);
  all.insert(all.end(), patch_tasks.heads().begin(), patch_tasks.heads().end());
  for (Parameter& p : all) p.value.set_requires_grad(true);
  Parameters matrices, rest;
  split_parameters(all, matrices, rest);
  Muon muon(matrices, {.weight_decay = o.muon_decay});
  AdamW adam(rest, {.beta2 = 0.99});

  std::int64_t start = 0;
  double spent = 0.0, language_sum = 0.0, patch_sum = 0.0;
  if (std::filesystem::exists(snapshot)) {
    const StateDict saved = read_safetensors(snapshot).tensors;
    const at::NoGradGuard no_grad;
    for (Parameter& p : all) p.value.copy_(saved.at("model." + p.name));
    muon.load_state(stripped("muon.", saved));
    adam.load_state(stripped("adam.", saved));
    start = saved.at("step").item<std::int64_t>();
    spent = saved.at("cpu_seconds").item<double>();
    const auto curve = [&](const char* name, std::vector<double>& target) {
      const Tensor t = saved.at(name);
      target.assign(t.const_data_ptr<double>(), t.const_data_ptr<double>() + t.numel());
    };
    curve("loss_curve", report.loss_curve);
    curve("patch_curve", report.patch_curve);
    log::info("going on from step ", start, " of ", o.steps);
  }
  const double cpu_start = cpu_seconds();
  const auto save = [&](std::int64_t step) {
    StateDict out = prefixed("muon.", muon.state());
    out.merge(prefixed("adam.", adam.state()));
    for (const Parameter& p : all) out["model." + p.name] = p.value.detach();
    out["step"] = at::scalar_tensor(step, at::kLong);
    out["cpu_seconds"] = at::scalar_tensor(spent + cpu_seconds() - cpu_start, at::kDouble);
    out["loss_curve"] = at::tensor(report.loss_curve, at::kDouble);
    out["patch_curve"] = at::tensor(report.patch_curve, at::kDouble);
    write_safetensors(snapshot, out);
  };

  Progress progress("pre-training", o.steps);
  progress.skip(start);
  model.set_training(true);
  for (std::int64_t step = start; step < o.steps; ++step) {
    const LanguageBatch data = draw_batch(source, step, o.batch);
    Tensor features, patch_loss;
    if (data.pixels.defined()) {
      const Tensor hidden = model.vision_hidden(data.pixels);
      features = hidden.narrow(1, 1, hidden.size(1) - 1);
      if (o.patch_labels > 0) patch_loss = patch_tasks.loss(model, features, data.patch_targets);
    }
    const Tensor language_loss = answer_loss(model.forward_with(data.batch, features));
    const Tensor loss = patch_loss.defined() ? language_loss + patch_loss : language_loss;
    loss.backward();
    const double value = loss.item<double>();
    if (!std::isfinite(value))
      throw Error("pre-training", "the loss is no longer finite at step " + std::to_string(step),
                  "lower muon_lr or adam_lr");
    clip_gradients(all, o.clip);
    const double factor = factor_at("linear", step, o.warmup, o.steps);
    muon.step(o.muon_lr * factor);
    adam.step({{"base", o.adam_lr * factor}});
    muon.zero_grad();
    adam.zero_grad();
    const double language = language_loss.item<double>(),
                 patch = patch_loss.defined() ? patch_loss.item<double>() : 0.0;
    add_to_curve(report.loss_curve, language_sum, step, 100, language);
    add_to_curve(report.patch_curve, patch_sum, step, 100, patch);
    if ((step + 1) % 100 == 0)
      log::debug("step ", step + 1, ": language ", report.loss_curve.back(), ", patches ",
                 report.patch_curve.back(), ", ", spent + cpu_seconds() - cpu_start, " CPU s");
    // A curve's window must be whole at a snapshot, so that a resumed run draws the same curve.
    const bool stop = interrupted() && (step + 1) % 100 == 0;
    if ((step + 1) % o.save_every == 0 || stop) save(step + 1);
    progress.advance(1, "loss " + std::to_string(language).substr(0, 5));
    if (stop) return false;
  }
  model.set_training(false);
  for (Parameter& p : all) p.value.set_requires_grad(false);
  report.cpu_seconds += spent + cpu_seconds() - cpu_start;
  return true;
}

void pretrain_clip(Clip& clip, const PretrainSource& source, const PretrainOptions& o,
                   PretrainReport& report) {
  const std::int64_t last = clip.config().vision.num_hidden_layers - 1;
  const std::string frozen_until = "vision_model.encoder.layers." + std::to_string(last) + ".";
  Parameters trained;
  const auto consider = [&](const std::string& name, const Tensor& tensor) {
    const bool shared = name.starts_with("vision_model.") && !name.starts_with(frozen_until) &&
                        !name.starts_with("vision_model.post_layernorm");
    if (shared) return;
    tensor.set_requires_grad(true);
    trained.push_back({name, tensor, "base"});
  };
  clip.each_site([&](Site& site) {
    consider(site.name() + ".weight", site.weight());
    consider(site.name() + ".bias", site.bias());
  });
  clip.each_tensor([&](const std::string& name, Tensor& tensor) { consider(name, tensor); });
  AdamW adam(trained, {.beta2 = 0.99, .weight_decay = 0.01});
  const double cpu_start = cpu_seconds();
  Progress progress("contrastive stage", o.clip_steps);
  double sum = 0.0;
  std::uint64_t index = std::uint64_t{1} << 40;  // samples that the language stage never drew
  for (std::int64_t step = 0; step < o.clip_steps; ++step) {
    std::vector<Tensor> pixels;
    std::vector<std::vector<std::int64_t>> captions;
    while (static_cast<std::int64_t>(pixels.size()) < o.clip_batch) {
      PretrainSample sample = source(index++);
      if (!sample.pixels.defined() || sample.caption.empty()) continue;
      pixels.push_back(sample.pixels);
      captions.push_back(std::move(sample.caption));
    }
    Tensor frozen;
    {
      const at::NoGradGuard no_grad;
      frozen = clip.vision().hidden(at::stack(pixels), last, false);
    }
    const Tensor image = clip.embed_pooled_vision(clip.vision().continue_from(frozen, last, last + 1, true));
    const Tensor scores = clip.scale() * at::matmul(image, clip.embed_texts(captions, true).t());
    // Equal captions are no negatives of each other: their shares of the target are equal.
    std::map<std::vector<std::int64_t>, std::int64_t> known;
    std::vector<std::int64_t> ids;
    for (const auto& caption : captions)
      ids.push_back(known.try_emplace(caption, static_cast<std::int64_t>(known.size())).first->second);
    const Tensor id = at::tensor(ids, at::kLong), same = (id.unsqueeze(0) == id.unsqueeze(1)).to(at::kFloat);
    const Tensor target = same / same.sum(1, true);
    const Tensor loss = -0.5 * ((target * at::log_softmax(scores, 1)).sum(1).mean() +
                                (target * at::log_softmax(scores, 0)).sum(0).mean());
    loss.backward();
    clip_gradients(trained, o.clip);
    adam.step({{"base", o.clip_lr * factor_at("cosine", step, o.warmup, o.clip_steps)}});
    adam.zero_grad();
    add_to_curve(report.clip_curve, sum, step, 50, loss.item<double>());
    progress.advance(1, "loss " + std::to_string(loss.item<double>()).substr(0, 5));
    if (interrupted()) throw Interrupted();
  }
  for (Parameter& p : trained) p.value.set_requires_grad(false);
  report.cpu_seconds += cpu_seconds() - cpu_start;
}

}  // namespace mcit
