#include "federate/tensors.hpp"

#include <torch/types.h>

#include <cstring>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

struct Pair {
  at::ScalarType tensor;
  fed::Dtype array;
};
constexpr Pair kTypes[] = {{at::kDouble, fed::Dtype::f64},
                           {at::kFloat, fed::Dtype::f32},
                           {at::kHalf, fed::Dtype::f16},
                           {at::kBFloat16, fed::Dtype::bf16}};

fed::Dtype array_type(at::ScalarType type) {
  for (const Pair& pair : kTypes)
    if (pair.tensor == type) return pair.array;
  throw Error("federated", std::string("tensors of type ") + at::toString(type) + " do not travel");
}

at::ScalarType tensor_type(fed::Dtype type) {
  for (const Pair& pair : kTypes)
    if (pair.array == type) return pair.tensor;
  throw Error("federated", "a tensor is not of floating-point numbers");
}

void copy_bytes(const fed::Array& array, const Tensor& target) {
  if (!array.bytes.empty()) std::memcpy(target.data_ptr(), array.bytes.data(), array.bytes.size());
}

}  // namespace

fed::ArrayView view_of_tensor(const Tensor& tensor) {
  return {
      array_type(tensor.scalar_type()),
      tensor.sizes().vec(),
      {static_cast<const std::byte*>(tensor.const_data_ptr()), static_cast<std::size_t>(tensor.nbytes())}};
}

fed::Array array_of_tensor(const Tensor& tensor, std::optional<at::ScalarType> dtype) {
  const Tensor flat = tensor.detach().to(at::kCPU, dtype.value_or(tensor.scalar_type())).contiguous();
  const fed::ArrayView view = view_of_tensor(flat);
  return {view.dtype, view.shape, {view.bytes.begin(), view.bytes.end()}};
}

Tensor tensor_of_array(const fed::Array& array, std::optional<at::ScalarType> dtype) {
  const at::ScalarType own = tensor_type(array.dtype);
  const Tensor out = at::empty(array.shape, at::TensorOptions().dtype(own));
  copy_bytes(array, out);
  return out.to(dtype.value_or(own));
}

void copy_into(const fed::Array& array, Tensor target) {
  if (target.sizes().vec() != array.shape) throw Error("federated", "a tensor has changed its shape");
  const at::NoGradGuard no_grad;
  if (target.is_cpu() && target.is_contiguous() && target.scalar_type() == tensor_type(array.dtype))
    copy_bytes(array, target);
  else
    target.copy_(tensor_of_array(array));
}

}  // namespace mcit
