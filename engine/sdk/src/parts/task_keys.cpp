#include "mcit/parts/task_keys.hpp"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "draw.hpp"
#include "mcit/errors.hpp"

namespace mcit::parts {

Tensor unit_rows(const Tensor& x) {
  return x / x.norm(2, -1, true).clamp_min(std::numeric_limits<float>::min());
}

TaskKeys::TaskKeys(const Params& params)
    : learned_(params.choice("keys", "learned", {"learned", "mean"}) == "learned"),
      lambda_(params.number("key_lambda", 1.0)) {
  const std::string which = params.choice("key_features", "both", {"both", "image", "text"});
  image_ = which != "text";
  text_ = which != "image";
  require(std::isfinite(lambda_) && lambda_ > 0.0, "key_lambda", "must be positive");
}

void TaskKeys::attach(const Backbone& backbone, std::int64_t tasks, const at::Generator& generator) {
  const std::int64_t width = backbone.info().feature_dim;
  require(width > 0, "keys", "choosing a task needs image and text features",
          "the model folder needs a clip/ folder beside its config.json");
  image_sum_ = at::zeros({tasks, width}, at::TensorOptions(at::kDouble));
  text_sum_ = at::zeros_like(image_sum_);
  begun_ = at::zeros({tasks}, at::TensorOptions(at::kLong));
  if (!learned_) return;
  const auto drawn = [&] {
    const Tensor key = at::randn({width}, generator, at::TensorOptions(at::kFloat));
    return (key / key.norm()).to(backbone.device()).set_requires_grad(true);
  };
  for (std::int64_t t = 0; t < tasks; ++t) {
    if (image_) image_keys_.push_back(drawn());
    if (text_) text_keys_.push_back(drawn());
  }
}

TaskFeatures TaskKeys::features(const Batch& batch, Backbone& backbone) const {
  const at::NoGradGuard no_grad;
  TaskFeatures out;
  if (image_) out.image = backbone.image_features(batch);
  if (text_) out.text = backbone.text_features(batch);
  return out;
}

void TaskKeys::begin(const std::vector<std::int64_t>& tasks) {
  for (const std::vector<Tensor>* keys : {&image_keys_, &text_keys_})
    for (std::size_t t = 0; t < keys->size(); ++t)
      (*keys)[t].set_requires_grad(std::find(tasks.begin(), tasks.end(), static_cast<std::int64_t>(t)) !=
                                   tasks.end());
  for (const std::int64_t task : tasks) begun_[task] = 1;
}

Tensor TaskKeys::loss(const Batch& batch, Backbone& backbone) const {
  if (!learned_) return {};
  const TaskFeatures e = features(batch, backbone);
  std::vector<std::int64_t> tasks;
  for (const ExamplePtr& example : batch.examples) tasks.push_back(example->task);
  const Tensor index = at::tensor(tasks, at::kLong).to(backbone.device());
  Tensor sum = at::zeros({}, at::TensorOptions(at::kFloat).device(backbone.device()));
  const auto add = [&](const Tensor& rows, const std::vector<Tensor>& keys) {
    const Tensor own = unit_rows(at::stack(keys)).index_select(0, index);
    const Tensor present = (rows.abs().amax(-1) > 0).to(rows.scalar_type());  // rows without a picture
    sum = sum + (present - (rows * own).sum(-1)).mean();
  };
  if (image_) add(e.image, image_keys_);
  if (text_) add(e.text, text_keys_);
  return lambda_ * sum;
}

void TaskKeys::finish(Batches& batches, Backbone& backbone) {
  if (learned_) return;
  const at::NoGradGuard no_grad;
  constexpr std::int64_t kBatch = 64;
  Batch batch;
  for (batches.rewind(kBatch); batches.next(batch);) {
    const TaskFeatures e = features(batch, backbone);
    std::vector<std::int64_t> tasks;
    for (const ExamplePtr& example : batch.examples) tasks.push_back(example->task);
    const Tensor index = at::tensor(tasks, at::kLong);
    if (image_) image_sum_.index_add_(0, index, e.image.to(at::kCPU, at::kDouble));
    if (text_) text_sum_.index_add_(0, index, e.text.to(at::kCPU, at::kDouble));
  }
}

TaskFeatures TaskKeys::keys() const {
  const Tensor begun = begun_.to(at::kDouble).unsqueeze(1);
  const auto keys = [&](const std::vector<Tensor>& learned, const Tensor& sum) {
    const Tensor raw = learned_ ? at::stack(learned).detach().to(at::kCPU, at::kDouble) : sum;
    return unit_rows(raw) * begun;
  };
  TaskFeatures out;
  if (image_) out.image = keys(image_keys_, image_sum_);
  if (text_) out.text = keys(text_keys_, text_sum_);
  return out;
}

std::vector<std::int64_t> TaskKeys::choose(const Batch& batch, Backbone& backbone,
                                           const std::vector<std::int64_t>& known) const {
  std::vector<std::int64_t> out = known;
  out.resize(batch.size(), -1);
  if (std::find(out.begin(), out.end(), -1) == out.end()) return out;
  if (begun_.sum().item<std::int64_t>() == 0) return out;  // nothing to choose from yet
  const at::NoGradGuard no_grad;
  const TaskFeatures e = features(batch, backbone), k = keys();
  const auto similarity = [](const Tensor& rows, const Tensor& task_keys) {
    return at::mm(rows.to(at::kCPU, at::kDouble), task_keys.t());
  };
  Tensor score =
      at::zeros({static_cast<std::int64_t>(batch.size()), begun_.size(0)}, at::TensorOptions(at::kDouble));
  if (image_) score = score + similarity(e.image, k.image);
  if (text_) score = score + similarity(e.text, k.text);
  score.masked_fill_((begun_ == 0).unsqueeze(0), -std::numeric_limits<double>::infinity());
  const Tensor best = score.argmax(1);
  for (std::size_t b = 0; b < out.size(); ++b)
    if (out[b] < 0) out[b] = best.const_data_ptr<std::int64_t>()[b];
  return out;
}

Parameters TaskKeys::parameters() const {
  Parameters out;
  for (std::size_t t = 0; t < image_keys_.size(); ++t)
    out.push_back({"task_key.image." + std::to_string(t), image_keys_[t], "prompt"});
  for (std::size_t t = 0; t < text_keys_.size(); ++t)
    out.push_back({"task_key.text." + std::to_string(t), text_keys_[t], "prompt"});
  return out;
}

std::int64_t TaskKeys::size() const {
  return begun_.sum().item<std::int64_t>() * image_sum_.size(1) * ((image_ ? 1 : 0) + (text_ ? 1 : 0));
}

void TaskKeys::save(StateDict& state) const {
  for (const Parameter& p : parameters()) state[p.name] = state_copy(p.value);
  state["task_key.begun"] = state_copy(begun_);
  if (learned_) return;
  state["task_key.image_sum"] = state_copy(image_sum_);
  state["task_key.text_sum"] = state_copy(text_sum_);
}

void TaskKeys::load(StateReader& reader) {
  for (const Parameter& p : parameters()) reader.copy(p.name, p.value);
  reader.copy("task_key.begun", begun_);
  if (learned_) return;
  reader.copy("task_key.image_sum", image_sum_);
  reader.copy("task_key.text_sum", text_sum_);
}

}  // namespace mcit::parts
