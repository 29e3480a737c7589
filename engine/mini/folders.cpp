#include "mini/folders.hpp"

#include <unistd.h>

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

void write_folder(const fs::path& target, const FillFolder& fill) {
  const fs::path temporary = target.string() + ".tmp" + std::to_string(::getpid());
  try {
    fs::remove_all(temporary);
    fs::create_directories(temporary);
    fill(temporary);
    fs::rename(temporary, target);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw DataError(target.string(), error.code().message());
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(temporary, ignored);
    throw;
  }
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
