#pragma once
/// What a client keeps of its heads between places of a run: one file a place, the two newest.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "mcit/types.hpp"

namespace mcit::split {

/// <folder>/<client>-<place>.safetensors
void write_kept(const std::filesystem::path& folder, const std::string& client, std::int64_t place,
                const StateDict& tensors);
/// The newest of places up to this one; later ones are removed. Nothing when there is none.
std::optional<StateDict> read_kept(const std::filesystem::path& folder, const std::string& client,
                                   std::int64_t place);

}  // namespace mcit::split
