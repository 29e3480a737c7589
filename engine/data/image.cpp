#include "data/image.hpp"

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <numbers>

#include "core/files.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

void check_size(std::int64_t width, std::int64_t height, const std::string& where) {
  if (width <= 0 || height <= 0) throw DataError(where, "the picture has no pixels");
  if (width > kMaxPixels / height)
    throw DataError(where, "the picture claims " + std::to_string(width) + " x " + std::to_string(height) +
                               " pixels, more than is believed");
}

/// Before memory is taken: a block of 64 pixels takes a bit of a JPEG at the very least.
bool jpeg_may_hold(std::size_t bytes, std::int64_t width, std::int64_t height) {
  constexpr std::int64_t kAlways = 1 << 16, kMost = 1024;  // pixels of any file, pixels a byte
  return width > 0 && height > 0 && width <= kMaxPixels / height &&
         width * height <= kAlways + kMost * static_cast<std::int64_t>(bytes);
}

struct JpegFailure {
  jpeg_error_mgr base;
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void jpeg_failed(j_common_ptr info) {
  auto* failure = reinterpret_cast<JpegFailure*>(info->err);
  (*info->err->format_message)(info, failure->message);
  std::longjmp(failure->escape, 1);
}

/// Each scan of a progressive file goes over the whole picture, however few bytes it has.
void limit_scans(j_common_ptr info) {
  constexpr int kMost = 100;
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number <= kMost) return;
  auto* failure = reinterpret_cast<JpegFailure*>(info->err);
  std::strcpy(failure->message, "more scans than a picture needs");
  std::longjmp(failure->escape, 1);
}

/// No object with a destructor lives in this frame: longjmp leaves it. @param image null to read the size
/// alone
bool read_jpeg(std::string_view bytes, jpeg_decompress_struct& info, JpegFailure& failure,
               jpeg_progress_mgr& progress, Image* image) {
  if (setjmp(failure.escape) != 0) return false;
  jpeg_create_decompress(&info);
  info.progress = &progress;
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info, TRUE);
  if (image == nullptr || !jpeg_may_hold(bytes.size(), info.image_width, info.image_height))
    return true;  // the caller says what is wrong
  Image& out = *image;
  const bool four = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  info.out_color_space = four ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  out.width = static_cast<int>(info.output_width);
  out.height = static_cast<int>(info.output_height);
  const std::size_t channels = four ? 4 : 3;
  out.rgb.resize(static_cast<std::size_t>(out.width) * static_cast<std::size_t>(out.height) * channels);
  while (info.output_scanline < info.output_height) {
    JSAMPROW row = out.rgb.data() + static_cast<std::size_t>(info.output_scanline) *
                                        static_cast<std::size_t>(out.width) * channels;
    jpeg_read_scanlines(&info, &row, 1);
  }
  jpeg_finish_decompress(&info);
  if (four) {
    // Adobe stores inverted inks. Pillow takes every file for one of Adobe's, and then multiplies each ink
    // with black.
    std::uint8_t *to = out.rgb.data(), *from = out.rgb.data();
    for (std::size_t i = 0; i < out.rgb.size() / 4; ++i, from += 4, to += 3) {
      const int k = 255 - from[3];
      for (int c = 0; c < 3; ++c) {
        const int product = (255 - from[c]) * (255 - k) + 128;
        to[c] = static_cast<std::uint8_t>(std::clamp(255 - k - ((product + (product >> 8)) >> 8), 0, 255));
      }
    }
    out.rgb.resize(out.rgb.size() / 4 * 3);
  }
  return true;
}

/// @param out null to read the header alone @return the size that it gives
PictureSize open_jpeg(std::string_view bytes, const std::string& where, Image* out) {
  jpeg_decompress_struct info{};
  JpegFailure failure{};
  info.err = jpeg_std_error(&failure.base);
  failure.base.error_exit = jpeg_failed;
  // libjpeg goes on with grey where a file is cut short; a picture that is not whole is refused instead.
  failure.base.emit_message = [](j_common_ptr common, int level) {
    if (level < 0 && common->err->msg_code == JWRN_JPEG_EOF) jpeg_failed(common);
  };
  jpeg_progress_mgr progress{};
  progress.progress_monitor = limit_scans;
  const bool whole = read_jpeg(bytes, info, failure, progress, out);
  const std::int64_t width = info.image_width, height = info.image_height;
  jpeg_destroy_decompress(&info);
  if (!whole) throw DataError(where, std::string("damaged JPEG: ") + failure.message);
  check_size(width, height, where);
  if (!jpeg_may_hold(bytes.size(), width, height))
    throw DataError(where, "the picture claims " + std::to_string(width) + " x " + std::to_string(height) +
                               " pixels, more than its " + std::to_string(bytes.size()) + " bytes can hold");
  return {static_cast<int>(height), static_cast<int>(width)};
}

