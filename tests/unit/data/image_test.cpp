// Pictures against Pillow 12.3.0, byte for byte: tests/fixtures/images/make_images.py wrote pictures and
// results.
#include "data/image.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <set>

#include "mcit/errors.hpp"
#include "unit/data/pillow.hpp"

namespace mcit::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;

void be32(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 255);
}

/// A PNG chunk with its CRC (PNG specification, annex D).
std::string chunk(const std::string& kind, const std::string& data) {
  std::string out;
  be32(out, static_cast<std::uint32_t>(data.size()));
  out += kind + data;
  std::uint32_t crc = 0xffffffff;
  for (const char c : kind + data) {
    crc ^= static_cast<unsigned char>(c);
    for (int k = 0; k < 8; ++k) crc = (crc & 1) != 0 ? 0xedb88320 ^ crc >> 1 : crc >> 1;
  }
  be32(out, ~crc);
  return out;
}

/// A PNG that claims this size and holds nothing.
std::string hollow_png(std::uint32_t width, std::uint32_t height) {
  std::string head;
  be32(head, width);
  be32(head, height);
  head += std::string("\x08\x02\0\0\0", 5);
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", head) + chunk("IDAT", "") + chunk("IEND", "");
}

/// Whether decoding ends in a DataError; anything else than that or a whole picture fails the test.
bool refused(const std::string& bytes) {
  try {
    const Image image = decode_image(bytes, "picture");
    REQUIRE(image.rgb.size() ==
            static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.height) * 3);
    return false;
  } catch (const DataError&) {
    return true;
  }
}

Resample filter_called(const std::string& name) {
  if (name == "nearest") return Resample::nearest;
  if (name == "lanczos") return Resample::lanczos;
  return name == "bilinear" ? Resample::bilinear : Resample::bicubic;
}

TEST_CASE("every kind of PNG and JPEG decodes to the bytes of convert(RGB)") {
  int count = 0;
  for (const Expected& one : expected()) {
    if (one.operation != "convert") continue;
    ++count;
    INFO(one.file);
    std::string found;
    try {
      found = difference(read_image(kPictures / one.file), one.image);
    } catch (const std::exception& e) {
      found = e.what();
    }
    CHECK(found == "");
  }
  CHECK(count == 35);  // pictures that make_images.py writes
}

TEST_CASE("an EXIF turn is not applied") {
  const Image image = read_image(kPictures / "exif_turned.jpg");
  CHECK(image.width == 16);
  CHECK(image.height == 10);
}

TEST_CASE("resizing gives Pillow's bytes with every filter, up, down and along one axis") {
  std::set<std::string> filters;
  for (const Expected& one : expected()) {
    if (one.operation != "nearest" && one.operation != "lanczos" && one.operation != "bilinear" &&
        one.operation != "bicubic")
      continue;
    filters.insert(one.operation);
    const Image& source = expected("convert", one.file).image;
    INFO(one.operation << " " << one.file << " " << source.width << " x " << source.height << " to "
                       << one.image.width << " x " << one.image.height);
    CHECK(difference(resize(source, one.image.width, one.image.height, filter_called(one.operation)),
                     one.image) == "");
  }
  CHECK(filters.size() == 4);
}

TEST_CASE("a size below one pixel is refused") {
  const Image& image = expected("convert", "rgb.png").image;
  CHECK_THROWS_AS(resize(image, 0, 5, Resample::bicubic), DataError);
  CHECK_THROWS_AS(resize(image, 5, -1, Resample::nearest), DataError);
}

TEST_CASE("the centre crop takes even and odd sizes from the place where transformers takes them") {
  int count = 0;
  for (const Expected& one : expected()) {
    if (!one.operation.starts_with("crop:")) continue;
    ++count;
    INFO(one.operation << " of " << one.file);
    const Image& source = expected("convert", one.file).image;
    CHECK(difference(centre_crop(source, one.image.width, one.image.height), one.image) == "");
  }
  CHECK(count == 18);
}

TEST_CASE("padding to a square puts the picture where LLaVA puts it") {
  int count = 0;
  for (const Expected& one : expected()) {
    if (one.operation != "pad") continue;
    ++count;
    INFO(one.file);
    CHECK(difference(pad_to_square(expected("convert", one.file).image, {122, 116, 104}), one.image) == "");
  }
  CHECK(count == 4);
}

TEST_CASE("a written PNG reads back to the same bytes") {
  const TemporaryFolder folder;
  const Image& image = expected("convert", "rgb.png").image;
  write_png(folder / "a.png", image);
  CHECK(difference(read_image(folder / "a.png"), image) == "");
}

