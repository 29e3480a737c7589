#include "fuzz/mutate.hpp"

#include <zlib.h>

#include <algorithm>
#include <cctype>
#include <cstdint>

namespace mcit::fuzz {
namespace {

constexpr std::size_t kLongest = 1 << 20;

/// Headers are short and stand in front: small places are as likely as large ones.
std::size_t place(std::size_t size, Rng& rng) {
  if (size == 0) return 0;
  const std::size_t near[] = {size, size, 64, 4096};
  return rng.below(std::min(size, near[rng.below(4)]));
}

/// Begin and length of a piece.
std::pair<std::size_t, std::size_t> piece(std::size_t size, Rng& rng) {
  const std::size_t begin = place(size, rng), longest = std::size_t{1} << rng.below(14);
  return {begin, std::min(size - begin, 1 + rng.below(longest))};
}

void put_integer(std::string& text, Rng& rng) {
  constexpr std::uint64_t kValues[] = {
      0,          1,          2,          0x7f,      0x80,       0xff,           0x7fff,
      0x8000,     0xffff,     0x10000,    0xffffff,  0x7fffffff, 1ULL << 31,     0xffffffff,
      1ULL << 32, 1ULL << 40, 1ULL << 62, INT64_MAX, 1ULL << 63, UINT64_MAX - 7, UINT64_MAX};
  const std::uint64_t value = kValues[rng.below(std::size(kValues))];
  const std::size_t width = std::size_t{1} << rng.below(4), at = place(text.size(), rng);
  const bool big = rng.chance(0.5);
  for (std::size_t i = 0; i < width && at + i < text.size(); ++i)
    text[at + i] = static_cast<char>(value >> 8 * (big ? width - 1 - i : i));
}

/// A number of a JSON text becomes an extreme one, or something that is none.
void put_number(std::string& text, Rng& rng) {
  const char* const values[] = {"0",
                                "-0.0",
                                "-1",
                                "1",
                                "2147483648",
                                "4294967296",
                                "9e18",
                                "1e308",
                                "0.5",
                                "1e-320",
                                "9223372036854775807",
                                "9223372036854775808",
                                "18446744073709551615",
                                "-9223372036854775808",
                                "1e999",
                                "null",
                                "true",
                                "[]",
                                "{}",
                                "\"1\"",
                                "[1,2,3]",
                                "16777216",
                                "1000",
                                "4096"};
  const auto digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  const auto from = text.begin() + static_cast<std::ptrdiff_t>(place(text.size(), rng));
  const auto begin = std::find_if(from, text.end(), digit), end = std::find_if_not(begin, text.end(), digit);
  text.replace(begin, end, values[rng.below(std::size(values))]);
}

/// Two quoted words of a text, or all of what two pairs of brackets hold, change places.
void swap_words(std::string& text, Rng& rng) {
  const auto word = [&](std::size_t from) -> std::pair<std::size_t, std::size_t> {
    const std::size_t begin = text.find('"', from),
                      end = text.find('"', begin == std::string::npos ? begin : begin + 1);
    return end == std::string::npos ? std::pair<std::size_t, std::size_t>{0, 0}
                                    : std::pair{begin, end + 1 - begin};
  };
  const auto first = word(place(text.size(), rng)), second = word(place(text.size(), rng));
  if (first.second > 0 && second.second > 0)
    text.replace(first.first, first.second, text.substr(second.first, second.second));
}

void change(std::string& text, std::string_view other, Rng& rng) {
  const auto [begin, length] = piece(text.size(), rng);
  const auto [other_begin, other_length] = piece(other.size(), rng);
  const bool empty = text.empty();
  switch (rng.below(10)) {
    case 0:
      if (!empty) text[begin] = static_cast<char>(text[begin] ^ 1 << rng.below(8));
      break;
    case 1:
      if (!empty) text[begin] = static_cast<char>(rng.below(256));
      break;
    case 2:
    case 3:
      put_integer(text, rng);
      break;
    case 4:
      text.erase(begin, length);
      break;
    case 5:
      if (rng.chance(0.2)) text.resize(begin);  // the rest of a file is missing
      break;
    case 6:
      text.insert(begin, text.substr(begin, length));
      break;
    case 7:
      text.replace(begin, rng.chance(0.5) ? length : other_length, other.substr(other_begin, other_length));
      break;
    case 8:
      put_number(text, rng);
      break;
    default:
      swap_words(text, rng);
  }
  if (text.size() > kLongest) text.resize(kLongest);
}

}  // namespace

std::string mutated(std::string input, std::string_view other, Rng& rng) {
  do change(input, other, rng);
  while (rng.chance(0.6));
  return input;
}

std::string mutated(const std::vector<std::string>& inputs, Rng& rng) {
  return mutated(inputs[rng.below(inputs.size())], inputs[rng.below(inputs.size())], rng);
}

void mend_checksums(std::string& png) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(png.data());
  constexpr std::size_t kFrame = 8;  // length and type in front
  for (std::size_t at = 8; at + kFrame + 4 <= png.size();) {
    std::uint32_t length = 0;
    for (std::size_t i = 0; i < 4; ++i) length = length << 8 | bytes[at + i];
    if (length > png.size() - at - kFrame - 4) return;
    const std::uint64_t sum = ::crc32(0, bytes + at + 4, length + 4);
    for (std::size_t i = 0; i < 4; ++i) png[at + kFrame + length + i] = static_cast<char>(sum >> 8 * (3 - i));
    at += kFrame + length + 4;
  }
}

}  // namespace mcit::fuzz
