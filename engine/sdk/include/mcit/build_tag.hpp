#pragma once
/// What both sides of the plugin boundary must agree on before any C++ object crosses it.

#include <cstddef>  // defines _GLIBCXX_USE_CXX11_ABI

#include "mcit/abi.hpp"
#include "torch/headeronly/version.h"

#if defined(__clang__)
#define MCIT_COMPILER "clang=" MCIT_STRINGIZE(__clang_major__)
#else
#define MCIT_COMPILER "gcc=" MCIT_STRINGIZE(__GNUC__)
#endif

#if defined(__SANITIZE_ADDRESS__)
#define MCIT_SANITIZER "address"
#elif defined(__SANITIZE_THREAD__)
#define MCIT_SANITIZER "thread"
#else
#define MCIT_SANITIZER "none"
#endif

/// Everything the C++ ABI of a plugin depends on. Engine and plugin must carry the same text: a C++ interface
/// with tensors in it has no weaker promise to give.
#define MCIT_BUILD_TAG \
  "mcit=" MCIT_STRINGIZE(MCIT_VERSION_MAJOR) "." MCIT_STRINGIZE(MCIT_VERSION_MINOR)                            \
  ";torch=" MCIT_STRINGIZE(TORCH_VERSION_MAJOR) "." MCIT_STRINGIZE(TORCH_VERSION_MINOR) "." MCIT_STRINGIZE(    \
      TORCH_VERSION_PATCH) ";" MCIT_COMPILER ";cxx11abi=" MCIT_STRINGIZE(_GLIBCXX_USE_CXX11_ABI)               \
  ";std=" MCIT_STRINGIZE(__cplusplus) ";sanitizer=" MCIT_SANITIZER
