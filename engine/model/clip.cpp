#include "model/clip.hpp"

#include <algorithm>

#include "mcit/errors.hpp"
#include "model/device.hpp"
#include "model/kernels.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

Tensor unit(const Tensor& x) { return x / x.norm(2, -1, true); }

}  // namespace

Clip::Clip(ClipConfig config, Weights& weights)
    : config_(std::move(config)),
      vision_(config_.vision, weights, "vision_model.", config_.vision.num_hidden_layers),
      token_embedding_(weights.take("text_model.embeddings.token_embedding.weight",
                                    {config_.text.vocab_size, config_.text.hidden_size})),
      position_embedding_(weights.take("text_model.embeddings.position_embedding.weight",
                                       {config_.text.max_position_embeddings, config_.text.hidden_size})),
      text_(weights, "text_model.", {},
            {config_.text.num_hidden_layers, config_.text.hidden_size, config_.text.intermediate_size,
             config_.text.num_attention_heads, config_.text.layer_norm_eps, config_.text.hidden_act}),
      final_weight_(weights.take("text_model.final_layer_norm.weight", {config_.text.hidden_size})),
      final_bias_(weights.take("text_model.final_layer_norm.bias", {config_.text.hidden_size})) {
  const std::int64_t p = config_.projection_dim, d = config_.vision.hidden_size,
                     f = config_.vision.intermediate_size, t = config_.text.hidden_size;
  if (!config_.siglip) {
    visual_projection_ = weights.take("visual_projection.weight", {p, d});
    text_projection_ = weights.take("text_projection.weight", {p, t});
    logit_scale_ = weights.take("logit_scale", {});
    return;
  }
  text_projection_ = weights.take("text_model.head.weight", {p, t});
  text_projection_bias_ = weights.take("text_model.head.bias", {p});
  logit_scale_ = weights.take("logit_scale", {1});
  logit_bias_ = weights.take("logit_bias", {1});
  const std::string head = "vision_model.head.";
  pool_ = {weights.take(head + "probe", {1, 1, d}),
           weights.take(head + "attention.in_proj_weight", {3 * d, d}),
           weights.take(head + "attention.in_proj_bias", {3 * d}),
           weights.take(head + "attention.out_proj.weight", {d, d}),
           weights.take(head + "attention.out_proj.bias", {d}),
           weights.take(head + "layernorm.weight", {d}),
           weights.take(head + "layernorm.bias", {d}),
           weights.take(head + "mlp.fc1.weight", {f, d}),
           weights.take(head + "mlp.fc1.bias", {f}),
           weights.take(head + "mlp.fc2.weight", {d, f}),
           weights.take(head + "mlp.fc2.bias", {d})};
}

Tensor Clip::embed_images(const Tensor& pixels, bool training, const Prompts& prompts) const {
  return embed_pooled_vision(vision_.hidden(pixels, config_.vision.num_hidden_layers, training, prompts));
}

Tensor Clip::attention_pooled(const Tensor& normed) const {
  const AttentionPool& p = pool_;
  const std::int64_t batch = normed.size(0), d = normed.size(2), heads = config_.vision.num_attention_heads;
  const auto part = [&](const Tensor& x, std::int64_t index, std::int64_t count) {
    return at::linear(x, p.in_weight.narrow(0, index * d, count * d),
                      p.in_bias.narrow(0, index * d, count * d));
  };
  const auto split = [&](const Tensor& x) {
    return x.reshape({x.size(0), x.size(1), heads, d / heads}).transpose(1, 2);
  };
  const std::vector<Tensor> kv = part(normed, 1, 2).chunk(2, -1);
  const Tensor query = part(p.probe, 0, 1).expand({batch, 1, d});
  const Tensor seen = at::scaled_dot_product_attention(split(query), split(kv[0]), split(kv[1]))
                          .transpose(1, 2)
                          .reshape({batch, d});
  const Tensor x = at::linear(seen, p.out_weight, p.out_bias);
  const Tensor h = at::linear(layer_norm(x, p.norm_weight, p.norm_bias, config_.vision.layer_norm_eps),
                              p.fc1_weight, p.fc1_bias);
  return x + at::linear(kernels::activation(config_.vision.hidden_act, h), p.fc2_weight, p.fc2_bias);
}

Tensor Clip::embed_pooled_vision(const Tensor& last_hidden) const {
  return config_.siglip ? unit(attention_pooled(vision_.normed(last_hidden)))
                        : unit(at::linear(vision_.normed(last_hidden.select(1, 0)), visual_projection_));
}

