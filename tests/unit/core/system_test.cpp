#include "core/system.hpp"

#include <catch2/catch_test_macros.hpp>
#include <limits>
#include <thread>

namespace mcit {
namespace {

/// A product whose exact value is half the smallest normal number.
double half_of_smallest() {
  volatile double smallest = std::numeric_limits<double>::min(), half = 0.5;
  return smallest * half;
}

TEST_CASE(
    "denormal numbers are flushed in a thread and those that it starts, and whole where it is asked for") {
  double before = 0.0, flushed = 1.0, inherited = 1.0, whole = 0.0, afterwards = 1.0;
  std::thread([&] {
    before = half_of_smallest();
    flush_denormals();
    flushed = half_of_smallest();
    std::thread([&] { inherited = half_of_smallest(); }).join();
    {
      const WholeArithmetic here;
      whole = half_of_smallest();
    }
    afterwards = half_of_smallest();
  }).join();
  CHECK(before == std::numeric_limits<double>::min() / 2.0);
  CHECK(flushed == 0.0);
  CHECK(inherited == 0.0);
  CHECK(whole == before);
  CHECK(afterwards == 0.0);
}

}  // namespace
}  // namespace mcit
