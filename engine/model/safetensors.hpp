#pragma once
/// The safetensors container: an 8-byte little-endian header length, a JSON header, raw little-endian
/// tensors. Files come from outside: every length, offset, dtype and overlap is checked before a byte is
/// used.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "mcit/types.hpp"

namespace mcit {

/// Metadata and tensors of one file.
struct SafetensorsFile {
  std::map<std::string, std::string> metadata;
  StateDict tensors;
};

/// Maps the file and returns tensors that point into it; the mapping lives as long as any of them.
/// The tensors must not be written to.
/// @throws CheckpointError naming the file and the tensor for any malformed header.
SafetensorsFile read_safetensors(const std::filesystem::path& file);

/// Writes atomically, tensors in name order, with `__metadata__` when there is any. Same input, same bytes.
void write_safetensors(const std::filesystem::path& file, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// The same bytes in memory, for snapshots and payloads.
std::string to_safetensors(const StateDict& tensors, const std::map<std::string, std::string>& metadata = {});

/// "float16", "bfloat16" or "float32", as config.json spells it.
const char* dtype_name(at::ScalarType dtype);

/// Writes a model folder's config.json and model.safetensors, the tensors converted to `dtype`.
void write_model_file(const std::filesystem::path& folder, const StateDict& tensors, at::ScalarType dtype,
                      const std::map<std::string, std::string>& metadata, const std::string& config_json);

/// Asks the system to fetch a folder's weights from disk, all files at once, while the first ones are
/// converted.
void read_ahead(const std::filesystem::path& folder);

/// All tensors of a Hugging Face folder: `model.safetensors`, or the shards of
/// `model.safetensors.index.json`.
StateDict read_checkpoint_tensors(const std::filesystem::path& folder);

}  // namespace mcit
