#include "model/vision.hpp"

#include <algorithm>

#include "mcit/errors.hpp"
#include "model/kernels.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

Tensor unit(const Tensor& x) { return x / x.norm(2, -1, true); }

/// Puts prompts behind the first row of each sequence, in place of `replaced` rows there. x [B, L, D]
Tensor with_prompts(const Tensor& x, const Tensor& prompts, std::int64_t replaced) {
  const std::int64_t rest = 1 + replaced;
  return at::cat({x.narrow(1, 0, 1), prompts, x.narrow(1, rest, x.size(1) - rest)}, 1);
}

}  // namespace

ClipEncoder::ClipEncoder(StateDict& tensors, const std::string& prefix, std::int64_t layers,
                         std::int64_t width, std::int64_t heads, double eps, std::string act)
    : heads_(heads), eps_(eps), act_(std::move(act)) {
  for (std::int64_t i = 0; i < layers; ++i) {
    Layer layer;
    layer.name = prefix + "encoder.layers." + std::to_string(i) + ".";
    layer.norm1_weight = take_tensor(tensors, layer.name + "layer_norm1.weight", {width});
    layer.norm1_bias = take_tensor(tensors, layer.name + "layer_norm1.bias", {width});
    layer.norm2_weight = take_tensor(tensors, layer.name + "layer_norm2.weight", {width});
    layer.norm2_bias = take_tensor(tensors, layer.name + "layer_norm2.bias", {width});
    layer.qkv = SiteGroup::take(tensors, layer.name + "self_attn.", {"q_proj", "k_proj", "v_proj"}, true);
    layer.out = SiteGroup::take(tensors, layer.name + "self_attn.", {"out_proj"}, true);
    layer.fc1 = SiteGroup::take(tensors, layer.name + "mlp.", {"fc1"}, true);
    layer.fc2 = SiteGroup::take(tensors, layer.name + "mlp.", {"fc2"}, true);
    if (layer.qkv.weight.size(0) != 3 * width || layer.qkv.weight.size(1) != width ||
        layer.fc2.weight.size(0) != width)
      throw CheckpointError(layer.name, "its weights do not fit hidden_size " + std::to_string(width));
    layers_.push_back(std::move(layer));
  }
}

Tensor ClipEncoder::forward(Tensor x, std::int64_t first, std::int64_t count, bool causal,
                            RouteContext& route, bool training, const Prompts& prompts) const {
  const std::int64_t batch = x.size(0), length = x.size(1), width = x.size(2), dim = width / heads_;
  x = x.reshape({batch * length, width});
  for (std::int64_t i = first; i < first + count; ++i) {
    const Layer& layer = layers_[static_cast<std::size_t>(i)];
    if (const auto at = static_cast<std::size_t>(i);
        i > 0 && at < prompts.layers.size() && prompts.layers[at].defined())
      x = with_prompts(x.view({batch, length, width}), prompts.layers[at].to(x.scalar_type()),
                       prompts.length())
              .reshape({batch * length, width});
    const Tensor h = layer_norm(x, layer.norm1_weight, layer.norm1_bias, eps_);
    const Tensor qkv =
        kernels::site_linear(h, layer.qkv.view, layer.qkv.weight, layer.qkv.bias, route, training);
    const Tensor split = qkv.view({batch, length, 3, heads_, dim}).permute({2, 0, 3, 1, 4});
    const Tensor mixed = at::scaled_dot_product_attention(split[0], split[1], split[2], {}, 0.0, causal)
                             .transpose(1, 2)
                             .reshape({batch * length, width});
    x = x + kernels::site_linear(mixed, layer.out.view, layer.out.weight, layer.out.bias, route, training);
    const Tensor g = layer_norm(x, layer.norm2_weight, layer.norm2_bias, eps_);
    const Tensor act = kernels::activation(
        act_, kernels::site_linear(g, layer.fc1.view, layer.fc1.weight, layer.fc1.bias, route, training));
    x = x + kernels::site_linear(act, layer.fc2.view, layer.fc2.weight, layer.fc2.bias, route, training);
  }
  return x.view({batch, length, width});
}

