#include "model/safetensors.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>

#include "core/files.hpp"
#include "core/progress.hpp"
#include "core/safetensors.hpp"
#include "mcit/errors.hpp"
#include "model/mapping.hpp"

namespace mcit {
namespace {

struct DtypeName {
  const char* name;
  at::ScalarType type;
};
constexpr DtypeName kDtypes[] = {{"F64", at::kDouble},    {"F32", at::kFloat}, {"F16", at::kHalf},
                                 {"BF16", at::kBFloat16}, {"I64", at::kLong},  {"I32", at::kInt},
                                 {"I16", at::kShort},     {"I8", at::kChar},   {"U8", at::kByte},
                                 {"BOOL", at::kBool}};

at::ScalarType type_named(const std::string& name) {
  for (const DtypeName& entry : kDtypes)
    if (name == entry.name) return entry.type;
  throw CheckpointError(name, "is no dtype that tensors have");  // the header's reader knows the same names
}

const char* name_of(at::ScalarType type, const std::string& tensor) {
  for (const DtypeName& entry : kDtypes)
    if (type == entry.type) return entry.name;
  throw CheckpointError(tensor, std::string("dtype ") + at::toString(type) + " has no safetensors name");
}

/// The file of the folder that holds each tensor.
std::map<std::string, std::string> read_index(const std::filesystem::path& file) {
  constexpr std::uint64_t kLargest = 64ULL << 20;
  const std::string where = file.string();
  const nlohmann::json index = parse_tensor_names(where, "", read_file(file, kLargest), 2);
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

/// All that stands before the tensors' bytes. @param dtype of all of them; none: each has its own
std::string beginning(const StateDict& tensors, const std::map<std::string, std::string>& metadata,
                      std::optional<at::ScalarType> dtype = {}) {
  std::map<std::string, SafetensorsEntry> entries;
  for (const auto& [name, tensor] : tensors)
    entries[name] = {name_of(dtype.value_or(tensor.scalar_type()), name), tensor.sizes().vec(), 0, 0};
  return safetensors_beginning(entries, metadata);
}

/// A tensor's values as the file has them.
at::Tensor laid_out(const at::Tensor& tensor, std::optional<at::ScalarType> dtype = {}) {
  return tensor.detach().to(at::kCPU, dtype.value_or(tensor.scalar_type())).contiguous();
}

std::string_view bytes_of(const at::Tensor& flat) {
  return {static_cast<const char*>(flat.const_data_ptr()), flat.nbytes()};
}

}  // namespace

SafetensorsFile read_safetensors(const std::filesystem::path& file) {
  const std::string where = file.string();
  auto mapping = std::make_shared<Mapping>(file);
  const SafetensorsHeader header =
      parse_safetensors(std::as_bytes(std::span(mapping->data(), mapping->size())), where);
  char* data = mapping->data() + header.data;
  SafetensorsFile out{header.metadata, {}};
  for (const auto& [name, entry] : header.tensors) {
    at::Tensor tensor;
    const auto options = at::TensorOptions().dtype(type_named(entry.dtype));
    if (entry.begin == entry.end) {
      tensor = at::empty(entry.shape, options);
    } else if (reinterpret_cast<std::uintptr_t>(data + entry.begin) % safetensors_element(entry.dtype) != 0) {
      tensor = at::empty(entry.shape, options);  // an unaligned file: copy instead of mapping
      std::memcpy(tensor.data_ptr(), data + entry.begin, entry.end - entry.begin);
    } else {
      tensor = at::from_blob(
          data + entry.begin, entry.shape, [mapping](void*) {}, options);
    }
    out.tensors.emplace(name, std::move(tensor));
  }
  return out;
}

std::string to_safetensors(const StateDict& tensors, const std::map<std::string, std::string>& metadata) {
  std::string out = beginning(tensors, metadata);
  std::size_t bytes = out.size();
  for (const auto& [name, tensor] : tensors) bytes += tensor.nbytes();
  out.reserve(bytes);
  for (const auto& [name, tensor] : tensors) out += bytes_of(laid_out(tensor));
  return out;
}

void write_safetensors(const std::filesystem::path& file, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata) {
  AtomicFile out(file);
  out.write(beginning(tensors, metadata));
  for (const auto& [name, tensor] : tensors) out.write(bytes_of(laid_out(tensor)));
  out.commit();
}

const char* dtype_name(at::ScalarType dtype) {
  return dtype == at::kHalf ? "float16" : dtype == at::kBFloat16 ? "bfloat16" : "float32";
}

void write_model_file(const std::filesystem::path& folder, const StateDict& tensors, at::ScalarType dtype,
                      const std::map<std::string, std::string>& metadata, const std::string& config_json) {
  std::map<std::string, std::string> note = metadata;
  note["format"] = "pt";  // transformers asks for it
  std::filesystem::create_directories(folder);
  AtomicFile out(folder / "model.safetensors");
  out.write(beginning(tensors, note, dtype));
  Progress progress("writing model.safetensors", std::ssize(tensors), "tensors");
  for (const auto& [name, tensor] : tensors) {  // one at a time: never a second copy of the model
    out.write(bytes_of(laid_out(tensor, dtype)));
    progress.advance();
  }
  out.commit();
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
