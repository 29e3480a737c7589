#pragma once
/// Plain float loops behind kernels.cpp: no torch, compiled for AVX2 beside the baseline and chosen at load
/// time.

#include <cstdint>

namespace mcit::loops {

void rms_norm(const float* x, const float* weight, float* y, float* rstd, std::int64_t rows,
              std::int64_t width, float eps);
/// dx = weight·rstd·dy − x·(Σ dy·weight·x)·rstd³/width; dweight (may be null) += Σ_rows dy·x·rstd
void rms_norm_backward(const float* x, const float* weight, const float* rstd, const float* dy, float* dx,
                       float* dweight, std::int64_t rows, std::int64_t width);

void swiglu(const float* gate_up, float* y, std::int64_t rows, std::int64_t width);
void swiglu_backward(const float* gate_up, const float* dy, float* dgate_up, std::int64_t rows,
                     std::int64_t width);

/// Rotates the first `heads` heads of each row in place; sign = +1 forward, -1 backward. cos, sin: [rows,
/// head_dim / 2]
void rotary(float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t stride,
            std::int64_t heads, std::int64_t head_dim, float sign);

}  // namespace mcit::loops
