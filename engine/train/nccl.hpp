#pragma once
/// The one function of libmcit_nccl.so.

#include <chrono>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

extern "C" {
/// A process group on NCCL. It throws what LibTorch throws.
__attribute__((visibility("default"))) void mcit_open_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                                           int rank, int size,
                                                           std::chrono::milliseconds timeout,
                                                           c10::intrusive_ptr<c10d::Backend>& out);
}
