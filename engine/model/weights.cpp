#include "model/weights.hpp"

#include "mcit/errors.hpp"

namespace mcit {
namespace {

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

Weights::Weights(StateDict tensors, at::Device device, at::ScalarType dtype)
    : tensors_(std::move(tensors)), convert_(true), device_(device), dtype_(dtype) {}

Weights Weights::for_inspection(StateDict tensors) {
  Weights out(std::move(tensors));
  out.lenient_ = true;
  return out;
}

void Weights::complain(const std::string& name, const std::string& what, const std::string& hint) {
  if (!lenient_) throw CheckpointError(name, what, hint);
  problems_.push_back({name, what + (hint.empty() ? "" : "; " + hint)});
}

Tensor Weights::take(const std::string& name, const std::vector<std::int64_t>& shape) {
  const auto found = tensors_.find(name);
  Tensor tensor;
  if (found == tensors_.end()) {
    std::vector<std::string> known;
    for (const auto& [key, value] : tensors_) known.push_back(key);
    std::string hint = hints_.contains(name) ? hints_.at(name) : nearest(name, known);
    if (!hint.empty() && !hints_.contains(name)) hint = "did you mean '" + hint + "'?";
    complain(name, "is missing from the checkpoint", hint);
  } else {
    tensor = found->second;
    if (tensor.sizes() != at::IntArrayRef(shape))
      complain(name, "has shape " + shape_text(tensor.sizes()), "config.json asks for " + shape_text(shape));
    if (!tensor.is_floating_point())
      complain(name, std::string("has dtype ") + at::toString(tensor.scalar_type()),
               "weights are floating point");
    tensors_.erase(found);
  }
  if (lenient_) return at::empty(shape, at::TensorOptions(at::kFloat).device(at::kMeta));
  const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
  if (convert_) tensor = tensor.to(device_, dtype_);
  if (on_take_) on_take_(bytes);
  return tensor;
}

StateDict Weights::rest(const std::string& expected) {
  for (const auto& [name, tensor] : tensors_)
    if (expected.empty() || !name.starts_with(expected)) complain(name, "is no tensor of this model", "");
  return std::move(tensors_);
}

}  // namespace mcit
