#include "fed/arrays.hpp"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

struct Name {
  const char* text;
  Dtype dtype;
  std::size_t bytes;
};
constexpr Name kNames[] = {{"F64", Dtype::f64, 8},   {"F32", Dtype::f32, 4}, {"F16", Dtype::f16, 2},
                           {"BF16", Dtype::bf16, 2}, {"I32", Dtype::i32, 4}, {"I8", Dtype::i8, 1}};

const Name& name_of(Dtype dtype) { return kNames[static_cast<std::size_t>(dtype)]; }

template <class T>
T at(const std::byte* bytes, std::size_t i) {
  T value;
  std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
  return value;
}

template <class T>
void put(std::byte* bytes, std::size_t i, T value) {
  std::memcpy(bytes + i * sizeof(T), &value, sizeof(T));
}

/// IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits.
float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16U, exponent = (half >> 10U) & 31U, fraction = half & 1023U;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000U | (fraction << 13U));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112U) << 23U) | (fraction << 13U));
  const float small = static_cast<float>(fraction) * 0x1.0p-24F;  // subnormal or zero: exact
  return sign == 0 ? small : -small;
}

std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), sign = (bits >> 16U) & 0x8000U;
  const float size = std::fabs(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>(sign | 0x7e00U);
  if (size >= 65520.0F) return static_cast<std::uint16_t>(sign | 0x7c00U);  // past the last midpoint
  if (size < 0x1.0p-14F)  // subnormal: a multiple of 2^-24, rounded by the float addition itself
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(size + 0.5F) - 0x3f000000U));
  const std::uint32_t magnitude = bits & 0x7fffffffU;
  const std::uint32_t rounded = magnitude + 0xfffU + ((magnitude >> 13U) & 1U);
  return static_cast<std::uint16_t>(sign | ((rounded >> 13U) - (112U << 10U)));
}

std::uint16_t float_to_bfloat(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if (std::isnan(value)) return static_cast<std::uint16_t>((bits >> 16U) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16U) & 1U)) >> 16U);
}

MCIT_WIDE void load_floats(const std::byte* bytes, double* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<double>(at<float>(bytes, i));
}

[[gnu::always_inline]] inline double difference(const std::byte* a, const std::byte* b, std::size_t i) {
  return static_cast<double>(at<float>(a, i)) - static_cast<double>(at<float>(b, i));
}

MCIT_WIDE void subtract_floats(const std::byte* a, const std::byte* b, double* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = difference(a, b, i);
}

MCIT_WIDE void add_floats(const std::byte* a, const std::byte* b, double scale, double weight, double* sum,
                          std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) sum[i] += weight * (scale * difference(a, b, i));
}

/// @param square of an index
template <class Square>
[[gnu::always_inline]] inline double lane_sum(std::size_t n, const Square& square) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> sums{};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] += square(i + lane);
  for (; i < n; ++i) sums[i % kLanes] += square(i);
  double sum = 0.0;
  for (const double part : sums) sum += part;
  return sum;
}

MCIT_WIDE double sum_of_squares(const double* x, std::size_t n) {
  return lane_sum(n, [x](std::size_t i) { return x[i] * x[i]; });
}

MCIT_WIDE double sum_of_squared_differences(const std::byte* a, const std::byte* b, std::size_t n) {
  return lane_sum(n, [a, b](std::size_t i) {
    const double d = difference(a, b, i);
    return d * d;
  });
}

MCIT_WIDE void store_floats(const double* values, std::byte* bytes, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) put(bytes, i, static_cast<float>(values[i]));
}

template <class T>
T clamped(double value) {
  const double least = std::numeric_limits<T>::min(), most = std::numeric_limits<T>::max();
  return static_cast<T>(std::clamp(std::nearbyint(value), least, most));
}

}  // namespace

const char* dtype_text(Dtype dtype) { return name_of(dtype).text; }
std::size_t element_bytes(Dtype dtype) { return name_of(dtype).bytes; }
bool is_float(Dtype dtype) { return dtype != Dtype::i32 && dtype != Dtype::i8; }

Dtype dtype_from(std::string_view text, const std::string& where) {
  for (const Name& name : kNames)
    if (text == name.text) return name.dtype;
  throw CheckpointError(where, "tensors of dtype " + std::string(text) + " do not travel",
                        "known: F64 F32 F16 BF16 I32 I8");
}

std::size_t count_of(const std::vector<std::int64_t>& shape) {
  std::size_t count = 1;
  for (const std::int64_t dim : shape) count *= static_cast<std::size_t>(dim);
  return count;
}

Array zeros(Dtype dtype, std::vector<std::int64_t> shape) {
  const std::size_t bytes = count_of(shape) * element_bytes(dtype);
  return {dtype, std::move(shape), std::vector<std::byte>(bytes)};
}

