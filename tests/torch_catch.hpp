#pragma once
/// Catch2 beside LibTorch: both define CHECK. Include this after every torch header.

#include <torch/types.h>

#undef CHECK
#undef CHECK_EQ
#include <catch2/catch_test_macros.hpp>
