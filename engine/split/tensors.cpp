#include "split/tensors.hpp"

#include <cstring>

#include "mcit/errors.hpp"

namespace mcit::split {
namespace {

struct Pair {
  at::ScalarType tensor;
  fed::Dtype array;
};
constexpr Pair kTypes[] = {{at::kDouble, fed::Dtype::f64},
                           {at::kFloat, fed::Dtype::f32},
                           {at::kHalf, fed::Dtype::f16},
                           {at::kBFloat16, fed::Dtype::bf16}};

}  // namespace

fed::Array to_array(const Tensor& tensor, at::ScalarType dtype) {
  const Tensor flat = tensor.detach().to(at::kCPU, dtype).contiguous();
  for (const Pair& pair : kTypes) {
    if (pair.tensor != dtype) continue;
    const auto* bytes = static_cast<const std::byte*>(flat.const_data_ptr());
    return {pair.array, flat.sizes().vec(), std::vector<std::byte>(bytes, bytes + flat.nbytes())};
  }
  throw Error("split", std::string("tensors of type ") + at::toString(dtype) + " do not travel");
}

Tensor to_tensor(const fed::Array& array, at::ScalarType dtype) {
  for (const Pair& pair : kTypes) {
    if (pair.array != array.dtype) continue;
    const Tensor out = at::empty(array.shape, at::TensorOptions().dtype(pair.tensor));
    if (!array.bytes.empty()) std::memcpy(out.data_ptr(), array.bytes.data(), array.bytes.size());
    return out.to(dtype);
  }
  throw Error("split", "a tensor is not of floating-point numbers");
}

}  // namespace mcit::split
