#include "model/safetensors.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/files.hpp"
#include "mcit/errors.hpp"
#include "model/mapping.hpp"

namespace mcit {
namespace {

using nlohmann::json;
static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

/// A header above this is not a model's; 100 MB is what the reference implementation allows.
constexpr std::uint64_t kMaxHeader = 100ULL << 20;
constexpr std::size_t kMostDimensions = 64;  // of any operation in ATen

struct DtypeName {
  const char* name;
  at::ScalarType type;
};
constexpr DtypeName kDtypes[] = {{"F64", at::kDouble},    {"F32", at::kFloat}, {"F16", at::kHalf},
                                 {"BF16", at::kBFloat16}, {"I64", at::kLong},  {"I32", at::kInt},
                                 {"I16", at::kShort},     {"I8", at::kChar},   {"U8", at::kByte},
                                 {"BOOL", at::kBool}};

const DtypeName* dtype_named(const std::string& name) {
  for (const DtypeName& entry : kDtypes)
    if (name == entry.name) return &entry;
  return nullptr;
}

const char* name_of(at::ScalarType type, const std::string& tensor) {
  for (const DtypeName& entry : kDtypes)
    if (type == entry.type) return entry.name;
  throw CheckpointError(tensor, std::string("dtype ") + at::toString(type) + " has no safetensors name");
}

std::uint64_t unsigned_at(const json& value, const std::string& where) {
  if (!value.is_number_unsigned()) throw CheckpointError(where, "expected a non-negative integer");
  return value.get<std::uint64_t>();
}

struct Entry {
  const DtypeName* dtype;
  std::vector<std::int64_t> shape;
  std::uint64_t begin = 0, end = 0;
};

Entry parse_entry(const std::string& where, const json& value, std::uint64_t data_size) {
  if (!value.is_object() || !value.contains("dtype") || !value.contains("shape") ||
      !value.contains("data_offsets"))
    throw CheckpointError(where, "needs dtype, shape and data_offsets");
  const json &dtype = value["dtype"], &shape = value["shape"], &offsets = value["data_offsets"];
  if (!dtype.is_string() || !shape.is_array() || !offsets.is_array() || offsets.size() != 2)
    throw CheckpointError(where, "dtype, shape or data_offsets has the wrong type");
  Entry entry{dtype_named(dtype.get<std::string>()),
              {},
              unsigned_at(offsets[0], where),
              unsigned_at(offsets[1], where)};
  if (entry.dtype == nullptr)
    throw CheckpointError(where, "unknown dtype '" + dtype.get<std::string>() + "'",
                          "known: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL");
  if (shape.size() > kMostDimensions)
    throw CheckpointError(where, "has " + std::to_string(shape.size()) + " dimensions");
  std::uint64_t bytes = c10::elementSize(entry.dtype->type);
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

/// An object whose keys at a depth are names of tensors. @param what stands in front of what is wrong
json parse_names(const std::string& where, const std::string& what, std::string_view text, int at_depth) {
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

/// The file of the folder that holds each tensor.
std::map<std::string, std::string> read_index(const std::filesystem::path& file) {
  constexpr std::uint64_t kLargest = 64ULL << 20;
  const std::string where = file.string();
  const json index = parse_names(where, "", read_file(file, kLargest), 2);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) throw CheckpointError(where, "has no weight_map");
  std::map<std::string, std::string> out;
  for (const auto& [name, value] : map->items()) {
    const std::string shard = value.is_string() ? value.get<std::string>() : "";
    if (!shard.ends_with(".safetensors") || shard.find('/') != std::string::npos)
      throw CheckpointError(where, "'" + name + "' lies in no safetensors file of this folder");
    out[name] = shard;
  }
  return out;
}

/// All that stands before the tensors' bytes.
std::string beginning(const StateDict& tensors, const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const std::uint64_t bytes = tensor.nbytes();
    header[name] = {{"dtype", name_of(tensor.scalar_type(), name)},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, offset + bytes}}};
    offset += bytes;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');  // tensors start on an 8-byte boundary
  std::string out(8, '\0');
  const std::uint64_t length = text.size();
  std::memcpy(out.data(), &length, 8);
  return out + text;
}

}  // namespace