void ClipEncoder::each_site(const std::function<void(Site&)>& visit) const {
  for (const Layer& layer : layers_)
    for (const SiteGroup* group : {&layer.qkv, &layer.out, &layer.fc1, &layer.fc2})
      for (Site* site : group->view) visit(*site);
}

void ClipEncoder::each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) {
  for (Layer& layer : layers_) {
    visit(layer.name + "layer_norm1.weight", layer.norm1_weight);
    visit(layer.name + "layer_norm1.bias", layer.norm1_bias);
    visit(layer.name + "layer_norm2.weight", layer.norm2_weight);
    visit(layer.name + "layer_norm2.bias", layer.norm2_bias);
  }
}

VisionTower::VisionTower(VisionConfig config, StateDict& tensors, const std::string& prefix,
                         std::int64_t layers)
    : config_(std::move(config)),
      prefix_(prefix),
      class_embedding_(take_tensor(tensors, prefix + "embeddings.class_embedding", {config_.hidden_size})),
      patch_embedding_(take_tensor(tensors, prefix + "embeddings.patch_embedding.weight",
                                   {config_.hidden_size, 3, config_.patch_size, config_.patch_size})),
      position_embedding_(take_tensor(tensors, prefix + "embeddings.position_embedding.weight",
                                      {config_.patches() + 1, config_.hidden_size})),
      pre_weight_(take_tensor(tensors, prefix + "pre_layrnorm.weight", {config_.hidden_size})),
      pre_bias_(take_tensor(tensors, prefix + "pre_layrnorm.bias", {config_.hidden_size})),
      post_weight_(take_tensor(tensors, prefix + "post_layernorm.weight", {config_.hidden_size})),
      post_bias_(take_tensor(tensors, prefix + "post_layernorm.bias", {config_.hidden_size})),
      encoder_(tensors, prefix, layers, config_.hidden_size, config_.num_attention_heads,
               config_.layer_norm_eps, config_.hidden_act) {}

Tensor VisionTower::hidden(const Tensor& pixels, std::int64_t layers, bool training,
                           const Prompts& prompts) const {
  const std::int64_t batch = pixels.size(0), side = config_.image_size / config_.patch_size,
                     p = config_.patch_size, d = config_.hidden_size;
  if (pixels.dim() != 4 || pixels.size(1) != 3 || pixels.size(2) != config_.image_size ||
      pixels.size(3) != config_.image_size)
    throw Error("pixels", "the vision tower reads [B, 3, " + std::to_string(config_.image_size) + ", " +
                              std::to_string(config_.image_size) + "]");
  // Patches do not overlap, so the convolution is one product over reordered pixels.
  const Tensor patches = pixels.narrow(2, 0, side * p)
                             .narrow(3, 0, side * p)
                             .reshape({batch, 3, side, p, side, p})
                             .permute({0, 2, 4, 1, 3, 5})
                             .reshape({batch, side * side, 3 * p * p});
  const Tensor embedded =
      at::matmul(patches.to(patch_embedding_.scalar_type()), patch_embedding_.view({d, -1}).t());
  const Tensor x =
      at::cat({class_embedding_.view({1, 1, d}).expand({batch, 1, d}), embedded}, 1) + position_embedding_;
  const Tensor start =
      layer_norm(prompts.length() == 0 ? x : with_prompts(x, prompts.layers[0].to(x.scalar_type()), 0),
                 pre_weight_, pre_bias_, config_.layer_norm_eps);
  if (prompts.length() == 0) return continue_from(start, 0, layers, training);
  RouteContext route;
  const Tensor out = encoder_.forward(start, 0, layers, false, route, training, prompts);
  const std::int64_t behind = 1 + prompts.length();
  return at::cat({out.narrow(1, 0, 1), out.narrow(1, behind, out.size(1) - behind)}, 1);
}