Array array_of(Dtype dtype, std::vector<std::int64_t> shape, std::span<const double> values) {
  Array out = zeros(dtype, std::move(shape));
  if (out.size() != values.size()) throw Error("array_of", "the shape does not fit the number of values");
  store(dtype, values, out.bytes.data());
  return out;
}

std::vector<double> values_of(const ArrayView& array) {
  std::vector<double> out(array.size());
  load(array.dtype, array.bytes.data(), out);
  return out;
}

void load(Dtype dtype, const std::byte* bytes, std::span<double> out) {
  const std::size_t n = out.size();
  switch (dtype) {
    case Dtype::f64:
      for (std::size_t i = 0; i < n; ++i) out[i] = at<double>(bytes, i);
      return;
    case Dtype::f32:
      load_floats(bytes, out.data(), n);
      return;
    case Dtype::f16:
      for (std::size_t i = 0; i < n; ++i)
        out[i] = static_cast<double>(half_to_float(at<std::uint16_t>(bytes, i)));
      return;
    case Dtype::bf16:
      for (std::size_t i = 0; i < n; ++i)
        out[i] = static_cast<double>(
            std::bit_cast<float>(static_cast<std::uint32_t>(at<std::uint16_t>(bytes, i)) << 16U));
      return;
    case Dtype::i32:
      for (std::size_t i = 0; i < n; ++i) out[i] = at<std::int32_t>(bytes, i);
      return;
    case Dtype::i8:
      for (std::size_t i = 0; i < n; ++i) out[i] = at<std::int8_t>(bytes, i);
      return;
  }
}

void load_difference(const std::byte* a, const std::byte* b, std::span<double> out) {
  subtract_floats(a, b, out.data(), out.size());
}

void add_difference(const std::byte* a, const std::byte* b, double scale, double weight,
                    std::span<double> sum) {
  add_floats(a, b, scale, weight, sum.data(), sum.size());
}

double difference_square_sum(const std::byte* a, const std::byte* b, std::size_t n) {
  return sum_of_squared_differences(a, b, n);
}

double square_sum(std::span<const double> x) { return sum_of_squares(x.data(), x.size()); }

void store(Dtype dtype, std::span<const double> values, std::byte* bytes) {
  const std::size_t n = values.size();
  switch (dtype) {
    case Dtype::f64:
      for (std::size_t i = 0; i < n; ++i) put(bytes, i, values[i]);
      return;
    case Dtype::f32:
      store_floats(values.data(), bytes, n);
      return;
    case Dtype::f16:
      for (std::size_t i = 0; i < n; ++i) put(bytes, i, float_to_half(static_cast<float>(values[i])));
      return;
    case Dtype::bf16:
      for (std::size_t i = 0; i < n; ++i) put(bytes, i, float_to_bfloat(static_cast<float>(values[i])));
      return;
    case Dtype::i32:
      for (std::size_t i = 0; i < n; ++i) put(bytes, i, clamped<std::int32_t>(values[i]));
      return;
    case Dtype::i8:
      for (std::size_t i = 0; i < n; ++i) put(bytes, i, clamped<std::int8_t>(values[i]));
      return;
  }
}

ArrayViews views_of(const Arrays& arrays) { return {arrays.begin(), arrays.end()}; }

std::string to_blob(const ArrayViews& arrays, const std::map<std::string, std::string>& metadata) {
  std::map<std::string, SafetensorsEntry> entries;
  std::size_t bytes = 0;
  for (const auto& [name, array] : arrays) {
    entries[name] = {dtype_text(array.dtype), array.shape, 0, 0};
    bytes += array.bytes.size();
  }
  const std::string beginning = safetensors_beginning(entries, metadata);
  std::string out;
  out.reserve(beginning.size() + bytes);
  out += beginning;
  for (const auto& [name, array] : arrays)
    out.append(reinterpret_cast<const char*>(array.bytes.data()), array.bytes.size());
  return out;
}

std::string to_blob(const Arrays& arrays, const std::map<std::string, std::string>& metadata) {
  return to_blob(views_of(arrays), metadata);
}

Blob from_blob(std::string_view bytes, const std::string& where) {
  const SafetensorsHeader header = parse_safetensors(std::as_bytes(std::span(bytes)), where);
  Blob out{header.metadata, {}};
  for (const auto& [name, entry] : header.tensors) {
    const auto* begin = reinterpret_cast<const std::byte*>(bytes.data()) + header.data;
    out.arrays[name] = {dtype_from(entry.dtype, where + ": " + name), entry.shape,
                        std::vector<std::byte>(begin + entry.begin, begin + entry.end)};
  }
  return out;
}

std::string sha256(std::string_view bytes) {
  std::array<unsigned char, 32> digest{};
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr) != 1)
    throw Error("sha256", "OpenSSL cannot compute it", "a build of OpenSSL without SHA-256?");
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (const unsigned char byte : digest) {
    out.push_back(kDigits[byte >> 4U]);
    out.push_back(kDigits[byte & 15U]);
  }
  return out;
}

}  // namespace mcit::fed
