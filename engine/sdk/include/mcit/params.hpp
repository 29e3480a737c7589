#pragma once
/// A strategy's own settings: the `[strategy]` table of a run, read by typed getters.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "mcit/abi.hpp"

namespace mcit {

/// Values by key. Each getter names the key's default; a key that no getter asked for is an error in
/// finish(), which the engine calls after the strategy is constructed.
class MCIT_EXPORT Params {
 public:
  using Value =
      std::variant<bool, std::int64_t, double, std::string, std::vector<double>, std::vector<std::string>>;

  Params() = default;
  explicit Params(std::map<std::string, Value> values, std::string where = "strategy");

  /// @throws ConfigError when the value has another type (an integer is accepted where a number is asked
  /// for).
  bool flag(std::string_view key, bool fallback) const;
  std::int64_t integer(std::string_view key, std::int64_t fallback) const;
  double number(std::string_view key, double fallback) const;
  std::string text(std::string_view key, std::string_view fallback) const;
  std::vector<double> numbers(std::string_view key, std::vector<double> fallback) const;
  std::vector<std::string> texts(std::string_view key, std::vector<std::string> fallback) const;

  /// Like text(), restricted to `allowed`.
  std::string choice(std::string_view key, std::string_view fallback,
                     const std::vector<std::string>& allowed) const;

  /// @throws ConfigError naming every key that was given but never asked for, with a near name.
  void finish() const;

  const std::map<std::string, Value>& values() const { return values_; }
  /// The values in effect, defaults included, for the resolved configuration of a run.
  const std::map<std::string, Value>& resolved() const { return resolved_; }

 private:
  template <class T>
  T get(std::string_view key, T fallback, const char* kind) const;

  std::map<std::string, Value> values_;
  std::string where_ = "strategy";
  mutable std::map<std::string, Value> resolved_;
};

}  // namespace mcit
