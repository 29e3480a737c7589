#pragma once
/// A bounded, uniform sample of all examples that were ever offered.

#include <initializer_list>
#include <string>
#include <vector>

#include "mcit/parts/state_reader.hpp"
#include "mcit/strategy.hpp"

namespace mcit::parts {

/// Reservoir sampling (Vitter 1985, algorithm R): the n-th example offered is kept with probability capacity
/// / n and then takes the place of a random one. Every random number is a function of the seed and of
/// counters, so the sample is the same on every machine and the state is as small as the list of what is
/// kept.
class MCIT_EXPORT Reservoir {
 public:
  /// @throws ConfigError when capacity < 1
  Reservoir(std::int64_t capacity, std::uint64_t seed);

  void add(const ExamplePtr& example);
  /// min(count, size()) different examples; the same for the same key, content and seed.
  /// @param key numbers that name this draw, e.g. {stage, step, micro-step}
  /// @param host gives back examples that were kept before a resume
  std::vector<ExamplePtr> draw(std::int64_t count, std::initializer_list<std::int64_t> key, Host& host);

  std::int64_t size() const { return static_cast<std::int64_t>(slots_.size()); }
  std::int64_t capacity() const { return capacity_; }
  std::int64_t seen() const { return seen_; }  ///< examples offered so far

  /// "<prefix>.items": int64 [size, 2], task and index of each; "<prefix>.counters": int64 [2], seed and
  /// seen.
  void save(StateDict& state, const std::string& prefix) const;
  void load(StateReader& reader, const std::string& prefix);

 private:
  struct Slot {
    std::int64_t task, index;
    ExamplePtr example;  ///< null after a resume, until it is drawn
  };

  std::int64_t capacity_;
  std::uint64_t seed_;
  std::int64_t seen_ = 0;
  std::vector<Slot> slots_;
};

}  // namespace mcit::parts
