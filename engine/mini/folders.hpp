#pragma once
/// Folders of made data, private to this library: each becomes visible as a whole, when all of it is there.

#include <cstddef>
#include <filesystem>
#include <string>

#include "core/files.hpp"

namespace mcit::mini {

/// `value` with leading zeros.
std::string number(int value, std::size_t digits = 6);

/// Plain writes: nobody sees the file before its folder is renamed. Throws DataError.
void write_bytes(const std::filesystem::path& file, const std::string& bytes);

/// mcit::write_folder() for a folder of a cache, which is complete when its meta.json is there: another
/// process may be faster, and what it writes is the same.
void write_cached_folder(const std::filesystem::path& target, const FillFolder& fill);

/// Whether write_cached_folder() has made it before.
bool is_cached(const std::filesystem::path& target);

}  // namespace mcit::mini
