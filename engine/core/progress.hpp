#pragma once
/// A line that says how far a loop is: redrawn in place on a terminal, a line every ten seconds elsewhere,
/// nothing while the console log is closed or shows warnings only.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace mcit {

/// Lives as long as its loop; the destructor clears the line. Bars may nest: the innermost is drawn. One
/// thread.
class Progress {
 public:
  /// @param total steps, or 0 when not known; @param unit plural noun for the rate, e.g. "steps"
  Progress(std::string title, std::int64_t total, std::string unit = "steps");
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();

  /// @param note short text behind the numbers, e.g. "loss 1.234"; empty keeps the last one
  void advance(std::int64_t steps = 1, std::string_view note = {});
  /// Steps that were done before this process (a resumed run): counted, but not in the rate.
  void skip(std::int64_t steps);

  /// The line as it would be drawn after `seconds`, for tests and logs.
  std::string text(double seconds) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// "45 s", "3 min 20 s", "2 h 05 min".
std::string duration_text(double seconds);

}  // namespace mcit
