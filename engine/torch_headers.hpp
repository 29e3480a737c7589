// The headers of LibTorch that nearly every file that computes reads: compiled once for all of them (see
// mcit_torch_headers() in cmake/McitLayers.cmake). Files still include what they use.
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>
