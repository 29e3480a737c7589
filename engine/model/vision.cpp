#include "model/vision.hpp"

#include "mcit/errors.hpp"
#include "model/kernels.hpp"

namespace mcit {

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

Tensor with_prompts(const Tensor& x, const Tensor& prompts, std::int64_t fixed, std::int64_t replaced) {
  const std::int64_t rest = fixed + replaced;
  return at::cat({x.narrow(1, 0, fixed), prompts, x.narrow(1, rest, x.size(1) - rest)}, 1);
}

EncoderStack::EncoderStack(Weights& weights, const std::string& prefix, const TransformerNames& names,
                           Shape shape)
    : shape_(std::move(shape)), names_(names) {
  const std::int64_t d = shape_.width, f = shape_.inner;
  const auto scale = [&](const std::string& layer, const char* name) {
    return *name == '\0' ? Tensor() : weights.take(layer + name, {d});
  };
  for (std::int64_t i = 0; i < shape_.layers; ++i) {
    Layer layer;
    layer.name = prefix + names.layers + std::to_string(i) + ".";
    layer.norm1_weight = weights.take(layer.name + names.norm1 + ".weight", {d});
    layer.norm1_bias = weights.take(layer.name + names.norm1 + ".bias", {d});
    layer.norm2_weight = weights.take(layer.name + names.norm2 + ".weight", {d});
    layer.norm2_bias = weights.take(layer.name + names.norm2 + ".bias", {d});
    layer.scale1 = scale(layer.name, names.scale1);
    layer.scale2 = scale(layer.name, names.scale2);
    const bool fused = *names.qkv != '\0';
    layer.qkv =
        fused ? SiteGroup::take(weights, layer.name, {{names.qkv, 3 * d}}, d, shape_.qkv_bias)
              : SiteGroup::take(weights, layer.name + names.attention,
                                {{names.query, d}, {names.key, d}, {names.value, d}}, d, shape_.qkv_bias);
    layer.out = SiteGroup::take(weights, layer.name, {{names.out, d}}, d, true);
    layer.fc1 = SiteGroup::take(weights, layer.name, {{names.fc1, f}}, d, true);
    layer.fc2 = SiteGroup::take(weights, layer.name, {{names.fc2, d}}, f, true);
    layers_.push_back(std::move(layer));
  }
}

Tensor EncoderStack::forward(Tensor x, std::int64_t first, std::int64_t count, bool causal,
                             RouteContext& route, bool training, std::int64_t fixed,
                             const Prompts& prompts) const {
  const std::int64_t batch = x.size(0), length = x.size(1), width = x.size(2), dim = width / shape_.heads;
  const auto linear = [&](const Tensor& rows, const SiteGroup& group) {
    return kernels::site_linear(rows, group.view, group.weight, group.bias, route, training);
  };
  const auto scaled = [](const Tensor& rows, const Tensor& scale) {
    return scale.defined() ? rows * scale : rows;
  };
  x = x.reshape({batch * length, width});
  for (std::int64_t i = first; i < first + count; ++i) {
    const Layer& layer = layers_[static_cast<std::size_t>(i)];
    if (const auto at = static_cast<std::size_t>(i);
        i > 0 && at < prompts.layers.size() && prompts.layers[at].defined())
      x = with_prompts(x.view({batch, length, width}), prompts.layers[at].to(x.scalar_type()), fixed,
                       prompts.length())
              .reshape({batch * length, width});
    const Tensor qkv = linear(layer_norm(x, layer.norm1_weight, layer.norm1_bias, shape_.eps), layer.qkv);
    const Tensor split = qkv.view({batch, length, 3, shape_.heads, dim}).permute({2, 0, 3, 1, 4});
    const Tensor mixed = at::scaled_dot_product_attention(split[0], split[1], split[2], {}, 0.0, causal)
                             .transpose(1, 2)
                             .reshape({batch * length, width});
    x = x + scaled(linear(mixed, layer.out), layer.scale1);
    const Tensor inner = linear(layer_norm(x, layer.norm2_weight, layer.norm2_bias, shape_.eps), layer.fc1);
    x = x + scaled(linear(kernels::activation(shape_.act, inner), layer.fc2), layer.scale2);
  }
  return x.view({batch, length, width});
}

void EncoderStack::each_site(const std::function<void(Site&)>& visit) const {
  for (const Layer& layer : layers_)
    for (const SiteGroup* group : {&layer.qkv, &layer.out, &layer.fc1, &layer.fc2})
      for (Site* site : group->view) visit(*site);
}

void EncoderStack::each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) {
  for (Layer& layer : layers_) {
    visit(layer.name + names_.norm1 + ".weight", layer.norm1_weight);
    visit(layer.name + names_.norm1 + ".bias", layer.norm1_bias);
    visit(layer.name + names_.norm2 + ".weight", layer.norm2_weight);
    visit(layer.name + names_.norm2 + ".bias", layer.norm2_bias);
    if (layer.scale1.defined()) visit(layer.name + names_.scale1, layer.scale1);
    if (layer.scale2.defined()) visit(layer.name + names_.scale2, layer.scale2);
  }
}

/// Names outside the layers. An empty name is a tensor that this kind of tower lacks.
struct VisionTower::Names {
  const char* model_type;
  const char* class_token;
  const char* positions;
  const char* patches;
  bool patch_bias;
  const char *pre_norm, *post_norm;
  bool batched;  ///< class token and positions have a leading dimension of 1
  TransformerNames transformer;
};

