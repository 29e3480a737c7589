#include "mini/raster.hpp"

#include <png.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "mcit/errors.hpp"

namespace mcit::mini {
namespace {

constexpr png_uint_32 kLargest = 4096;

png_uint_32 png_format(int channels) {
  return channels == 1 ? PNG_FORMAT_GRAY : channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_RGBA;
}

Raster halved(const Raster& from) {
  Raster to((from.width + 1) / 2, (from.height + 1) / 2, from.channels);
  for (int y = 0; y < to.height; ++y) {
    for (int x = 0; x < to.width; ++x) {
      for (int c = 0; c < to.channels; ++c) {
        int sum = 2;
        for (const auto& [dx, dy] : {std::pair{0, 0}, {1, 0}, {0, 1}, {1, 1}}) {
          const int sx = 2 * x + dx;
          const int sy = 2 * y + dy;
          if (sx < from.width && sy < from.height)
            sum += from.at(sx, sy)[c];  // beyond the edge nothing is painted
        }
        to.at(x, y)[c] = static_cast<std::uint8_t>(sum / 4);
      }
    }
  }
  return to;
}

}  // namespace

Raster read_png(const std::filesystem::path& file, int channels) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  if (!png_image_begin_read_from_file(&image, file.c_str())) {
    throw DataError(file.string(), image.message, "is the data pack complete?");
  }
  if (image.width > kLargest || image.height > kLargest) {
    png_image_free(&image);
    throw DataError(file.string(), "the picture is larger than 4096 pixels a side");
  }
  image.format = png_format(channels);
  Raster result(static_cast<int>(image.width), static_cast<int>(image.height), channels);
  if (!png_image_finish_read(&image, nullptr, result.data.data(), 0, nullptr)) {
    throw DataError(file.string(), image.message);
  }
  return result;
}

std::string encode_png(const Raster& picture) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.width);
  image.height = static_cast<png_uint_32>(picture.height);
  image.format = png_format(picture.channels);
  image.flags = PNG_IMAGE_FLAG_FAST;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string bytes(size, '\0');
  if (!png_image_write_to_memory(&image, bytes.data(), &size, 0, picture.data.data(), 0, nullptr)) {
    throw DataError("PNG encoder", image.message);
  }
  bytes.resize(size);
  return bytes;
}

Raster crop(const Raster& picture, int x, int y, int width, int height) {
  if (x < 0 || y < 0 || width < 1 || height < 1 || x > picture.width - width || y > picture.height - height) {
    throw DataError("data pack", "a cell lies outside its sheet");
  }
  Raster result(width, height, picture.channels);
  const std::size_t row = static_cast<std::size_t>(width) * static_cast<std::size_t>(picture.channels);
  for (int i = 0; i < height; ++i) std::memcpy(result.at(0, i), picture.at(x, y + i), row);
  return result;
}

Texture::Texture(Raster picture) {
  if (picture.channels == 4) {
    for (std::size_t i = 0; i < picture.data.size(); i += 4) {
      const int alpha = picture.data[i + 3];
      for (std::size_t c = 0; c < 3; ++c) {
        picture.data[i + c] = static_cast<std::uint8_t>((picture.data[i + c] * alpha + 127) / 255);
      }
    }
  }
  levels[0] = std::move(picture);
  levels[1] = halved(levels[0]);
  levels[2] = halved(levels[1]);
}

}  // namespace mcit::mini
