#pragma once
/// Tensors in and out of messages.

#include "fed/arrays.hpp"
#include "mcit/types.hpp"

namespace mcit::split {

/// @param dtype on the wire; undefined keeps the tensor's
fed::Array to_array(const Tensor& tensor, at::ScalarType dtype);
/// A tensor of its own, in `dtype`.
Tensor to_tensor(const fed::Array& array, at::ScalarType dtype);

}  // namespace mcit::split
