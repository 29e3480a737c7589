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

/// In the order of names, so that iteration, hashes and files are the same everywhere.
using Arrays = std::map<std::string, Array>;

std::size_t count_of(const std::vector<std::int64_t>& shape);
Array zeros(Dtype dtype, std::vector<std::int64_t> shape);
/// @param values as many as the shape has elements
Array array_of(Dtype dtype, std::vector<std::int64_t> shape, std::span<const double> values);
std::vector<double> values_of(const Array& array);

/// Numbers out of raw little-endian bytes, exactly. @param bytes of out.size() elements, aligned or not
void load(Dtype dtype, const std::byte* bytes, std::span<double> out);
/// Rounded to nearest, ties to even; what is too large for the type becomes infinite. Integers are clamped.
void store(Dtype dtype, std::span<const double> values, std::byte* bytes);

/// A safetensors blob. Same input, same bytes.
std::string to_blob(const Arrays& arrays, const std::map<std::string, std::string>& metadata);
/// The same of arrays that lie elsewhere.
std::string to_blob(const std::map<std::string, const Array*>& arrays,
                    const std::map<std::string, std::string>& metadata);

struct Blob {
  std::map<std::string, std::string> metadata;
  Arrays arrays;
};
/// @param where what errors call the bytes @throws CheckpointError for anything malformed
Blob from_blob(std::string_view bytes, const std::string& where);

/// Lower-case hexadecimal SHA-256 (FIPS 180-4) of the bytes.
std::string sha256(std::string_view bytes);

}  // namespace mcit::fed
