#include "data/jpeg.hpp"

#include <cstdio>
// libjpeg's header wants <cstdio> before it
#include <jpeglib.h>

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdlib>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

struct Failure {
  jpeg_error_mgr base;
  std::jmp_buf back;
};

[[noreturn]] void failed(j_common_ptr info) { std::longjmp(reinterpret_cast<Failure*>(info->err)->back, 1); }

/// Returns false where libjpeg gave up. Nothing here has a destructor: libjpeg leaves by longjmp.
bool encode(const Image& image, int quality, jpeg_compress_struct& info, Failure& failure,
            unsigned char** bytes, unsigned long* size) {
  if (setjmp(failure.back) != 0) return false;
  jpeg_create_compress(&info);
  jpeg_mem_dest(&info, bytes, size);
  info.image_width = static_cast<JDIMENSION>(image.width);
  info.image_height = static_cast<JDIMENSION>(image.height);
  info.input_components = 3;
  info.in_color_space = JCS_RGB;
  jpeg_set_defaults(&info);
  jpeg_set_quality(&info, quality, TRUE);
  info.optimize_coding = TRUE;
  jpeg_start_compress(&info, TRUE);
  while (info.next_scanline < info.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(image.row(static_cast<int>(info.next_scanline)));
    jpeg_write_scanlines(&info, &row, 1);
  }
  jpeg_finish_compress(&info);
  return true;
}

}  // namespace

Image thumbnail(const Image& image, int longest) {
  const int side = std::max(image.width, image.height);
  if (side <= longest) return image;
  const double share = static_cast<double>(longest) / side;
  const auto scaled = [&](int length) { return std::max(1, static_cast<int>(std::lround(length * share))); };
  return resize(image, scaled(image.width), scaled(image.height), Resample::lanczos);
}

std::string encode_jpeg(const Image& image, int quality) {
  if (image.width <= 0 || image.height <= 0)
    throw DataError("JPEG", "a picture without pixels cannot be encoded");
  jpeg_compress_struct info{};
  Failure failure{};
  info.err = jpeg_std_error(&failure.base);
  failure.base.error_exit = failed;
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  const bool whole = encode(image, quality, info, failure, &bytes, &size);
  std::string out;
  if (whole) out.assign(reinterpret_cast<const char*>(bytes), size);
  jpeg_destroy_compress(&info);
  std::free(bytes);
  if (!whole) throw DataError("JPEG", "the picture cannot be encoded");
  return out;
}

}  // namespace mcit
