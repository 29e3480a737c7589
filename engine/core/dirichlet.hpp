#pragma once
/// Draws from the Dirichlet distribution, with the same bits everywhere.

#include <span>
#include <vector>

#include "core/random.hpp"

namespace mcit {

/// A point of the simplex. @param alpha positive; as small as 1e-3 does no harm
/// Gamma variates by Marsaglia and Tsang (2000), below 1 through G(a) = G(a+1) U^(1/a), in logarithms.
std::vector<double> dirichlet(Rng& rng, std::span<const double> alpha);
std::vector<double> dirichlet(Rng& rng, std::size_t size, double alpha);  ///< symmetric

}  // namespace mcit