Tensor VisionTower::continue_from(Tensor hidden, std::int64_t first, std::int64_t layers,
                                  bool training) const {
  RouteContext route;  // adapters in the tower are not routed by sequence
  return encoder_.forward(std::move(hidden), first, layers - first, false, route, training);
}

Tensor VisionTower::pooled(const Tensor& last_hidden) const {
  return layer_norm(last_hidden.select(1, 0), post_weight_, post_bias_, config_.layer_norm_eps);
}

void VisionTower::each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) {
  visit(prefix_ + "embeddings.class_embedding", class_embedding_);
  visit(prefix_ + "embeddings.patch_embedding.weight", patch_embedding_);
  visit(prefix_ + "embeddings.position_embedding.weight", position_embedding_);
  visit(prefix_ + "pre_layrnorm.weight", pre_weight_);
  visit(prefix_ + "pre_layrnorm.bias", pre_bias_);
  encoder_.each_tensor(visit);
  visit(prefix_ + "post_layernorm.weight", post_weight_);
  visit(prefix_ + "post_layernorm.bias", post_bias_);
}

Clip::Clip(ClipConfig config, StateDict& tensors)
    : config_(std::move(config)),
      vision_(config_.vision, tensors, "vision_model.", config_.vision.num_hidden_layers),
      token_embedding_(take_tensor(tensors, "text_model.embeddings.token_embedding.weight",
                                   {config_.text.vocab_size, config_.text.hidden_size})),
      position_embedding_(take_tensor(tensors, "text_model.embeddings.position_embedding.weight",
                                      {config_.text.max_position_embeddings, config_.text.hidden_size})),
      text_(tensors, "text_model.", config_.text.num_hidden_layers, config_.text.hidden_size,
            config_.text.num_attention_heads, config_.text.layer_norm_eps, config_.text.hidden_act),
      final_weight_(take_tensor(tensors, "text_model.final_layer_norm.weight", {config_.text.hidden_size})),
      final_bias_(take_tensor(tensors, "text_model.final_layer_norm.bias", {config_.text.hidden_size})),
      visual_projection_(take_tensor(tensors, "visual_projection.weight",
                                     {config_.projection_dim, config_.vision.hidden_size})),
      text_projection_(
          take_tensor(tensors, "text_projection.weight", {config_.projection_dim, config_.text.hidden_size})),
      logit_scale_(take_tensor(tensors, "logit_scale", {})) {}

Tensor Clip::embed_images(const Tensor& pixels, bool training, const Prompts& prompts) const {
  return embed_pooled_vision(vision_.hidden(pixels, config_.vision.num_hidden_layers, training, prompts));
}

Tensor Clip::embed_pooled_vision(const Tensor& last_hidden) const {
  return unit(at::linear(vision_.pooled(last_hidden), visual_projection_));
}

