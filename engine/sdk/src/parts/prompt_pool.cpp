#include "mcit/parts/prompt_pool.hpp"

#include <cmath>

#include "draw.hpp"
#include "mcit/errors.hpp"

namespace mcit::parts {

PoolOptions PoolOptions::read(const Params& params) {
  PoolOptions o;
  o.size = params.integer("pool", o.size);
  o.length = params.integer("prompt_length", o.length);
  o.top_k = params.integer("top_k", o.top_k);
  o.init_std = params.number("init_std", o.init_std);
  const std::string which = params.choice("key_features", "both", {"both", "image", "text"});
  o.image = which != "text";
  o.text = which != "image";
  require(o.size >= 1, "pool", "must be at least 1");
  require(o.length >= 1, "prompt_length", "must be at least 1");
  require(o.top_k >= 1 && o.top_k <= o.size, "top_k",
          std::to_string(o.top_k) + " prompts cannot be drawn from a pool of " + std::to_string(o.size),
          "make the pool larger or draw fewer");
  require(std::isfinite(o.init_std) && o.init_std >= 0.0, "init_std", "must not be negative");
  return o;
}

void PromptPool::attach(std::int64_t width, std::int64_t feature_dim, const at::TensorOptions& options,
                        const at::Generator& generator) {
  const auto normal = [&](at::IntArrayRef shape) {
    return at::randn(shape, generator, at::TensorOptions(at::kFloat)).to(options);
  };
  values_ = (normal({options_.size, options_.length, width}) * options_.init_std).set_requires_grad(true);
  if (options_.image) image_keys_ = unit_rows(normal({options_.size, feature_dim})).set_requires_grad(true);
  if (options_.text) text_keys_ = unit_rows(normal({options_.size, feature_dim})).set_requires_grad(true);
}

Tensor PromptPool::choose(const TaskFeatures& features) const {
  Tensor score;
  const auto add = [&](const Tensor& rows, const Tensor& keys) {
    const Tensor similarity = at::mm(rows.to(keys.scalar_type()), unit_rows(keys.detach()).t());
    score = score.defined() ? score + similarity : similarity;
  };
  if (options_.image) add(features.image, image_keys_);
  if (options_.text) add(features.text, text_keys_);
  return std::get<1>(at::topk(score, options_.top_k, -1)).flip(-1);
}

Tensor PromptPool::gather(const Tensor& chosen) const {
  return values_.index_select(0, chosen.flatten())
      .view({chosen.size(0), options_.top_k * options_.length, values_.size(2)});
}

Tensor PromptPool::key_loss(const TaskFeatures& features, const Tensor& chosen) const {
  Tensor sum;
  const auto add = [&](const Tensor& rows, const Tensor& keys) {
    const Tensor own =
        unit_rows(keys).index_select(0, chosen.flatten()).view({chosen.size(0), options_.top_k, -1});
    const Tensor e = rows.to(keys.scalar_type()).unsqueeze(1);
    const Tensor present = (rows.abs().amax(-1) > 0).to(keys.scalar_type()).unsqueeze(1);  // has a picture
    const Tensor part = (present - (own * e).sum(-1)).sum(1).mean();
    sum = sum.defined() ? sum + part : part;
  };
  if (options_.image) add(features.image, image_keys_);
  if (options_.text) add(features.text, text_keys_);
  return sum;
}

Parameters PromptPool::parameters() const {
  Parameters out = {{"pool.prompts", values_, "prompt"}};
  if (options_.image) out.push_back({"pool.image_keys", image_keys_, "prompt"});
  if (options_.text) out.push_back({"pool.text_keys", text_keys_, "prompt"});
  return out;
}

}  // namespace mcit::parts
