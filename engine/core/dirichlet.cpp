#include "core/dirichlet.hpp"

#include <algorithm>

#include "core/portable_math.hpp"

namespace mcit {
namespace {

/// ln of a Gamma(shape, 1) variate.
double log_gamma_variate(Rng& rng, double shape) {
  if (shape < 1.0) {
    const double u = 1.0 - rng.uniform();  // (0, 1]
    return log_gamma_variate(rng, shape + 1.0) + portable_log(u) / shape;
  }
  const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = rng.normal(), root = 1.0 + c * x;
    if (root <= 0.0) continue;
    const double v = root * root * root, u = 1.0 - rng.uniform();
    if (portable_log(u) < 0.5 * x * x + d - d * v + d * portable_log(v)) return portable_log(d * v);
  }
}

}  // namespace

std::vector<double> dirichlet(Rng& rng, std::span<const double> alpha) {
  std::vector<double> out;
  for (const double shape : alpha) out.push_back(log_gamma_variate(rng, shape));
  if (out.empty()) return out;
  const double most = *std::max_element(out.begin(), out.end());
  double sum = 0.0;
  for (double& x : out) sum += x = portable_exp(x - most);
  for (double& x : out) x /= sum;
  return out;
}

std::vector<double> dirichlet(Rng& rng, std::size_t size, double alpha) {
  return dirichlet(rng, std::vector<double>(size, alpha));
}

}  // namespace mcit
