#pragma once
/// Random numbers with the same bytes on every platform and library (std::*_distribution promises none of
/// that).

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace mcit {

/// SplitMix64 (Steele, Lea, Flood 2014): advances `state`, returns well mixed bits.
constexpr std::uint64_t splitmix64(std::uint64_t& state) {
  std::uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

/// A number or a name that takes part in a seed.
struct SeedPart {
  std::uint64_t value;
  template <std::integral T>
  constexpr SeedPart(T number) : value(static_cast<std::uint64_t>(number)) {}
  constexpr SeedPart(std::string_view name) : value(0xcbf29ce484222325ULL) {  // FNV-1a
    for (const char c : name) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  }
  constexpr SeedPart(const char* name) : SeedPart(std::string_view(name)) {}
};

/// A seed of its own for each purpose: `derive(seed, {"shuffle", stage, epoch})`. Order matters.
constexpr std::uint64_t derive(std::uint64_t seed, std::initializer_list<SeedPart> parts) {
  std::uint64_t mixed = splitmix64(seed);
  for (const SeedPart& part : parts) {
    std::uint64_t state = mixed ^ part.value;
    mixed = splitmix64(state) + 0x632be59bd9b4e019ULL;
  }
  return mixed;
}

/// xoshiro256** (Blackman, Vigna 2018), seeded through SplitMix64. Plain data: copy it to save its place.
class Rng {
 public:
  explicit constexpr Rng(std::uint64_t seed) {
    for (std::uint64_t& word : state_) word = splitmix64(seed);
  }

  constexpr std::uint64_t next() {
    const std::uint64_t result = rotate(state_[1] * 5, 7) * 9;
    const std::uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = rotate(state_[3], 45);
    return result;
  }

  /// 0 .. n-1, each equally likely; n must not be 0.
  constexpr std::uint64_t below(std::uint64_t n) {
    const std::uint64_t biased = (0 - n) % n;  // 2^64 mod n: what the last, incomplete turn would favour
    std::uint64_t draw = next();
    while (draw < biased) draw = next();
    return draw % n;
  }
  constexpr double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }  ///< [0, 1)
  constexpr bool chance(double probability) { return uniform() < probability; }
  double normal();  ///< mean 0, deviation 1 (polar method; its logarithm is our own, libraries differ in the
                    ///< last bit)

  template <class T>
  constexpr void shuffle(std::span<T> items) {
    for (std::size_t left = items.size(); left > 1; --left)
      std::swap(items[left - 1], items[static_cast<std::size_t>(below(left))]);
  }
  template <class T>
  constexpr void shuffle(std::vector<T>& items) {
    shuffle(std::span<T>(items));
  }
  /// 0 .. n-1 in random order.
  std::vector<std::int64_t> permutation(std::size_t n) {
    std::vector<std::int64_t> order(n);
    std::iota(order.begin(), order.end(), std::int64_t{0});
    shuffle(order);
    return order;
  }

 private:
  static constexpr std::uint64_t rotate(std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

  std::uint64_t state_[4] = {};
};

}  // namespace mcit