Tensor Clip::embed_texts(const std::vector<std::vector<std::int64_t>>& tokens, bool training,
                         const Prompts& prompts, const std::vector<std::int64_t>& task) const {
  const auto count = static_cast<std::int64_t>(tokens.size());
  std::size_t most = 1;
  for (const auto& ids : tokens) most = std::max(most, ids.size());
  const auto longest = static_cast<std::int64_t>(most);
  const std::int64_t length = longest + prompts.length();
  if (length > config_.text.max_position_embeddings)
    throw DataError("text tower",
                    "a text has " + std::to_string(longest) + " tokens" +
                        (prompts.length() > 0 ? " and " + std::to_string(prompts.length()) + " prompts" : ""),
                    "the tower reads " + std::to_string(config_.text.max_position_embeddings));
  // Padding lies behind every real token, where a causal tower never looks.
  Tensor ids = at::zeros({count, longest}, at::kLong), end = at::zeros({count}, at::kLong);
  for (std::int64_t b = 0; b < count; ++b) {
    const auto& row = tokens[static_cast<std::size_t>(b)];
    std::copy(row.begin(), row.end(), ids[b].data_ptr<std::int64_t>());
    // The files of the first CLIP release carry eos_token_id 2 and mean the largest id; later ones mean what
    // they say.
    const auto at = config_.text.eos_token_id == 2
                        ? std::max_element(row.begin(), row.end())
                        : std::find(row.begin(), row.end(), config_.text.eos_token_id);
    end[b] = prompts.length() + (at == row.end() ? static_cast<std::int64_t>(row.size()) - 1
                                                 : static_cast<std::int64_t>(at - row.begin()));
  }
  const at::Device device = token_embedding_.device();
  const Tensor every = at::arange(count, at::TensorOptions(at::kLong).device(device));
  end = end.to(device);
  Tensor x = at::embedding(token_embedding_, ids.to(device));
  if (prompts.length() > 0) x = with_prompts(x, prompts.layers[0].to(x.scalar_type()), 0);
  x = x + position_embedding_.narrow(0, 0, length);
  RouteContext route;
  route.task = task.empty() ? std::vector<std::int64_t>(tokens.size(), -1) : task;
  route.rows = {every.repeat_interleave(length),
                at::arange(length, every.options()).repeat(count),
                every * length,
                every * length + end,
                every * length + end,
                std::vector<std::int64_t>(tokens.size(), length)};
  x = text_.forward(x, 0, config_.text.num_hidden_layers, true, route, training, prompts);
  const Tensor pooled = x.index({every, end});
  return unit(at::linear(layer_norm(pooled, final_weight_, final_bias_, config_.text.layer_norm_eps),
                         text_projection_));
}

void Clip::each_site(const std::function<void(Site&)>& visit) const {
  vision_.each_site(visit);
  text_.each_site(visit);
}

void Clip::each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) {
  vision_.each_tensor(visit);
  visit("text_model.embeddings.token_embedding.weight", token_embedding_);
  visit("text_model.embeddings.position_embedding.weight", position_embedding_);
  text_.each_tensor(visit);
  visit("text_model.final_layer_norm.weight", final_weight_);
  visit("text_model.final_layer_norm.bias", final_bias_);
  visit("visual_projection.weight", visual_projection_);
  visit("text_projection.weight", text_projection_);
  visit("logit_scale", logit_scale_);
}

StateDict Clip::tensors() {
  StateDict out;
  each_tensor([&](const std::string& name, Tensor& tensor) { out[name] = tensor; });
  each_site([&](Site& site) {
    out[site.name() + ".weight"] = site.weight();
    out[site.name() + ".bias"] = site.bias();
  });
  return out;
}

void Clip::save(const std::filesystem::path& folder, at::ScalarType dtype,
                const std::map<std::string, std::string>& metadata) {
  write_model_file(folder, tensors(), dtype, metadata, clip_config_json(config_, dtype_name(dtype)));
}

Connector::Connector(StateDict& tensors, const std::string& prefix, std::string act, bool bias)
    : act_(std::move(act)),
      linear_1_(SiteGroup::take(tensors, prefix, {"linear_1"}, bias)),
      linear_2_(SiteGroup::take(tensors, prefix, {"linear_2"}, bias)) {
  if (linear_2_.weight.size(1) != linear_1_.weight.size(0))
    throw CheckpointError(prefix + "linear_2.weight", "does not fit linear_1");
}

Tensor Connector::forward(const Tensor& features, RouteContext& route, bool training) const {
  const Tensor h = kernels::activation(act_, kernels::site_linear(features, linear_1_.view, linear_1_.weight,
                                                                  linear_1_.bias, route, training));
  return kernels::site_linear(h, linear_2_.view, linear_2_.weight, linear_2_.bias, route, training);
}

void Connector::each_site(const std::function<void(Site&)>& visit) const {
  for (const SiteGroup* group : {&linear_1_, &linear_2_})
    for (Site* site : group->view) visit(*site);
}

}  // namespace mcit
