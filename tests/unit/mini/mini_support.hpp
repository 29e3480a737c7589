#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

#include "mini/pack.hpp"

namespace mcit::mini::testing {

inline std::filesystem::path mini_folder() {
  return std::filesystem::path(MCIT_SOURCE_DIR) / "benchmarks/mcit/mini";
}

/// Read once for all tests.
inline const Pack& pack() {
  static const Pack pack(mini_folder() / "pack");
  return pack;
}

/// The pack with everything of the test side spoiled: Noto drawings, test faces, test digits.
inline Pack without_test_side() {
  Pack spoiled = pack();
  for (auto* things : {&spoiled.concepts, &spoiled.flags}) {
    for (Thing& thing : *things) thing.drawing[1] = Texture(Raster(64, 64, 4));
  }
  for (Face& face : spoiled.faces) {
    for (Glyph& glyph : face.glyphs) {
      if (face.test) glyph.ink = Texture(Raster(4, 4, 1));
    }
  }
  for (Digit& digit : spoiled.digits) {
    if (digit.test) digit.ink.fill(0);
  }
  return spoiled;
}

/// A folder that is gone at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("mcit_mini_test_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace mcit::mini::testing
