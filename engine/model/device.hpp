#pragma once
/// Where tensors live.

#include <string>

#include "mcit/types.hpp"

namespace mcit {

/// "cpu", "cuda" or "cuda:N". Opens libtorch_cuda beside libtorch_cpu when a GPU is asked for.
/// @throws ConfigError where there is none.
at::Device open_device(const std::string& name);

/// "float32", "float16" or "bfloat16", as config.json spells them. @throws ConfigError for another name
at::ScalarType dtype_named(const std::string& name);

/// bfloat16 on CUDA, float32 elsewhere.
at::ScalarType default_dtype(at::Device device);

}  // namespace mcit