TEST_CASE("a picture cut short anywhere is a DataError") {
  // Pillow refuses every prefix of a JPEG; of a PNG we want the end mark too, which Pillow does without.
  for (const char* name : {"rgb.png", "rgb_interlaced.png", "palette4.png", "rgb_420.jpg",
                           "rgb_progressive.jpg", "rgb_restart.jpg", "grey.jpg", "cmyk.jpg"}) {
    INFO(name);
    const std::string bytes = slurp(kPictures / name);
    REQUIRE(bytes.size() > 200);
    std::size_t accepted = 0, first = 0;
    for (std::size_t length = 0; length < bytes.size(); ++length)
      if (!refused(bytes.substr(0, length)) && accepted++ == 0) first = length;
    INFO("accepted prefixes: " << accepted << " of " << bytes.size() << ", the shortest of " << first
                               << " bytes");
    CHECK(accepted == 0);
  }
}

TEST_CASE("a flipped bit in the pixels of a PNG is a DataError") {
  const std::string bytes = slurp(kPictures / "rgb.png");
  const std::size_t begin = bytes.find("IDAT") + 4, end = bytes.find("IEND") - 8;
  REQUIRE(begin < end);
  for (std::size_t at = begin; at < end; ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    INFO("byte " << at);
    CHECK(refused(damaged));
  }
}

TEST_CASE("damage anywhere gives a picture or a DataError, nothing else") {
  for (const char* name : {"rgb_interlaced.png", "palette_transparent.png", "grey16.png", "rgb_420.jpg",
                           "rgb_progressive.jpg", "cmyk.jpg"}) {
    INFO(name);
    const std::string bytes = slurp(kPictures / name);
    const std::size_t baseline = bytes.find("\xff\xc0"), progressive = bytes.find("\xff\xc2"),
                      frame = std::min(baseline, progressive);
    // Another size in a JPEG's frame may be large and still believed: not worth the memory here.
    const auto sizes = [&](std::size_t at) {
      return bytes.starts_with("\xff\xd8") && at >= frame + 5 && at < frame + 9;
    };
    std::size_t refusals = 0;
    for (std::size_t at = 0; at < bytes.size(); ++at)
      for (const int mask : {1, 0x80, 0xff}) {
        std::string damaged = bytes;
        damaged[at] = static_cast<char>(damaged[at] ^ mask);
        if (!sizes(at)) refusals += refused(damaged) ? 1 : 0;
      }
    CHECK(refusals > 0);
  }
}

TEST_CASE("a header that claims a huge picture is refused before memory is taken") {
  CHECK_THROWS_AS(decode_image(hollow_png(100'000, 100'000), "bomb"), DataError);
  CHECK_THROWS_AS(decode_image(hollow_png(13'378, 13'378), "bomb"), DataError);  // 13'914 pixels too many
  CHECK_THROWS_AS(decode_image(hollow_png(0x7fffffff, 0x7fffffff), "bomb"), DataError);
  CHECK_THROWS_AS(decode_image(hollow_png(0, 5), "bomb"), DataError);
  std::string jpeg = slurp(kPictures / "rgb_444.jpg");
  const std::size_t frame = jpeg.find("\xff\xc0");
  REQUIRE(frame != std::string::npos);
  jpeg.replace(frame + 5, 4, std::string("\xf0\0\xf0\0", 4));  // height and width
  CHECK_THROWS_MATCHES(decode_image(jpeg, "bomb"), DataError,
                       MessageMatches(ContainsSubstring("bomb: the picture claims 61440 x 61440 pixels")));
}

TEST_CASE("what is no picture is refused by name") {
  CHECK_THROWS_MATCHES(decode_image("", "a.png"), DataError, Message("a.png: the picture file is empty"));
  for (const char* bytes : {"GIF89a", "BM", "hello", "\x89PNG", "\xff\xd8", "RIFF....WEBPVP8 "})
    CHECK_THROWS_MATCHES(decode_image(bytes, "a.png"), DataError, Message("a.png: is neither JPEG nor PNG"));
  const TemporaryFolder folder;
  write(folder / "empty.jpg", "");
  CHECK_THROWS_MATCHES(read_image(folder / "empty.jpg"), DataError,
                       MessageMatches(ContainsSubstring("empty.jpg")));
  CHECK_THROWS_MATCHES(read_image(folder / "none.jpg"), DataError,
                       MessageMatches(ContainsSubstring("none.jpg")));
  CHECK_THROWS_AS(read_image(folder.path()), DataError);
  CHECK_THROWS_MATCHES(decode_image("\xff\xd8\xff\xe0 broken", "b.jpg"), DataError,
                       MessageMatches(ContainsSubstring("b.jpg: damaged JPEG")));
  CHECK_THROWS_MATCHES(decode_image("\x89PNG\r\n\x1a\n broken", "b.png"), DataError,
                       MessageMatches(ContainsSubstring("b.png: damaged PNG")));
}

}  // namespace
}  // namespace mcit::test
