#include "core/hash.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <bit>

#include "core/files.hpp"

namespace mcit {

struct Hasher::State {
  XXH3_state_t xxh;
};

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh); }
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;
Hasher::~Hasher() = default;

Hasher& Hasher::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(&state_->xxh, bytes.data(), bytes.size());
  return *this;
}

Hasher& Hasher::update(std::string_view text) { return update(std::as_bytes(std::span(text))); }

Hasher& Hasher::field(std::string_view text) { return update(text.size()).update(text); }

Hasher& Hasher::update(double value) { return word(std::bit_cast<std::uint64_t>(value)); }

Hasher& Hasher::word(std::uint64_t value) {
  std::array<std::byte, 8> bytes{};
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(value & 0xffU);
    value >>= 8;
  }
  return update(bytes);
}

std::string Hasher::hex() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(&state_->xxh));
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : canonical.digest) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15U]);
  }
  return text;
}

std::string hash_text(std::string_view text) { return Hasher().update(text).hex(); }

std::string hash_file(const std::filesystem::path& file) {
  const MappedFile mapped(file);
  return Hasher().update(mapped.bytes()).hex();
}

}  // namespace mcit
