#pragma once
/// Pictures as Pillow sees them: decoding, converting to RGB, and its 8-bit resize, bit for bit.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/tiles.hpp"

namespace mcit {

/// RGB bytes, row by row.
struct Image {
  int width = 0, height = 0;
  std::vector<std::uint8_t> rgb;  ///< width * height * 3

  std::uint8_t* row(int y) {
    return rgb.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width) * 3;
  }
  const std::uint8_t* row(int y) const {
    return rgb.data() + static_cast<std::size_t>(y) * static_cast<std::size_t>(width) * 3;
  }
};

/// Pictures above this many pixels are refused, as decompression bombs.
inline constexpr std::int64_t kMaxPixels = 178'956'970;

/// JPEG or PNG, told apart by their first bytes, converted as Pillow's convert("RGB") does: grey and palette
/// are expanded, alpha is dropped, 16 bits lose their low byte, EXIF orientation is not applied.
/// @throws DataError "where: what" for anything else or damaged.
Image decode_image(std::string_view bytes, const std::string& where);
Image read_image(const std::filesystem::path& file);
/// From the header alone; the rest of the file may still be damaged. @throws DataError
PictureSize read_picture_size(const std::filesystem::path& file);
void write_png(const std::filesystem::path& file, const Image& image);

/// Numbers are Pillow's `resample`.
enum class Resample { nearest = 0, lanczos = 1, bilinear = 2, bicubic = 3 };

/// Pillow 10.4 .. 12: integer weights of 22 bits, horizontal pass first and rounded to bytes, an axis that
/// keeps its size is left alone.
Image resize(const Image& image, int width, int height, Resample filter);
/// The picture centred on a square of its longer side.
Image pad_to_square(const Image& image, const std::uint8_t (&colour)[3]);
/// The picture in the middle of a black canvas that is no smaller; an odd rest lies right and below.
Image pad_to(const Image& image, int width, int height);
/// A part that lies inside the picture.
Image crop(const Image& image, int left, int top, int width, int height);
/// Around the middle, black where the picture is smaller.
Image centre_crop(const Image& image, int width, int height);

}  // namespace mcit
