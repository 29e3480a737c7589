#pragma once
/// LibTorch's tensors as the arrays that travel, and back.

#include <optional>

#include "fed/arrays.hpp"
#include "mcit/types.hpp"

namespace mcit {

/// Of a contiguous tensor on the CPU, which outlives it.
fed::ArrayView view_of_tensor(const Tensor& tensor);
/// @param dtype of the array; nothing keeps the tensor's
fed::Array array_of_tensor(const Tensor& tensor, std::optional<at::ScalarType> dtype = {});
/// A tensor of its own on the CPU. @param dtype of the tensor; nothing keeps the array's
Tensor tensor_of_array(const fed::Array& array, std::optional<at::ScalarType> dtype = {});
/// @throws Error when the shapes differ
void copy_into(const fed::Array& array, Tensor target);

}  // namespace mcit
