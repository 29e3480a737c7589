#pragma once
/// Logarithm and exponential from additions, multiplications and divisions alone, which IEEE 754 fixes to the
/// last bit: libraries differ there. Files that use them are compiled with -ffp-contract=off.

#include <cmath>

namespace mcit {

/// Natural logarithm of a positive, finite number. x = m 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2
/// artanh((m-1)/(m+1)).
inline double portable_log(double x) {
  constexpr double kLn2 = 0.693147180559945309417232121458;
  constexpr double kRootHalf = 0.707106781186547524400844362105;
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // exact: [1/2, 1)
  if (m < kRootHalf) {
    m *= 2.0;
    --exponent;
  }
  const double t = (m - 1.0) / (m + 1.0);
  const double square = t * t;
  double series = 0.0;
  for (int k = 23; k >= 1; k -= 2)
    series = series * square + 1.0 / k;  // |t| < 0.172: the next term is below 1e-18
  return 2.0 * t * series + exponent * kLn2;
}

/// e^x for x <= 0; 0 where that is below 2^-1022. x = k ln 2 + r with |r| <= ln(2)/2; a Taylor series of e^r.
inline double portable_exp(double x) {
  constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;  // exact sum: ln 2
  constexpr double kInverseLn2 = 1.44269504088896340735992468100189;
  constexpr int kSmallest = -1022;
  if (!(x > kSmallest / kInverseLn2)) return 0.0;
  const double k = std::nearbyint(x * kInverseLn2);
  const double r = (x - k * kLn2High) - k * kLn2Low;
  double series = 1.0;
  for (int n = 14; n >= 1; --n) series = 1.0 + series * r / n;  // the next term is below 1e-18
  return std::ldexp(series, static_cast<int>(k));
}

}  // namespace mcit
