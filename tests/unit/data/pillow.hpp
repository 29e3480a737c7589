#pragma once
/// What Pillow made of the pictures in tests/fixtures/images (make_images.py there wrote both).

#include <filesystem>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

#include "data/image.hpp"
#include "unit/core/temporary.hpp"

namespace mcit::test {

inline const std::filesystem::path kPictures =
    std::filesystem::path(MCIT_SOURCE_DIR) / "tests" / "fixtures" / "images";

struct Expected {
  std::string operation, file;
  Image image;
};

inline const std::vector<Expected>& expected() {
  static const std::vector<Expected> all = [] {
    std::vector<Expected> out;
    const std::string bytes = slurp(kPictures / "expected.bin");
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t end = bytes.find('\n', at);
      std::istringstream line(bytes.substr(at, end - at));
      Expected one;
      line >> one.operation >> one.file >> one.image.width >> one.image.height;
      const auto count =
          static_cast<std::size_t>(one.image.width) * static_cast<std::size_t>(one.image.height) * 3;
      if (!line || end + 1 + count > bytes.size()) throw std::runtime_error("expected.bin is damaged");
      one.image.rgb.assign(bytes.begin() + static_cast<std::ptrdiff_t>(end + 1),
                           bytes.begin() + static_cast<std::ptrdiff_t>(end + 1 + count));
      at = end + 1 + count;
      out.push_back(std::move(one));
    }
    return out;
  }();
  return all;
}

inline const Expected& expected(const std::string& operation, const std::string& file) {
  for (const Expected& one : expected())
    if (one.operation == operation && one.file == file) return one;
  throw std::runtime_error("expected.bin lacks " + operation + " " + file);
}

/// Empty when they are equal, else where the first and the largest difference are.
inline std::string difference(const Image& got, const Image& want) {
  std::ostringstream out;
  if (got.width != want.width || got.height != want.height) {
    out << got.width << " x " << got.height << " instead of " << want.width << " x " << want.height;
    return out.str();
  }
  if (got.rgb.size() != want.rgb.size()) return "another number of bytes";
  int count = 0, largest = 0;
  for (std::size_t i = 0; i < got.rgb.size(); ++i) {
    const int off = std::abs(int{got.rgb[i]} - int{want.rgb[i]});
    largest = std::max(largest, off);
    if (off != 0 && count++ == 0) {
      const std::size_t pixel = i / 3, width = static_cast<std::size_t>(got.width);
      out << "first at x " << pixel % width << ", y " << pixel / width << ", channel " << i % 3 << ": "
          << int{got.rgb[i]} << " instead of " << int{want.rgb[i]};
    }
  }
  if (count > 0) out << "; " << count << " of " << got.rgb.size() << " bytes, by up to " << largest;
  return out.str();
}

}  // namespace mcit::test
