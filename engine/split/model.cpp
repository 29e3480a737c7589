#include "split/model.hpp"

#include <utility>

#include "mcit/errors.hpp"
#include "train/pretrain_parts.hpp"

namespace mcit::split {
namespace {

constexpr double kSmall = 0.02;  // deviation of position embeddings

StateDict beginning(const StateDict& all, const std::string& prefix) {
  StateDict out;
  for (const auto& [name, tensor] : all)
    if (name.starts_with(prefix)) out[name] = tensor.detach().clone();
  return out;
}

/// Whether a tower's tensor belongs to its blocks or to the norm behind them ("pre_layrnorm", as published
/// files spell it, does not).
bool behind_tokens(const std::string& name) {
  return name.find("encoder.") != std::string::npos || name.find("layernorm") != std::string::npos;
}

VisionTower tower_of(const Base& base, const std::string& prefix, std::int64_t blocks) {
  Weights weights(beginning(base.weights, prefix));
  return {base.vision, weights, prefix, blocks};
}

void add_tower(Parameters& out, VisionTower& tower, bool body, const std::string& group) {
  tower.each_tensor([&](const std::string& name, Tensor& tensor) {
    if (behind_tokens(name) == body) out.push_back({name, tensor, group});
  });
  tower.each_site([&](Site& site) {
    if (!body) return;
    out.push_back({site.name() + ".weight", site.weight(), group});
    if (site.bias().defined()) out.push_back({site.name() + ".bias", site.bias(), group});
  });
}

Tensor linear(const StateDict& weights, const std::string& name, const Tensor& x) {
  return at::linear(x, weights.at(name + ".weight"), weights.at(name + ".bias"));
}

/// Number of the block that a tensor belongs to; -1 for none.
std::int64_t block_of(const std::string& name) {
  for (const std::string_view mark : {".layers.", ".layer."})
    if (const auto at = name.find(mark); at != std::string::npos)
      return std::stoll(name.substr(at + mark.size()));
  return -1;
}

}  // namespace

std::vector<Modality> Inputs::present() const {
  std::vector<Modality> out;
  if (pixels.defined()) out.push_back(Modality::image);
  if (text.defined()) out.push_back(Modality::text);
  if (frames.defined()) out.push_back(Modality::audio);
  return out;
}

Base make_base(Shape shape, const VisionConfig& vision, const StateDict& tower, const Tensor& embedding,
               std::uint64_t seed) {
  shape.width = vision.hidden_size;
  shape.inner = vision.intermediate_size;
  shape.heads = vision.num_attention_heads;
  shape.blocks = vision.num_hidden_layers;
  shape.patches = vision.patches();
  shape.patch_values = 3 * vision.patch_size * vision.patch_size;
  shape.class_token = vision_has_class_token(vision.model_type);
  shape.text_width = embedding.size(1);
  Base out{shape, vision, {}};
  const Initialiser draw(seed);
  StateDict drawn;
  const auto head = [&](const std::string& name, std::int64_t tokens, std::int64_t values) {
    draw.linear(drawn, name + ".projection", shape.width, values, 1.0, true);
    drawn[name + ".positions"] = draw.normal(name + ".positions", {tokens, shape.width}, kSmall);
    Initialiser::norm(drawn, name + ".norm", shape.width, true);
  };
  head("text", shape.text_tokens, shape.text_width);
  head("audio", shape.tokens(Modality::audio), shape.frames_per_token * shape.audio_values);
  draw.linear(drawn, "tail.fc1", shape.width, shape.tail_width(), 1.0, true);
  drawn["tail.fc2.weight"] = at::zeros({shape.classes, shape.width});
  drawn["tail.fc2.bias"] = at::zeros({shape.classes});
  for (const auto& [name, tensor] : drawn) out.weights[name] = tensor.to(embedding.scalar_type());
  out.weights["text.embedding"] = embedding;
  for (const auto& [name, tensor] : tower) {
    out.weights["image." + name] = tensor;
    out.weights["body." + name] = tensor;
  }
  return out;
}

Base heads_of(const Base& base) {
  Base out{base.shape, base.vision, {}};
  for (const auto& [name, tensor] : base.weights)
    if (!name.starts_with("body.") && !name.starts_with("tail.")) out.weights[name] = tensor;
  return out;
}

Heads::Heads(const Base& base) : shape_(base.shape), image_(tower_of(base, "image.", 0)) {
  for (const Modality modality : shape_.modalities)
    if (modality != Modality::image)
      own_.merge(beginning(base.weights, std::string(name_of(modality)) + "."));
}

Tokens Heads::forward(const Inputs& inputs) const {
  Tokens out;
  for (const Modality modality : inputs.present())
    if (std::find(shape_.modalities.begin(), shape_.modalities.end(), modality) == shape_.modalities.end())
      throw Error("split", std::string("the model has no head for '") + name_of(modality) + "'",
                  "add it to model.modalities");
  const auto own = [&](const std::string& name, const Tensor& values) {
    return layer_norm(linear(own_, name + ".projection", values) + own_.at(name + ".positions"),
                      own_.at(name + ".norm.weight"), own_.at(name + ".norm.bias"), 1e-5);
  };
  if (inputs.pixels.defined()) out[Modality::image] = image_.hidden(inputs.pixels, 0, false);
  if (inputs.text.defined())
    out[Modality::text] = own("text", at::embedding(own_.at("text.embedding"), inputs.text));
  if (inputs.frames.defined()) {
    const std::int64_t rows = inputs.frames.size(0), count = shape_.tokens(Modality::audio);
    const Tensor used = inputs.frames.narrow(1, 0, count * shape_.frames_per_token);
    out[Modality::audio] =
        own("audio", used.reshape({rows, count, shape_.frames_per_token * shape_.audio_values}));
  }
  return out;
}

Parameters Heads::parameters() {
  Parameters out;
  if (std::find(shape_.modalities.begin(), shape_.modalities.end(), Modality::image) !=
      shape_.modalities.end())
    add_tower(out, image_, false, "heads");
  for (const auto& [name, tensor] : own_) out.push_back({name, tensor, "heads"});
  return out;
}

void Heads::train(bool on) {
  for (Parameter& p : parameters()) p.value.requires_grad_(on);
}

Body::Body(const Base& base)
    : shape_(base.shape),
      tower_(tower_of(base, "body.", base.shape.blocks)),
      tail_(beginning(base.weights, "tail.")) {}

Tensor Body::pooled(const Tensor& tokens) const {
  return tower_.normed(tower_.continue_from(tokens, 0, shape_.blocks, true)).mean(1);
}

Tensor Body::forward(const Tokens& tokens) const {
  std::vector<Tensor> parts;
  for (const Modality modality : shape_.modalities) {
    const auto found = tokens.find(modality);
    if (found != tokens.end()) {
      parts.push_back(shape_.fusion == Fusion::early ? found->second : pooled(found->second));
    } else if (shape_.fusion == Fusion::late) {
      const Tensor& any = tokens.begin()->second;
      parts.push_back(at::zeros({any.size(0), shape_.width}, any.options().requires_grad(false)));
    }
  }
  const Tensor read = shape_.fusion == Fusion::early ? pooled(at::cat(parts, 1)) : at::cat(parts, 1);
  return linear(tail_, "tail.fc2", at::gelu(linear(tail_, "tail.fc1", read)));
}

Parameters Body::parameters() {
  Parameters out;
  add_tower(out, tower_, true, "body");
  for (const auto& [name, tensor] : tail_) out.push_back({name, tensor, "body"});
  return out;
}

void Body::train(std::int64_t blocks) {
  for (Parameter& p : parameters()) {
    const std::int64_t block = block_of(p.name);
    p.value.requires_grad_(block < 0 || block >= shape_.blocks - blocks);
  }
}

std::int64_t bytes_of(const Parameters& parameters) {
  std::int64_t out = 0;
  for (const Parameter& p : parameters) out += static_cast<std::int64_t>(p.value.nbytes());
  return out;
}

std::int64_t training_bytes(const Parameters& parameters) {
  std::int64_t out = bytes_of(parameters);
  for (const Parameter& p : parameters)
    if (p.value.requires_grad()) out += 3 * static_cast<std::int64_t>(p.value.nbytes());
  return out;
}

}  // namespace mcit::split