const VisionTower::Names& VisionTower::names_of(const std::string& model_type) {
  static const std::vector<Names> known = [] {
    TransformerNames eva, dino;
    eva.qkv = "self_attn.qkv";
    eva.out = "self_attn.projection";
    dino.layers = "encoder.layer.";
    dino.norm1 = "norm1";
    dino.norm2 = "norm2";
    dino.attention = "attention.attention.";
    dino.query = "query";
    dino.key = "key";
    dino.value = "value";
    dino.out = "attention.output.dense";
    dino.scale1 = "layer_scale1.lambda1";
    dino.scale2 = "layer_scale2.lambda1";
    const char *positions = "embeddings.position_embedding.weight", *patches = "embeddings.patch_embedding";
    return std::vector<Names>{
        {"clip_vision_model",
         "embeddings.class_embedding",
         positions,
         patches,
         false,
         "pre_layrnorm",
         "post_layernorm",
         false,
         {}},
        {"siglip_vision_model", "", positions, patches, true, "", "post_layernorm", false, {}},
        {"idefics3", "", positions, patches, true, "", "post_layernorm", false, {}},
        {"instructblip_vision_model", "embeddings.class_embedding", "embeddings.position_embedding", patches,
         true, "", "post_layernorm", true, eva},
        {"dinov2", "embeddings.cls_token", "embeddings.position_embeddings",
         "embeddings.patch_embeddings.projection", true, "", "layernorm", true, dino}};
  }();
  for (const Names& names : known)
    if (names.model_type == model_type) return names;
  throw CheckpointError("vision_config.model_type", "'" + model_type + "' is not supported");
}

VisionTower::VisionTower(VisionConfig config, Weights& weights, const std::string& prefix,
                         std::int64_t layers)
    : config_(std::move(config)),
      names_(names_of(config_.model_type)),
      prefix_(prefix),
      encoder_(weights, prefix, names_.transformer,
               {layers, config_.hidden_size, config_.intermediate_size, config_.num_attention_heads,
                config_.layer_norm_eps, config_.hidden_act, config_.qkv_bias}) {
  const std::int64_t d = config_.hidden_size, p = config_.patch_size;
  const auto shaped = [&](std::vector<std::int64_t> shape) {
    if (names_.batched) shape.insert(shape.begin(), 1);
    return shape;
  };
  const std::int64_t fixed = *names_.class_token == '\0' ? 0 : 1;
  if (fixed == 1)
    class_embedding_ =
        weights.take(prefix + names_.class_token,
                     names_.batched ? std::vector<std::int64_t>{1, 1, d} : std::vector<std::int64_t>{d});
  positions_ = weights.take(prefix + names_.positions, shaped({config_.patches() + fixed, d}));
  patch_weight_ = weights.take(prefix + names_.patches + ".weight", {d, 3, p, p});
  if (names_.patch_bias) patch_bias_ = weights.take(prefix + names_.patches + ".bias", {d});
  if (*names_.pre_norm != '\0') {
    pre_weight_ = weights.take(prefix + names_.pre_norm + ".weight", {d});
    pre_bias_ = weights.take(prefix + names_.pre_norm + ".bias", {d});
  }
  post_weight_ = weights.take(prefix + names_.post_norm + ".weight", {d});
  post_bias_ = weights.take(prefix + names_.post_norm + ".bias", {d});
}

Tensor VisionTower::hidden(const Tensor& pixels, std::int64_t layers, bool training,
                           const Prompts& prompts) const {
  const std::int64_t batch = pixels.size(0), side = config_.side(), p = config_.patch_size,
                     d = config_.hidden_size, fixed = class_embedding_.defined() ? 1 : 0;
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
  Tensor x = at::matmul(patches.to(patch_weight_.scalar_type()), patch_weight_.view({d, -1}).t());
  if (patch_bias_.defined()) x = x + patch_bias_;
  if (fixed == 1) x = at::cat({class_embedding_.view({1, 1, d}).expand({batch, 1, d}), x}, 1);
  x = x + positions_.view({-1, d});
  if (prompts.length() > 0) x = with_prompts(x, prompts.layers[0].to(x.scalar_type()), fixed, 0);
  if (pre_weight_.defined()) x = layer_norm(x, pre_weight_, pre_bias_, config_.layer_norm_eps);
  if (prompts.length() == 0) return continue_from(x, 0, layers, training);
  RouteContext route;
  const Tensor out = encoder_.forward(x, 0, layers, false, route, training, fixed, prompts);
  const std::int64_t behind = fixed + prompts.length();
  return at::cat({out.narrow(1, 0, fixed), out.narrow(1, behind, out.size(1) - behind)}, 1);
}

Tensor VisionTower::continue_from(Tensor hidden, std::int64_t first, std::int64_t layers,
                                  bool training) const {
  RouteContext route;  // adapters in the tower are not routed by sequence
  return encoder_.forward(std::move(hidden), first, layers - first, false, route, training);
}

Tensor VisionTower::normed(const Tensor& hidden) const {
  return layer_norm(hidden, post_weight_, post_bias_, config_.layer_norm_eps);
}

void VisionTower::each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) {
  const auto some = [&](const std::string& name, Tensor& tensor) {
    if (tensor.defined()) visit(prefix_ + name, tensor);
  };
  some(names_.class_token, class_embedding_);
  some(names_.patches + std::string(".weight"), patch_weight_);
  some(names_.patches + std::string(".bias"), patch_bias_);
  some(names_.positions, positions_);
  some(names_.pre_norm + std::string(".weight"), pre_weight_);
  some(names_.pre_norm + std::string(".bias"), pre_bias_);
  encoder_.each_tensor(visit);
  some(names_.post_norm + std::string(".weight"), post_weight_);
  some(names_.post_norm + std::string(".bias"), post_bias_);
}

}  // namespace mcit
