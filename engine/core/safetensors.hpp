#pragma once
/// The safetensors container without tensors: an 8-byte little-endian header length, a JSON header, raw
/// little-endian numbers. What is read comes from outside: every length, offset, dtype and overlap is checked
/// before a byte is used.

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mcit {

/// One tensor of a header.
struct SafetensorsEntry {
  std::string dtype;  ///< "F32", as the format spells it
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;  ///< its bytes, counted from the end of the header
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::map<std::string, SafetensorsEntry> tensors;
  std::uint64_t data = 0;  ///< where the tensors' bytes begin in the file
};

/// 100 MB is what the reference implementation allows.
inline constexpr std::uint64_t kLargestSafetensorsHeader = 100ULL << 20;

/// Bytes of an element of F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL; 0 for any other name.
std::size_t safetensors_element(std::string_view dtype);

/// Checks the whole header. Memory is bounded by a multiple of `most`, whatever the bytes claim.
/// @param where what errors call the bytes @param most bytes that the header may have
/// @throws CheckpointError naming `where` and the tensor
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where,
                                    std::uint64_t most = kLargestSafetensorsHeader);

/// All that stands before the tensors' bytes, which follow in the order of their names; begin and end are
/// given out here. Same input, same bytes.
std::string safetensors_beginning(std::map<std::string, SafetensorsEntry>& tensors,
                                  const std::map<std::string, std::string>& metadata);

/// An object whose keys at a depth are names of tensors, none of them twice.
/// @param what stands in front of what is wrong @throws CheckpointError
nlohmann::json parse_tensor_names(const std::string& where, const std::string& what, std::string_view text,
                                  int at_depth);

}  // namespace mcit
