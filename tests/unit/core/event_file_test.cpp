#include "core/event_file.hpp"

#include <catch2/catch_test_macros.hpp>
#include <vector>

#include "core/files.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

namespace mcit {
namespace {

using namespace std::string_literals;

TEST_CASE("CRC-32C is that of RFC 3720") {  // its appendix B.4; "123456789" is the catalogues' check value
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aaU);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62a8ab43U);
  std::string rising, falling;
  for (int i = 0; i < 32; ++i) {
    rising += static_cast<char>(i);
    falling += static_cast<char>(31 - i);
  }
  CHECK(crc32c(rising) == 0x46dd794eU);
  CHECK(crc32c(falling) == 0x113fdb5cU);
  CHECK(crc32c("123456789") == 0xe3069283U);
}

TEST_CASE("a record is length, its sum, bytes, their sum") {
  const std::string record = event_record("abc");
  REQUIRE(record.size() == 8 + 4 + 3 + 4);
  CHECK(record.substr(0, 8) == "\x03\0\0\0\0\0\0\0"s);
  CHECK(record.substr(12, 3) == "abc");
  // unmask: rotate_left(masked - 0xa282ead8, 15), what readers of the format do
  const auto sum_at = [&](std::size_t at) {
    std::uint32_t masked = 0;
    for (std::size_t i = 4; i-- > 0;) masked = masked << 8 | static_cast<unsigned char>(record[at + i]);
    const std::uint32_t rotated = masked - 0xa282ead8U;
    return rotated >> 17 | rotated << 15;
  };
  CHECK(sum_at(8) == crc32c(record.substr(0, 8)));
  CHECK(sum_at(15) == crc32c("abc"));
}

TEST_CASE("messages are those of event.proto, field by field") {
  // wall_time = 1 (double, field 1), file_version = 3 (bytes)
  CHECK(version_event(1.0) ==
        "\x09\0\0\0\0\0\0\xf0\x3f\x1a\x0d"
        "brain.Event:2"s);
  // step = 2 (varint 300), summary = 5 {value = 1 {tag = 1, simple_value = 2 (float 1.5)}}
  const std::vector<Scalar> one = {{"a/b", 1.5}};
  CHECK(scalars_event(1.0, 300, one) ==
        "\x09\0\0\0\0\0\0\xf0\x3f\x10\xac\x02\x2a\x0c\x0a\x0a\x0a\x03"
        "a/b\x15\0\0\xc0\x3f"s);
}

TEST_CASE("a file begins with its version, and goes on where it ended") {
  const test::TemporaryFolder folder;
  const auto file = folder / "events.out.tfevents.x";
  const std::vector<Scalar> values = {{"train/loss", 2.5}, {"train/rate", 1.0}};
  { EventFile(file).scalars(1, values); }
  const std::string first = read_file(file);
  CHECK(first.substr(12, 1) == "\x09");
  CHECK(first.find("brain.Event:2") != std::string::npos);
  { EventFile(file).scalars(2, values); }
  const std::string both = read_file(file);
  CHECK(both.starts_with(first));
  CHECK(both.find("brain.Event:2", first.size()) == std::string::npos);
  CHECK(both.size() - first.size() == event_record(scalars_event(0.0, 2, values)).size());
  CHECK_THROWS_AS(EventFile(folder / "no such folder" / "file"), DataError);
}

}  // namespace
}  // namespace mcit