Image decode_jpeg(std::string_view bytes, const std::string& where) {
  Image out;
  open_jpeg(bytes, where, &out);
  return out;
}

struct PngInput {
  std::string_view bytes;
  std::size_t at = 0;
  std::string message;
};

void png_read(png_structp png, png_bytep to, png_size_t count) {
  auto* input = static_cast<PngInput*>(png_get_io_ptr(png));
  if (count > input->bytes.size() - input->at) png_error(png, "the file is cut short");
  std::memcpy(to, input->bytes.data() + input->at, count);
  input->at += count;
}

void png_failed(png_structp png, png_const_charp message) {
  static_cast<PngInput*>(png_get_error_ptr(png))->message = message;
  png_longjmp(png, 1);
}

bool read_png_rows(png_structp png, png_infop info, Image& out, std::vector<png_bytep>& rows) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_read_info(png, info);
  const std::int64_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
  if (width <= 0 || height <= 0 || width > kMaxPixels / height)
    png_error(png, "more pixels than are believed");
  constexpr std::size_t kMostPacked = 1032;  // bytes that deflate makes one of
  const std::size_t packed = png_get_rowbytes(png, info) * static_cast<std::size_t>(height);
  if (packed / kMostPacked > static_cast<PngInput*>(png_get_io_ptr(png))->bytes.size())
    png_error(png, "more pixels than its bytes can hold");
  const int type = png_get_color_type(png, info), depth = png_get_bit_depth(png, info);
  if (type == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(png);
  if (type == PNG_COLOR_TYPE_GRAY && depth < 8) png_set_expand_gray_1_2_4_to_8(png);
  // Pillow reads 16-bit RGB by its high byte; 16-bit grey is a mode of its own whose values convert("RGB")
  // clips to 255.
  const bool wide_grey = depth == 16 && type == PNG_COLOR_TYPE_GRAY;
  if (depth == 16 && !wide_grey) png_set_strip_16(png);
  if ((type & PNG_COLOR_MASK_ALPHA) != 0 || png_get_valid(png, info, PNG_INFO_tRNS) != 0)
    png_set_strip_alpha(png);
  if (!wide_grey && (type == PNG_COLOR_TYPE_GRAY || type == PNG_COLOR_TYPE_GRAY_ALPHA))
    png_set_gray_to_rgb(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  const std::size_t stride = png_get_rowbytes(png, info), pixels = static_cast<std::size_t>(width);
  if (stride != pixels * (wide_grey ? 2 : 3)) png_error(png, "an unknown pixel layout");
  out.width = static_cast<int>(width);
  out.height = static_cast<int>(height);
  out.rgb.resize(stride * static_cast<std::size_t>(height));
  rows.resize(static_cast<std::size_t>(height));
  for (std::size_t y = 0; y < rows.size(); ++y) rows[y] = out.rgb.data() + y * stride;
  png_read_image(png, rows.data());
  png_read_end(png, nullptr);
  if (wide_grey) {
    std::vector<std::uint8_t> rgb(pixels * static_cast<std::size_t>(height) * 3);
    for (std::size_t i = 0; i < rgb.size() / 3; ++i) {
      const int value = std::min(255, out.rgb[2 * i] * 256 + out.rgb[2 * i + 1]);
      for (std::size_t c = 0; c < 3; ++c) rgb[3 * i + c] = static_cast<std::uint8_t>(value);
    }
    out.rgb = std::move(rgb);
  }
  return true;
}

Image decode_png(std::string_view bytes, const std::string& where) {
  PngInput input{bytes, 0, {}};
  png_structp png =
      png_create_read_struct(PNG_LIBPNG_VER_STRING, &input, png_failed, [](png_structp, png_const_charp) {});
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  if (info == nullptr) throw DataError(where, "libpng has no memory");
  png_set_read_fn(png, &input, png_read);
  png_set_user_limits(png, 1 << 24, 1 << 24);
  Image out;
  std::vector<png_bytep> rows;
  const bool whole = read_png_rows(png, info, out, rows);
  png_destroy_read_struct(&png, &info, nullptr);
  if (!whole) throw DataError(where, "damaged PNG: " + input.message);
  return out;
}

// ---- Pillow's resize
// -------------------------------------------------------------------------------------------

constexpr int kBits = 22;  // Pillow's PRECISION_BITS: 32 - 8 - 2

double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * std::numbers::pi) / (x * std::numbers::pi); }

