#pragma once
/// Named arrays of numbers without LibTorch: what travels in federated rounds and what the ledger keeps.

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/safetensors.hpp"

/// Loops over whole adapters, compiled for wider registers as well. What each element becomes is the same: no
/// product is joined with a sum.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define MCIT_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define MCIT_WIDE
#endif

namespace mcit::fed {

enum class Dtype { f64, f32, f16, bf16, i32, i8 };

const char* dtype_text(Dtype dtype);  ///< "F32", as safetensors spells it
std::size_t element_bytes(Dtype dtype);
bool is_float(Dtype dtype);
/// @throws CheckpointError for a dtype that cannot travel. @param where what the error calls the tensor
Dtype dtype_from(std::string_view text, const std::string& where);

/// One tensor, row-major.
struct Array {
  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;

  std::size_t size() const { return bytes.size() / element_bytes(dtype); }
  bool operator==(const Array&) const = default;
};

/// The same of numbers that lie elsewhere and outlive it.
struct ArrayView {
  ArrayView() = default;
  ArrayView(const Array& array) : ArrayView(array.dtype, array.shape, array.bytes) {}  // NOLINT: on purpose
  ArrayView(Dtype type, std::vector<std::int64_t> dims, std::span<const std::byte> numbers)
      : dtype(type), shape(std::move(dims)), bytes(numbers) {}

  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;

  std::size_t size() const { return bytes.size() / element_bytes(dtype); }
};
using ArrayViews = std::map<std::string, ArrayView>;

/// In the order of names, so that iteration, hashes and files are the same everywhere.
using Arrays = std::map<std::string, Array>;

std::size_t count_of(const std::vector<std::int64_t>& shape);
Array zeros(Dtype dtype, std::vector<std::int64_t> shape);
/// @param values as many as the shape has elements
Array array_of(Dtype dtype, std::vector<std::int64_t> shape, std::span<const double> values);
std::vector<double> values_of(const ArrayView& array);
ArrayViews views_of(const Arrays& arrays);

/// Numbers out of raw little-endian bytes, exactly. @param bytes of out.size() elements, aligned or not
void load(Dtype dtype, const std::byte* bytes, std::span<double> out);

// What is done most, in one pass over float32 numbers and to the bits that load() and double arithmetic have.

/// out = a - b of out.size() elements.
void load_difference(const std::byte* a, const std::byte* b, std::span<double> out);
/// sum += weight (scale (a - b)) of sum.size() elements.
void add_difference(const std::byte* a, const std::byte* b, double scale, double weight,
                    std::span<double> sum);
/// square_sum() of a - b, n elements.
double difference_square_sum(const std::byte* a, const std::byte* b, std::size_t n);

/// Σ x² in eight lanes, always in this order: fast, and the same bits everywhere.
double square_sum(std::span<const double> x);
/// Rounded to nearest, ties to even; what is too large for the type becomes infinite. Integers are clamped.
void store(Dtype dtype, std::span<const double> values, std::byte* bytes);

/// A safetensors blob. Same input, same bytes.
std::string to_blob(const Arrays& arrays, const std::map<std::string, std::string>& metadata);
std::string to_blob(const ArrayViews& arrays, const std::map<std::string, std::string>& metadata);

struct Blob {
  std::map<std::string, std::string> metadata;
  Arrays arrays;
};
/// @param where what errors call the bytes @throws CheckpointError for anything malformed
Blob from_blob(std::string_view bytes, const std::string& where);

/// Lower-case hexadecimal SHA-256 (FIPS 180-4) of the bytes.
std::string sha256(std::string_view bytes);

}  // namespace mcit::fed
