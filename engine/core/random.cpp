#include "core/random.hpp"

#include <cmath>

namespace mcit {
namespace {

/// Natural logarithm from additions, multiplications and divisions alone, which IEEE 754 fixes to the last
/// bit. x = m 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh((m-1)/(m+1)).
double portable_log(double x) {
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

}  // namespace

double Rng::normal() {
  // Marsaglia's polar method. The second number of the pair is dropped, so that the state is the counter
  // alone.
  for (;;) {
    const double u = 2.0 * uniform() - 1.0;
    const double v = 2.0 * uniform() - 1.0;
    const double s = u * u + v * v;
    if (s > 0.0 && s < 1.0) return u * std::sqrt(-2.0 * portable_log(s) / s);
  }
}

}  // namespace mcit
