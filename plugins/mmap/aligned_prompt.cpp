#include "aligned_prompt.hpp"

#include <algorithm>
#include <numeric>

#include "mcit/errors.hpp"

namespace mcit::mmap {
namespace {

void require(bool holds, const char* key, const std::string& what, const std::string& hint = {}) {
  if (!holds) throw ConfigError(std::string("strategy.") + key, what, hint);
}

}  // namespace

PromptShape PromptShape::read(const Params& params) {
  PromptShape out;
  out.length = params.integer("length", out.length);
  out.source_rows = params.integer("source_rows", out.source_rows);
  out.source_width = params.integer("source_width", out.source_width);
  out.depth = params.integer("depth", out.depth);
  require(out.length >= 1, "length", "must be at least 1");
  require(out.depth >= 0, "depth", "must not be negative");
  require(out.source_width >= 0, "source_width", "must not be negative");
  require(out.source_rows >= 0, "source_rows", "must not be negative");
  if (out.source_rows == 0) out.source_rows = out.length;
  require(out.length % out.source_rows == 0, "source_rows",
          "must divide length: " + std::to_string(out.source_rows) + " does not divide " +
              std::to_string(out.length));
  return out;
}

PromptShape PromptShape::fitted(const BackboneInfo& backbone) const {
  PromptShape out = *this;
  const std::int64_t common = std::gcd(backbone.hidden, backbone.vision_hidden),
                     shallower = std::min(backbone.layers, backbone.vision_layers);
  if (shallower < 1)
    throw ConfigError("mmap", "aligned prompts need blocks in the text stack and in the vision tower",
                      "this model has none in one of them");
  if (out.source_width == 0) out.source_width = common;
  require(common % out.source_width == 0, "source_width",
          std::to_string(out.source_width) + " does not divide both widths of the model, " +
              std::to_string(backbone.hidden) + " and " + std::to_string(backbone.vision_hidden),
          "take a divisor of " + std::to_string(common) + ", or 0 for that itself");
  if (out.depth == 0) out.depth = shallower;
  require(out.depth <= shallower, "depth", "is " + std::to_string(out.depth),
          "the model's shallower stack has " + std::to_string(shallower) + " blocks");
  return out;
}

AlignedPrompt::AlignedPrompt(std::string name, const PromptShape& shape, const BackboneInfo& backbone,
                             const at::TensorOptions& options, const at::Generator& generator)
    : name_(std::move(name)) {
  constexpr double kDeviation = 0.02;
  const auto drawn = [&](std::int64_t rows, std::int64_t columns, double mean) {
    return (mean + kDeviation * at::randn({rows, columns}, generator, at::TensorOptions(at::kDouble)))
        .to(options)
        .set_requires_grad(true);
  };
  const std::int64_t rows = shape.length / shape.source_rows;
  for (std::int64_t i = 0; i < shape.depth; ++i)
    layers_.push_back({drawn(shape.source_rows, shape.source_width, 0.0),
                       drawn(rows, backbone.hidden / shape.source_width, 1.0),
                       drawn(rows, backbone.vision_hidden / shape.source_width, 1.0)});
}

std::vector<Tensor> AlignedPrompt::text() const {
  std::vector<Tensor> out;
  for (const Layer& layer : layers_) out.push_back(at::kron(layer.text_scale, layer.source));
  return out;
}

std::vector<Tensor> AlignedPrompt::image() const {
  std::vector<Tensor> out;
  for (const Layer& layer : layers_) out.push_back(at::kron(layer.image_scale, layer.source));
  return out;
}

Parameters AlignedPrompt::parameters() const {
  Parameters out;
  for (std::size_t i = 0; i < layers_.size(); ++i) {
    const std::string block = "." + std::to_string(i);
    out.push_back({name_ + ".source" + block, layers_[i].source, "prompt"});
    out.push_back({name_ + ".text_scale" + block, layers_[i].text_scale, "prompt"});
    out.push_back({name_ + ".image_scale" + block, layers_[i].image_scale, "prompt"});
  }
  return out;
}

void AlignedPrompt::set_trainable(bool trainable) const {
  for (const Parameter& p : parameters()) p.value.set_requires_grad(trainable);
}

void AlignedPrompt::copy_from(const AlignedPrompt& other) const {
  const Parameters mine = parameters(), theirs = other.parameters();
  for (std::size_t i = 0; i < mine.size(); ++i) mine[i].value.detach().copy_(theirs[i].value.detach());
}

}  // namespace mcit::mmap
