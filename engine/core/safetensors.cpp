#include "core/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr std::size_t kLength = 8;           // bytes of the header's length
constexpr std::size_t kMostDimensions = 64;  // of any operation in ATen

struct Element {
  std::string_view dtype;
  std::size_t bytes;
};
constexpr Element kElements[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                                 {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U8", 1},   {"BOOL", 1}};

std::uint64_t unsigned_at(const json& value, const std::string& where) {
  if (!value.is_number_unsigned()) throw CheckpointError(where, "expected a non-negative integer");
  return value.get<std::uint64_t>();
}

SafetensorsEntry parse_entry(const std::string& where, const json& value, std::uint64_t data_size) {
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets"))
    throw CheckpointError(where, "needs dtype, shape and data_offsets");
  const json &dtype = value["dtype"], &shape = value["shape"], &offsets = value["data_offsets"];
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2)
    throw CheckpointError(where, "dtype, shape or data_offsets has the wrong type");
  SafetensorsEntry entry{
      dtype.get<std::string>(), {}, unsigned_at(offsets[0], where), unsigned_at(offsets[1], where)};
  std::uint64_t bytes = safetensors_element(entry.dtype);
  if (bytes == 0)
    throw CheckpointError(where, "unknown dtype '" + entry.dtype + "'",
                          "known: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL");
  if (shape.size() > kMostDimensions)
    throw CheckpointError(where, "has " + std::to_string(shape.size()) + " dimensions");
  std::int64_t reach = static_cast<std::int64_t>(bytes);  // an empty tensor has strides as well
  for (const json& dim : shape) {
    const std::uint64_t n = unsigned_at(dim, where);
    if (__builtin_mul_overflow(reach, std::max<std::uint64_t>(n, 1), &reach))
      throw CheckpointError(where, "its shape overflows 64 bits");
    bytes *= n;
    entry.shape.push_back(static_cast<std::int64_t>(n));
  }
  if (entry.begin > entry.end || entry.end > data_size)
    throw CheckpointError(where, "data_offsets lie outside the file", "the file may be cut short");
  if (entry.end - entry.begin != bytes)
    throw CheckpointError(where, "data_offsets hold " + std::to_string(entry.end - entry.begin) +
                                     " bytes, the shape needs " + std::to_string(bytes));
  return entry;
}

void check_overlap(const std::map<std::string, SafetensorsEntry>& tensors, const std::string& where) {
  std::vector<const std::pair<const std::string, SafetensorsEntry>*> order;
  for (const auto& item : tensors)
    if (item.second.begin != item.second.end) order.push_back(&item);
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->second.begin < b->second.begin; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const auto &before = *order[i - 1], &entry = *order[i];
    if (entry.second.begin == before.second.begin)
      throw CheckpointError(where, "two tensors share the same bytes");
    if (entry.second.begin < before.second.end)
      throw CheckpointError(where + ": " + entry.first, "overlaps tensor '" + before.first + "'");
  }
}

}  // namespace

std::size_t safetensors_element(std::string_view dtype) {
  for (const Element& element : kElements)
    if (dtype == element.dtype) return element.bytes;
  return 0;
}

json parse_tensor_names(const std::string& where, const std::string& what, std::string_view text,
                        int at_depth) {
  constexpr int kDeepest = 8;
  std::set<std::string> seen;
  json object;
  try {
    object = json::parse(text, [&](int depth, json::parse_event_t event, json& parsed) {
      if (depth > kDeepest) throw CheckpointError(where, what + "is nested too deeply");
      if (event == json::parse_event_t::key && depth == at_depth &&
          !seen.insert(parsed.get<std::string>()).second)
        throw CheckpointError(where, what + "names a tensor twice");
      return true;
    });
  } catch (const json::exception& e) {
    throw CheckpointError(where, what + "is not JSON: " + e.what());
  }
  if (!object.is_object()) throw CheckpointError(where, what + "is not a JSON object");
  return object;
}

SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where,
                                    std::uint64_t most) {
  if (file.size() < kLength)
    throw CheckpointError(where,
                          "is too short for a safetensors file (" + std::to_string(file.size()) + " bytes)");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), kLength);
  if (length > kLargestSafetensorsHeader || length > file.size() - kLength)
    throw CheckpointError(where,
                          "its header claims " + std::to_string(length) + " bytes, more than the file holds",
                          "it is no safetensors file or was cut short");
  if (length > most)
    throw CheckpointError(where, "its header has " + std::to_string(length) + " bytes, at most " +
                                     std::to_string(most) + " are expected here");
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLength, length);
  const json header = parse_tensor_names(where, "its header ", text, 1);
  SafetensorsHeader out;
  out.data = kLength + length;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) throw CheckpointError(where, "__metadata__ is not an object");
      for (const auto& [key, entry] : value.items())
        if (entry.is_string()) out.metadata[key] = entry.get<std::string>();
      continue;
    }
    out.tensors.emplace(name, parse_entry(where + ": " + name, value, file.size() - out.data));
  }
  check_overlap(out.tensors, where);
  return out;
}

std::string safetensors_beginning(std::map<std::string, SafetensorsEntry>& tensors,
                                  const std::map<std::string, std::string>& metadata) {
  const auto list = [](const auto& numbers) {
    std::string out = "[";
    for (const auto number : numbers) out += (out.size() > 1 ? "," : "") + std::to_string(number);
    return out + "]";
  };
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + json(metadata).dump();
  std::uint64_t offset = 0;
  for (auto& [name, entry] : tensors) {
    std::uint64_t bytes = safetensors_element(entry.dtype);
    for (const std::int64_t dim : entry.shape) bytes *= static_cast<std::uint64_t>(dim);
    entry.begin = offset;
    entry.end = offset += bytes;
    text += (text.size() > 1 ? "," : "") + json(name).dump() + R"(:{"dtype":")" + entry.dtype +
            R"(","shape":)" + list(entry.shape) + R"(,"data_offsets":)" +
            list(std::array{entry.begin, entry.end}) + "}";
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');  // tensors start on an 8-byte boundary
  std::string out(kLength, '\0');
  const std::uint64_t length = text.size();
  std::memcpy(out.data(), &length, kLength);
  return out + text;
}

}  // namespace mcit
