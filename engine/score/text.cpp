#include "score/text.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>

namespace mcit::text {
namespace {

constexpr char32_t kRawByte = 0xDC00;  // a lone surrogate: no well-formed UTF-8 decodes to it

/// Length of the well-formed sequence at the front of `bytes` with its code point in `point`, or 0.
std::size_t sequence(std::string_view bytes, char32_t& point) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) {
    point = first;
    return 1;
  }
  const std::size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || bytes.size() < length) return 0;
  point = first & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80) return 0;
    point = (point << 6) | (byte(i) & 0x3FU);
  }
  constexpr std::array<char32_t, 5> kSmallest{0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = point >= 0xD800 && point <= 0xDFFF;
  return point < kSmallest[length] || point > 0x10FFFF || surrogate ? 0 : length;
}

/// Capital and small letter take turns from `first` to `last`, the capital on `first`'s parity.
struct Pairs {
  char32_t first, last;
};
constexpr std::array kPairs{Pairs{0x100, 0x12F}, Pairs{0x132, 0x137},   Pairs{0x139, 0x148},
                            Pairs{0x14A, 0x177}, Pairs{0x179, 0x17E},   Pairs{0x1A0, 0x1A1},
                            Pairs{0x1AF, 0x1B0}, Pairs{0x1CD, 0x1DC},   Pairs{0x1DE, 0x1EF},
                            Pairs{0x1F8, 0x21F}, Pairs{0x222, 0x233},   Pairs{0x3D8, 0x3EF},
                            Pairs{0x460, 0x481}, Pairs{0x48A, 0x4BF},   Pairs{0x4C1, 0x4CE},
                            Pairs{0x4D0, 0x52F}, Pairs{0x1E00, 0x1E95}, Pairs{0x1EA0, 0x1EFF}};

/// Capitals from `first` to `last` whose small letter is `offset` further on.
struct Block {
  char32_t first, last;
  std::int32_t offset;
};
constexpr std::array kBlocks{Block{'A', 'Z', 32},          Block{0xC0, 0xD6, 32},    Block{0xD8, 0xDE, 32},
                             Block{0x178, 0x178, -121},    Block{0x386, 0x386, 38},  Block{0x388, 0x38A, 37},
                             Block{0x38C, 0x38C, 64},      Block{0x38E, 0x38F, 63},  Block{0x391, 0x3A1, 32},
                             Block{0x3A3, 0x3AB, 32},      Block{0x3C2, 0x3C2, 1},   Block{0x400, 0x40F, 80},
                             Block{0x410, 0x42F, 32},      Block{0x4C0, 0x4C0, 15},  Block{0x531, 0x556, 48},
                             Block{0x1E9E, 0x1E9E, -7615}, Block{0xFF21, 0xFF3A, 32}};

}  // namespace

std::u32string decode(std::string_view utf8) {
  std::u32string points;
  points.reserve(utf8.size());
  while (!utf8.empty()) {
    char32_t point = 0;
    const std::size_t length = sequence(utf8, point);
    points.push_back(length > 0 ? point : kRawByte + static_cast<unsigned char>(utf8.front()));
    utf8.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return points;
}

std::string encode(std::u32string_view points) {
  std::string utf8;
  utf8.reserve(points.size());
  const auto put = [&](char32_t byte) {
    utf8.push_back(static_cast<char>(static_cast<unsigned char>(byte)));
  };
  for (const char32_t point : points) {
    if (point >= kRawByte + 0x80 && point <= kRawByte + 0xFF) {
      put(point - kRawByte);
    } else if (point < 0x80) {
      put(point);
    } else if (point < 0x800) {
      put(0xC0 | (point >> 6));
      put(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
      put(0xE0 | (point >> 12));
      put(0x80 | ((point >> 6) & 0x3F));
      put(0x80 | (point & 0x3F));
    } else {
      put(0xF0 | (point >> 18));
      put(0x80 | ((point >> 12) & 0x3F));
      put(0x80 | ((point >> 6) & 0x3F));
      put(0x80 | (point & 0x3F));
    }
  }
  return utf8;
}

char32_t lower(char32_t point) {
  if (point < 0x80) return point >= U'A' && point <= U'Z' ? point + 32 : point;
  for (const Block& block : kBlocks) {
    if (point >= block.first && point <= block.last) {
      return static_cast<char32_t>(static_cast<std::int32_t>(point) + block.offset);
    }
  }
  for (const Pairs& pairs : kPairs) {
    if (point >= pairs.first && point <= pairs.last) return point + ((point - pairs.first) % 2 == 0 ? 1 : 0);
  }
  return point;
}

std::u32string lower(std::u32string_view points) {
  std::u32string result(points);
  std::transform(result.begin(), result.end(), result.begin(), [](char32_t point) { return lower(point); });
  return result;
}

bool is_space(char32_t point) {
  return (point >= 0x09 && point <= 0x0D) || (point >= 0x1C && point <= 0x20) || point == 0x85 ||
         point == 0xA0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200A) || point == 0x2028 ||
         point == 0x2029 || point == 0x202F || point == 0x205F || point == 0x3000;
}

std::u32string_view trim(std::u32string_view points) {
  while (!points.empty() && is_space(points.front())) points.remove_prefix(1);
  while (!points.empty() && is_space(points.back())) points.remove_suffix(1);
  return points;
}

std::vector<std::u32string> split(std::u32string_view points) {
  std::vector<std::u32string> words;
  auto begin = points.begin();
  while (begin != points.end()) {
    begin = std::find_if_not(begin, points.end(), is_space);
    const auto end = std::find_if(begin, points.end(), is_space);
    if (begin != end) words.emplace_back(begin, end);
    begin = end;
  }
  return words;
}

std::size_t edit_distance(std::u32string_view left, std::u32string_view right) {
  std::vector<std::size_t> row(right.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= left.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= right.size(); ++j) {
      const std::size_t substituted = diagonal + (left[i - 1] == right[j - 1] ? 0U : 1U);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace mcit::text