SafetensorsFile read_safetensors(const std::filesystem::path& file) {
  const std::string where = file.string();
  auto mapping = std::make_shared<Mapping>(file);
  if (mapping->size() < 8)
    throw CheckpointError(
        where, "is too short for a safetensors file (" + std::to_string(mapping->size()) + " bytes)");
  std::uint64_t length = 0;
  std::memcpy(&length, mapping->data(), 8);
  if (length > kMaxHeader || length > mapping->size() - 8)
    throw CheckpointError(where,
                          "its header claims " + std::to_string(length) + " bytes, more than the file holds",
                          "it is no safetensors file or was cut short");
  const json header = parse_names(where, "its header ", {mapping->data() + 8, length}, 1);
  char* data = mapping->data() + 8 + length;
  const std::uint64_t data_size = mapping->size() - 8 - length;

  SafetensorsFile out;
  std::map<std::uint64_t, std::pair<std::uint64_t, std::string>> taken;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) throw CheckpointError(where, "__metadata__ is not an object");
      for (const auto& [key, text] : value.items())
        if (text.is_string()) out.metadata[key] = text.get<std::string>();
      continue;
    }
    const Entry entry = parse_entry(where + ": " + name, value, data_size);
    if (entry.begin != entry.end) taken[entry.begin] = {entry.end, name};
    at::Tensor tensor;
    const auto options = at::TensorOptions().dtype(entry.dtype->type);
    if (entry.begin == entry.end) {
      tensor = at::empty(entry.shape, options);
    } else if (reinterpret_cast<std::uintptr_t>(data + entry.begin) % c10::elementSize(entry.dtype->type) !=
               0) {
      tensor = at::empty(entry.shape, options);  // an unaligned file: copy instead of mapping
      std::memcpy(tensor.data_ptr(), data + entry.begin, entry.end - entry.begin);
    } else {
      tensor = at::from_blob(
          data + entry.begin, entry.shape, [mapping](void*) {}, options);
    }
    out.tensors.emplace(name, std::move(tensor));
  }
  std::uint64_t end = 0;
  std::string previous;
  std::size_t ranges = 0;
  for (const auto& [begin, range] : taken) {
    if (begin < end) throw CheckpointError(where + ": " + range.second, "overlaps tensor '" + previous + "'");
    end = range.first;
    previous = range.second;
    ++ranges;
  }
  std::size_t nonempty = 0;
  for (const auto& [name, tensor] : out.tensors) nonempty += tensor.numel() > 0 ? 1 : 0;
  if (ranges != nonempty) throw CheckpointError(where, "two tensors share the same bytes");
  return out;
}

std::string to_safetensors(const StateDict& tensors, const std::map<std::string, std::string>& metadata) {
  std::string out = beginning(tensors, metadata);
  std::size_t bytes = out.size();
  for (const auto& [name, tensor] : tensors) bytes += tensor.nbytes();
  out.reserve(bytes);
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor flat = tensor.detach().to(at::kCPU).contiguous();
    out.append(static_cast<const char*>(flat.data_ptr()), flat.nbytes());
  }
  return out;
}

void write_safetensors(const std::filesystem::path& file, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata) {
  AtomicFile out(file);
  out.write(beginning(tensors, metadata));
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor flat = tensor.detach().to(at::kCPU).contiguous();
    out.write(std::string_view(static_cast<const char*>(flat.data_ptr()), flat.nbytes()));
  }
  out.commit();
}

const char* dtype_name(at::ScalarType dtype) {
  return dtype == at::kHalf ? "float16" : dtype == at::kBFloat16 ? "bfloat16" : "float32";
}

void write_model_file(const std::filesystem::path& folder, const StateDict& tensors, at::ScalarType dtype,
                      const std::map<std::string, std::string>& metadata, const std::string& config_json) {
  StateDict out;
  for (const auto& [name, tensor] : tensors) out[name] = tensor.detach().to(at::kCPU, dtype).contiguous();
  std::map<std::string, std::string> note = metadata;
  note["format"] = "pt";  // transformers asks for it
  std::filesystem::create_directories(folder);
  write_safetensors(folder / "model.safetensors", out, note);
  write_atomic(folder / "config.json", config_json);
}

void read_ahead(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().extension() != ".safetensors") continue;
    const int file = ::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) continue;  // whoever reads it says what is wrong
    (void)::posix_fadvise(file, 0, 0, POSIX_FADV_WILLNEED);
    ::close(file);
  }
}

StateDict read_checkpoint_tensors(const std::filesystem::path& folder) {
  const auto single = folder / "model.safetensors", index = folder / "model.safetensors.index.json";
  std::error_code ignored;  // what cannot be looked at is not there
  if (std::filesystem::exists(single, ignored)) return read_safetensors(single).tensors;
  if (!std::filesystem::exists(index, ignored)) {
    for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json"})
      if (std::filesystem::exists(folder / pickle, ignored))
        throw CheckpointError((folder / pickle).string(),
                              "is a pickle or leads to some, which could run code",
                              "save the model as safetensors");
    throw CheckpointError(folder.string(), "holds neither model.safetensors nor model.safetensors.index.json",
                          "give the folder of a Hugging Face model");
  }
  std::map<std::string, StateDict> shards;
  StateDict out;
  for (const auto& [name, shard] : read_index(index)) {
    auto found = shards.find(shard);
    if (found == shards.end()) found = shards.emplace(shard, read_safetensors(folder / shard).tensors).first;
    const auto tensor = found->second.find(name);
    if (tensor == found->second.end())
      throw CheckpointError((folder / shard).string(), "lacks tensor '" + name + "' that the index promises");
    out.emplace(name, tensor->second);
  }
  return out;
}

}  // namespace mcit
