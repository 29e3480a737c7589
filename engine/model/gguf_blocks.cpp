// Blocks of few bits, as llama.cpp lays them out. Products and sums are rounded one after the other, so that
// the numbers are those of its reference implementation on every machine.

#include <cstring>

#include "model/gguf_file.hpp"

namespace mcit {
namespace {

float half_at(const unsigned char* at) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, at, 2);
  return c10::Half(bits, c10::Half::from_bits());
}

/// Low nibbles are the first half of a block, high ones the second.
void q4_0(const unsigned char* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

void q4_1(const unsigned char* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(block[4 + i] & 15) + m;
    out[i + 16] = d * static_cast<float>(block[4 + i] >> 4) + m;
  }
}

void q8_0(const unsigned char* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<signed char>(block[2 + i]));
}

/// d, minimum, eight scales and eight minima of 6 bits in 12 bytes, 256 nibbles in runs of 32.
void q4_k(const unsigned char* block, float* out) {
  const float d = half_at(block), m = half_at(block + 2);
  const unsigned char *packed = block + 4, *nibbles = block + 16;
  for (int run = 0; run < 8; ++run) {
    int scale = packed[run & 3] & 63, least = packed[4 + (run & 3)] & 63;
    if (run >= 4) {  // two bits of these lie above the first four
      scale = (packed[4 + run] & 15) | (packed[run - 4] >> 6 << 4);
      least = packed[4 + run] >> 4 | (packed[run] >> 6 << 4);
    }
    const float step = d * static_cast<float>(scale), start = m * static_cast<float>(least);
    const int shift = 4 * (run & 1);
    for (int i = 0; i < 32; ++i)
      out[32 * run + i] = step * static_cast<float>(nibbles[32 * (run / 2) + i] >> shift & 15) - start;
  }
}

/// Four low bits, two high bits, sixteen scales of a byte, d: twice 128 numbers in runs of 32.
void q6_k(const unsigned char* block, float* out) {
  const float d = half_at(block + 208);
  for (int run = 0; run < 8; ++run) {
    const int in_half = run & 3;
    const unsigned char *low = block + 64 * (run / 4) + 32 * (in_half & 1),
                        *high = block + 128 + 32 * (run / 4);
    for (int i = 0; i < 32; ++i) {
      const auto scale = static_cast<float>(static_cast<signed char>(block[192 + 2 * run + i / 16]));
      const int value = (low[i] >> 4 * (in_half / 2) & 15) | ((high[i] >> 2 * in_half & 3) << 4);
      out[32 * run + i] = d * scale * static_cast<float>(value - 32);
    }
  }
}

constexpr GgufType kTypes[] = {{0, "F32", 1, 4, nullptr},    {1, "F16", 1, 2, nullptr},
                               {30, "BF16", 1, 2, nullptr},  {2, "Q4_0", 32, 18, q4_0},
                               {3, "Q4_1", 32, 20, q4_1},    {8, "Q8_0", 32, 34, q8_0},
                               {12, "Q4_K", 256, 144, q4_k}, {14, "Q6_K", 256, 210, q6_k}};

}  // namespace

const GgufType* gguf_type(std::uint32_t id) {
  for (const GgufType& type : kTypes)
    if (type.id == id) return &type;
  return nullptr;
}

std::string gguf_type_names() {
  std::string names;
  for (const GgufType& type : kTypes) names += (names.empty() ? "" : " ") + std::string(type.name);
  return names;
}

}  // namespace mcit
