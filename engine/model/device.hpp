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

/// Waits until the device has done what it was given; at once on the CPU.
void finish_work(at::Device device);
/// Largest memory of tensors on a GPU so far, MiB; 0 for the CPU.
double peak_device_mb(at::Device device);

/// float32 on the CPU. On CUDA what the weights are stored in, but bfloat16 for float16: its range is too
/// small for training without loss scaling.
/// @param stored as config.json says, or empty
at::ScalarType default_dtype(at::Device device, const std::string& stored = "");

}  // namespace mcit
