#include "core/random.hpp"

#include <cmath>

#include "core/portable_math.hpp"

namespace mcit {

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
