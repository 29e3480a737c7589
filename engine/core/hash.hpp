#pragma once
/// Content keys (XXH3, 128 bit): for caches and provenance, not against an adversary.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mcit {

class Hasher {
 public:
  Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  ~Hasher();

  Hasher& update(std::span<const std::byte> bytes);
  Hasher& update(
      std::string_view text);  ///< the bytes alone: two texts in a row are as good as their concatenation
  Hasher& field(std::string_view text);  ///< length and bytes: a list of fields has one reading
  /// Eight bytes, little-endian, sign-extended: the same on every machine and for every integer type.
  template <std::integral T>
  Hasher& update(T value) {
    return word(static_cast<std::uint64_t>(static_cast<std::int64_t>(value)));
  }
  Hasher& update(double value);  ///< its IEEE bits

  std::string hex() const;  ///< 32 digits; more may be added afterwards

 private:
  Hasher& word(std::uint64_t value);

  struct State;
  std::unique_ptr<State> state_;
};

std::string hash_text(std::string_view text);
/// @throws DataError when the file cannot be read.
std::string hash_file(const std::filesystem::path& file);

}  // namespace mcit
