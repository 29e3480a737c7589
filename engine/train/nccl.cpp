// NCCL for the gradients of GPUs. A library of its own, opened once LibTorch's CUDA half is: nothing else
// needs CUDA's headers to build or its libraries to start.
#define USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "train/nccl.hpp"

void mcit_open_nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                    std::chrono::milliseconds timeout, c10::intrusive_ptr<c10d::Backend>& out) {
  const auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  out = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
}
