#include "mini/folders.hpp"

#include <algorithm>
#include <cstdio>

#include "mcit/errors.hpp"

namespace mcit::mini {

namespace fs = std::filesystem;

std::string number(int value, std::size_t digits) {
  const std::string text = std::to_string(value);
  return std::string(digits - std::min(digits, text.size()), '0') + text;
}

void write_bytes(const fs::path& file, const std::string& bytes) {
  std::FILE* out = std::fopen(file.c_str(), "wb");
  const bool written = out != nullptr && std::fwrite(bytes.data(), 1, bytes.size(), out) == bytes.size();
  const bool closed = out != nullptr && std::fclose(out) == 0;
  if (!written || !closed) throw DataError(file.string(), "cannot be written", "is the disk full?");
}

bool is_cached(const fs::path& target) { return fs::exists(target / "meta.json"); }

void write_cached_folder(const fs::path& target, const FillFolder& fill) {
  try {
    write_folder(target, fill);
  } catch (const DataError&) {
    if (!is_cached(target)) throw;
  }
}

}  // namespace mcit::mini
