#include "core/event_file.hpp"

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) != 0 ? 0x82f63b78U : 0U);
    table[i] = value;
  }
  return table;
}

template <class Integer>
std::string little_endian(Integer value) {
  std::string out;
  for (std::size_t i = 0; i < sizeof value; ++i) out += static_cast<char>((value >> (8 * i)) & 0xff);
  return out;
}

std::string masked_crc(std::string_view bytes) {
  return little_endian(static_cast<std::uint32_t>(std::rotr(crc32c(bytes), 15) + 0xa282ead8U));
}

// Fields of a protocol buffer message: a key (number << 3 | wire type), then the value.
enum class Wire : std::uint32_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7f) | 0x80);
  return out + static_cast<char>(value);
}

std::string key(std::uint32_t number, Wire wire) { return varint(number << 3 | static_cast<unsigned>(wire)); }

std::string bytes_field(std::uint32_t number, std::string_view value) {
  return key(number, Wire::bytes) + varint(value.size()) + std::string(value);
}

std::string wall_time_field(double seconds) {
  return key(1, Wire::fixed64) + little_endian(std::bit_cast<std::uint64_t>(seconds));
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<std::uint32_t, 256> kTable = crc_table();
  std::uint32_t crc = 0xffffffffU;
  for (const char c : bytes) crc = kTable[(crc ^ static_cast<unsigned char>(c)) & 0xffU] ^ (crc >> 8);
  return ~crc;
}

std::string event_record(std::string_view message) {
  const std::string length = little_endian(static_cast<std::uint64_t>(message.size()));
  return length + masked_crc(length) + std::string(message) + masked_crc(message);
}

std::string version_event(double wall_time) {
  return wall_time_field(wall_time) + bytes_field(3, "brain.Event:2");
}

std::string scalars_event(double wall_time, std::int64_t step, std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    const auto value = std::bit_cast<std::uint32_t>(static_cast<float>(scalar.value));
    summary += bytes_field(1, bytes_field(1, scalar.tag) + key(2, Wire::fixed32) + little_endian(value));
  }
  return wall_time_field(wall_time) + key(2, Wire::varint) + varint(static_cast<std::uint64_t>(step)) +
         bytes_field(5, summary);
}

EventFile::EventFile(std::filesystem::path file)
    : path_(std::move(file)),
      file_(path_, std::ios::binary | std::ios::app),
      flushed_(std::chrono::steady_clock::now()) {
  if (!file_) throw DataError(path_.string(), std::string("cannot open: ") + std::strerror(errno));
  if (file_.tellp() == 0) append(event_record(version_event(wall_clock())));
}

void EventFile::append(const std::string& record) {
  if (!file_.write(record.data(), static_cast<std::streamsize>(record.size())))
    throw DataError(path_.string(), std::string("cannot write: ") + std::strerror(errno));
}

void EventFile::scalars(std::int64_t step, std::span<const Scalar> scalars) {
  constexpr std::chrono::seconds kLongest{5};
  if (scalars.empty()) return;
  append(event_record(scalars_event(wall_clock(), step, scalars)));
  if (std::chrono::steady_clock::now() - flushed_ > kLongest) flush();
}

void EventFile::flush() {
  if (!file_.flush()) throw DataError(path_.string(), std::string("cannot write: ") + std::strerror(errno));
  flushed_ = std::chrono::steady_clock::now();
}

double wall_clock() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace mcit