double weight(Resample filter, double x) {
  switch (filter) {
    case Resample::bilinear:
      return std::max(0.0, 1.0 - std::abs(x));
    case Resample::bicubic:
      x = std::abs(x);
      if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
      return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5 : 0.0;
    case Resample::lanczos:
      return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0;
    case Resample::nearest:
      break;
  }
  return 0.0;
}

/// Integer weights of one output position.
struct Taps {
  int first = 0, count = 0;
  std::size_t at = 0;  ///< index of the first weight
};

void plan_axis(int in, int out, Resample filter, std::vector<Taps>& taps,
               std::vector<std::int32_t>& weights) {
  const double support = filter == Resample::bilinear ? 1.0 : filter == Resample::bicubic ? 2.0 : 3.0;
  const double scale = static_cast<double>(in) / out, widen = std::max(scale, 1.0);
  std::vector<double> values;
  for (int i = 0; i < out; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - support * widen + 0.5), 0),
              last = std::min(static_cast<int>(centre + support * widen + 0.5), in);
    values.clear();
    double total = 0.0;
    for (int x = first; x < last; ++x) {
      values.push_back(weight(filter, (x - centre + 0.5) / widen));
      total += values.back();
    }
    taps.push_back({first, last - first, weights.size()});
    for (const double v : values) {
      const double share = total != 0.0 ? v / total : v;
      weights.push_back(static_cast<std::int32_t>(share * (1 << kBits) + (share < 0 ? -0.5 : 0.5)));
    }
  }
}

std::uint8_t clip8(std::int32_t sum) { return static_cast<std::uint8_t>(std::clamp(sum >> kBits, 0, 255)); }

Image resize_width(const Image& in, int width, Resample filter) {
  std::vector<Taps> taps;
  std::vector<std::int32_t> weights;
  plan_axis(in.width, width, filter, taps, weights);
  Image out{
      width, in.height,
      std::vector<std::uint8_t>(static_cast<std::size_t>(width) * static_cast<std::size_t>(in.height) * 3)};
  for (int y = 0; y < in.height; ++y) {
    const std::uint8_t* from = in.row(y);
    std::uint8_t* to = out.row(y);
    for (const Taps& t : taps) {
      std::int32_t r = 1 << (kBits - 1), g = r, b = r;
      const std::uint8_t* p = from + static_cast<std::size_t>(t.first) * 3;
      for (int k = 0; k < t.count; ++k, p += 3) {
        const std::int32_t w = weights[t.at + static_cast<std::size_t>(k)];
        r += w * p[0];
        g += w * p[1];
        b += w * p[2];
      }
      *to++ = clip8(r);
      *to++ = clip8(g);
      *to++ = clip8(b);
    }
  }
  return out;
}

Image resize_height(const Image& in, int height, Resample filter) {
  std::vector<Taps> taps;
  std::vector<std::int32_t> weights;
  plan_axis(in.height, height, filter, taps, weights);
  const std::size_t stride = static_cast<std::size_t>(in.width) * 3;
  Image out{in.width, height, std::vector<std::uint8_t>(stride * static_cast<std::size_t>(height))};
  std::vector<std::int32_t> sums(stride);
  for (int y = 0; y < height; ++y) {
    const Taps& t = taps[static_cast<std::size_t>(y)];
    std::fill(sums.begin(), sums.end(), 1 << (kBits - 1));
    for (int k = 0; k < t.count; ++k) {
      const std::int32_t w = weights[t.at + static_cast<std::size_t>(k)];
      const std::uint8_t* from = in.row(t.first + k);
      for (std::size_t x = 0; x < stride; ++x) sums[x] += w * from[x];
    }
    std::uint8_t* to = out.row(y);
    for (std::size_t x = 0; x < stride; ++x) to[x] = clip8(sums[x]);
  }
  return out;
}

Image resize_nearest(const Image& in, int width, int height) {
  Image out{
      width, height,
      std::vector<std::uint8_t>(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3)};
  // Pillow adds the step up instead of multiplying, and its rounding with it.
  const auto places = [](int from, int to) {
    std::vector<int> out_places;
    const double step = static_cast<double>(from) / to;
    double at = step * 0.5;
    for (int i = 0; i < to; ++i, at += step) out_places.push_back(std::min(static_cast<int>(at), from - 1));
    return out_places;
  };
  const std::vector<int> columns = places(in.width, width), rows = places(in.height, height);
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x)
      std::memcpy(out.row(y) + static_cast<std::size_t>(x) * 3,
                  in.row(rows[static_cast<std::size_t>(y)]) +
                      static_cast<std::size_t>(columns[static_cast<std::size_t>(x)]) * 3,
                  3);
  return out;
}

Image black(int width, int height) {
  return {width, height,
          std::vector<std::uint8_t>(static_cast<std::size_t>(width) * static_cast<std::size_t>(height) * 3)};
}

