#pragma once
/// 8-bit pictures with one, three or four channels, and PNG in and out.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace mcit::mini {

struct Raster {
  int width = 0;
  int height = 0;
  int channels = 0;                ///< 1 grey or coverage, 3 RGB, 4 RGBA
  std::vector<std::uint8_t> data;  ///< row by row, channels interleaved

  Raster() = default;
  Raster(int w, int h, int c)
      : width(w),
        height(h),
        channels(c),
        data(static_cast<std::size_t>(w) * static_cast<std::size_t>(h) * static_cast<std::size_t>(c)) {}

  std::uint8_t* at(int x, int y) { return data.data() + offset(x, y); }
  const std::uint8_t* at(int x, int y) const { return data.data() + offset(x, y); }

 private:
  std::size_t offset(int x, int y) const {
    return (static_cast<std::size_t>(y) * static_cast<std::size_t>(width) + static_cast<std::size_t>(x)) *
           static_cast<std::size_t>(channels);
  }
};

/// Decodes a PNG file to `channels` channels, at most 4096 pixels a side. Throws DataError.
Raster read_png(const std::filesystem::path& file, int channels);

/// A PNG file's bytes; the same picture always gives the same bytes. Throws DataError.
std::string encode_png(const Raster& picture);

/// The rectangle of `picture` at (x, y). Throws DataError when it is not inside.
Raster crop(const Raster& picture, int x, int y, int width, int height);

/// A picture and its halvings, so that drawing it small needs no wide filter.
struct Texture {
  std::array<Raster, 3> levels;  ///< full size, half, quarter

  Texture() = default;
  /// RGBA is premultiplied by its alpha.
  explicit Texture(Raster picture);
};

}  // namespace mcit::mini
