#include "model/loops.hpp"

#include <cmath>

// Clones are picked by an ifunc resolver, which runs before a sanitizer is ready.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MCIT_CLONES
#else
#define MCIT_CLONES __attribute__((target_clones("default", "arch=x86-64-v3")))
#endif

namespace mcit::loops {

MCIT_CLONES void rms_norm(const float* x, const float* weight, float* y, float* rstd, std::int64_t rows,
                          std::int64_t width, float eps) {
  for (std::int64_t r = 0; r < rows; ++r, x += width, y += width) {
    float sum = 0.0F;
    for (std::int64_t i = 0; i < width; ++i) sum += x[i] * x[i];
    const float scale = 1.0F / std::sqrt(sum / static_cast<float>(width) + eps);
    rstd[r] = scale;
    for (std::int64_t i = 0; i < width; ++i) y[i] = x[i] * scale * weight[i];
  }
}

MCIT_CLONES void rms_norm_backward(const float* x, const float* weight, const float* rstd, const float* dy,
                                   float* dx, float* dweight, std::int64_t rows, std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r, x += width, dy += width, dx += width) {
    const float scale = rstd[r];
    float dot = 0.0F;
    for (std::int64_t i = 0; i < width; ++i) dot += dy[i] * weight[i] * x[i];
    const float pull = dot * scale * scale * scale / static_cast<float>(width);
    for (std::int64_t i = 0; i < width; ++i) dx[i] = dy[i] * weight[i] * scale - x[i] * pull;
    if (dweight != nullptr)
      for (std::int64_t i = 0; i < width; ++i) dweight[i] += dy[i] * x[i] * scale;
  }
}

MCIT_CLONES void swiglu(const float* gate_up, float* y, std::int64_t rows, std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r, gate_up += 2 * width, y += width) {
    const float *gate = gate_up, *up = gate_up + width;
    for (std::int64_t i = 0; i < width; ++i) y[i] = gate[i] / (1.0F + std::exp(-gate[i])) * up[i];
  }
}

MCIT_CLONES void swiglu_backward(const float* gate_up, const float* dy, float* dgate_up, std::int64_t rows,
                                 std::int64_t width) {
  for (std::int64_t r = 0; r < rows; ++r, gate_up += 2 * width, dgate_up += 2 * width, dy += width) {
    const float *gate = gate_up, *up = gate_up + width;
    float *dgate = dgate_up, *dup = dgate_up + width;
    for (std::int64_t i = 0; i < width; ++i) {
      const float sigmoid = 1.0F / (1.0F + std::exp(-gate[i])), silu = gate[i] * sigmoid;
      dup[i] = dy[i] * silu;
      dgate[i] = dy[i] * up[i] * (sigmoid + silu * (1.0F - sigmoid));
    }
  }
}

MCIT_CLONES void rotary(float* x, const float* cos, const float* sin, std::int64_t rows, std::int64_t stride,
                        std::int64_t heads, std::int64_t head_dim, float sign) {
  const std::int64_t half = head_dim / 2;
  for (std::int64_t r = 0; r < rows; ++r, x += stride, cos += half, sin += half) {
    for (std::int64_t h = 0; h < heads; ++h) {
      float *first = x + h * head_dim, *second = first + half;
      for (std::int64_t i = 0; i < half; ++i) {
        const float a = first[i], b = second[i], s = sign * sin[i];
        first[i] = a * cos[i] - b * s;
        second[i] = b * cos[i] + a * s;
      }
    }
  }
}

}  // namespace mcit::loops