/// Copies what of `from` falls on `to` when its corner lies at (left, top).
void paste(const Image& from, Image& to, int left, int top) {
  const int x0 = std::max(0, left), x1 = std::min(to.width, left + from.width);
  if (x0 >= x1) return;
  for (int y = std::max(0, top); y < std::min(to.height, top + from.height); ++y)
    std::memcpy(to.row(y) + static_cast<std::size_t>(x0) * 3,
                from.row(y - top) + static_cast<std::size_t>(x0 - left) * 3,
                static_cast<std::size_t>(x1 - x0) * 3);
}

}  // namespace

Image decode_image(std::string_view bytes, const std::string& where) {
  if (bytes.starts_with("\xff\xd8\xff")) return decode_jpeg(bytes, where);
  if (bytes.starts_with("\x89PNG\r\n\x1a\n")) return decode_png(bytes, where);
  throw DataError(where, bytes.empty() ? "the picture file is empty" : "is neither JPEG nor PNG");
}

Image read_image(const std::filesystem::path& file) { return decode_image(read_file(file), file.string()); }

void write_png(const std::filesystem::path& file, const Image& image) {
  png_image header{};
  header.version = PNG_IMAGE_VERSION;
  header.width = static_cast<png_uint_32>(image.width);
  header.height = static_cast<png_uint_32>(image.height);
  header.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(header);
  std::string bytes(size, '\0');
  if (png_image_write_to_memory(&header, bytes.data(), &size, 0, image.rgb.data(), 0, nullptr) == 0)
    throw DataError(file.string(), std::string("cannot be encoded: ") + header.message);
  bytes.resize(size);
  write_atomic(file, bytes);
}

PictureSize read_picture_size(const std::filesystem::path& file) {
  const std::string bytes = read_file(file), where = file.string();
  if (std::string_view(bytes).starts_with("\xff\xd8\xff")) return open_jpeg(bytes, where, nullptr);
  constexpr std::size_t kSizes = 16;  // width and height of the IHDR chunk, which is always the first
  if (!std::string_view(bytes).starts_with("\x89PNG\r\n\x1a\n") || bytes.size() < kSizes + 8) {
    const Image other = decode_image(bytes, where);  // says what is wrong
    return {other.height, other.width};
  }
  const auto number = [&](std::size_t at) {
    std::int64_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
    return value;
  };
  const std::int64_t width = number(kSizes), height = number(kSizes + 4);
  check_size(width, height, where);
  return {static_cast<int>(height), static_cast<int>(width)};
}

Image resize(const Image& image, int width, int height, Resample filter) {
  if (width <= 0 || height <= 0)
    throw DataError("resize",
                    "to " + std::to_string(width) + " x " + std::to_string(height) + " pixels is impossible");
  if (width > kMaxPixels / std::max(height, filter == Resample::nearest ? 1 : image.height))
    throw DataError("resize", "of " + std::to_string(image.width) + " x " + std::to_string(image.height) +
                                  " pixels to " + std::to_string(width) + " x " + std::to_string(height) +
                                  " takes too much memory");
  if (filter == Resample::nearest) return resize_nearest(image, width, height);
  Image out = width == image.width ? image : resize_width(image, width, filter);
  return height == out.height ? out : resize_height(out, height, filter);
}

Image pad_to_square(const Image& image, const std::uint8_t (&colour)[3]) {
  if (image.width == image.height) return image;
  const int side = std::max(image.width, image.height);
  if (side > kMaxPixels / side)
    throw DataError("pad_square", "a square of " + std::to_string(side) + " pixels takes too much memory");
  Image out{side, side,
            std::vector<std::uint8_t>(static_cast<std::size_t>(side) * static_cast<std::size_t>(side) * 3)};
  for (std::size_t i = 0; i < out.rgb.size(); ++i) out.rgb[i] = colour[i % 3];
  paste(image, out, (side - image.width) / 2, (side - image.height) / 2);
  return out;
}

Image pad_to(const Image& image, int width, int height) {
  Image out = black(width, height);
  paste(image, out, (width - image.width) / 2, (height - image.height) / 2);
  return out;
}

Image crop(const Image& image, int left, int top, int width, int height) {
  Image out = black(width, height);
  paste(image, out, -left, -top);
  return out;
}

Image centre_crop(const Image& image, int width, int height) {
  Image out = black(width, height);
  const auto half_down = [](int x) { return x >= 0 ? x / 2 : -((1 - x) / 2); };  // floor, as Python divides
  paste(image, out, -half_down(image.width - width), -half_down(image.height - height));
  return out;
}

}  // namespace mcit