Clip::Layout Clip::lay_out(const std::vector<std::vector<std::int64_t>>& tokens, std::int64_t prompts) const {
  const auto count = static_cast<std::int64_t>(tokens.size());
  std::size_t most = 1;
  for (const auto& ids : tokens) most = std::max(most, ids.size());
  std::int64_t longest = static_cast<std::int64_t>(most);
  if (longest + prompts > config_.text.max_position_embeddings)
    throw DataError("text tower",
                    "a text has " + std::to_string(longest) + " tokens" +
                        (prompts > 0 ? " and " + std::to_string(prompts) + " prompts" : ""),
                    "the tower reads " + std::to_string(config_.text.max_position_embeddings));
  // SigLIP was trained on texts of full length and pools the last row, whatever stands there. CLIP's padding
  // lies behind every real token, where a causal tower never looks.
  if (config_.siglip) longest = config_.text.max_position_embeddings - prompts;
  Tensor ids = at::full({count, longest}, config_.siglip ? config_.text.pad_token_id : 0, at::kLong),
         end = at::full({count}, prompts + longest - 1, at::kLong);
  for (std::int64_t b = 0; b < count; ++b) {
    const auto& row = tokens[static_cast<std::size_t>(b)];
    std::copy(row.begin(), row.end(), ids[b].data_ptr<std::int64_t>());
    if (config_.siglip) continue;
    // The files of the first CLIP release carry eos_token_id 2 and mean the largest id; later ones mean what
    // they say.
    const auto at = config_.text.eos_token_id == 2
                        ? std::max_element(row.begin(), row.end())
                        : std::find(row.begin(), row.end(), config_.text.eos_token_id);
    end[b] = prompts + (at == row.end() ? static_cast<std::int64_t>(row.size()) - 1
                                        : static_cast<std::int64_t>(at - row.begin()));
  }
  return {ids.to(token_embedding_.device()), end.to(token_embedding_.device())};
}

Tensor Clip::embed_texts(const std::vector<std::vector<std::int64_t>>& tokens, bool training,
                         const Prompts& prompts, const std::vector<std::int64_t>& task) const {
  const auto count = static_cast<std::int64_t>(tokens.size());
  const auto [ids, end] = lay_out(tokens, prompts.length());
  const std::int64_t length = ids.size(1) + prompts.length();
  const Tensor every = at::arange(count, end.options());
  Tensor x = at::embedding(token_embedding_, ids);
  if (prompts.length() > 0) x = with_prompts(x, prompts.layers[0].to(x.scalar_type()), 1, 0);
  x = x + position_embedding_.narrow(0, 0, length);
  RouteContext route;
  route.task = task.empty() ? std::vector<std::int64_t>(tokens.size(), -1) : task;
  route.rows = {every.repeat_interleave(length),
                at::arange(length, every.options()).repeat(count),
                every * length,
                every * length + end,
                every * length + end,
                std::vector<std::int64_t>(tokens.size(), length)};
  x = text_.forward(x, 0, config_.text.num_hidden_layers, !config_.siglip, route, training, 1, prompts);
  const Tensor pooled =
      layer_norm(x.index({every, end}), final_weight_, final_bias_, config_.text.layer_norm_eps);
  return unit(text_projection_bias_.defined() ? at::linear(pooled, text_projection_, text_projection_bias_)
                                              : at::linear(pooled, text_projection_));
}

Tensor Clip::scores(const Tensor& images, const Tensor& texts) const {
  const Tensor out = scale() * at::matmul(images, texts.t());
  return logit_bias_.defined() ? out + logit_bias_ : out;
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
  visit("logit_scale", logit_scale_);
  if (!config_.siglip) {
    visit("visual_projection.weight", visual_projection_);
    visit("text_projection.weight", text_projection_);
    return;
  }
  visit("logit_bias", logit_bias_);
  visit("text_model.head.weight", text_projection_);
  visit("text_model.head.bias", text_projection_bias_);
  const std::string head = "vision_model.head.";
  visit(head + "probe", pool_.probe);
  visit(head + "attention.in_proj_weight", pool_.in_weight);
  visit(head + "attention.in_proj_bias", pool_.in_bias);
  visit(head + "attention.out_proj.weight", pool_.out_weight);
  visit(head + "attention.out_proj.bias", pool_.out_bias);
  visit(head + "layernorm.weight", pool_.norm_weight);
  visit(head + "layernorm.bias", pool_.norm_bias);
  visit(head + "mlp.fc1.weight", pool_.fc1_weight);
  visit(head + "mlp.fc1.bias", pool_.fc1_bias);
  visit(head + "mlp.fc2.weight", pool_.fc2_weight);
  visit(head + "mlp.fc2.bias", pool_.fc2_bias);
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

std::shared_ptr<Clip> load_clip(const std::filesystem::path& folder, at::Device device,
                                std::optional<at::ScalarType> dtype) {
  StateDict tensors;
  for (auto& [name, tensor] : read_checkpoint_tensors(folder))
    if (!name.ends_with(".position_ids")) tensors.emplace(name, tensor);
  Weights weights(std::move(tensors), device, dtype.value_or(default_dtype(device)));
  try {
    auto clip = std::make_shared<Clip>(read_clip_config(folder), weights);
    weights.rest("");  // none may be left
    return clip;
  } catch (const CheckpointError& e) {
    throw CheckpointError(folder.string(), e.what());
  }
}

}  // namespace mcit
