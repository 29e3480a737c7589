#pragma once
/// The best approximation of a product of matrices by a product of fewer columns.

#include <cstdint>
#include <span>
#include <vector>

namespace mcit::fed {

/// Two factors, row-major: left [rows, inner], right [inner, columns].
struct Factors {
  std::int64_t rows = 0, inner = 0, columns = 0;
  std::vector<double> left, right;
};

struct LowRank {
  Factors factors;    ///< inner = the rank asked for, padded with zeros where the product has less
  double lost = 0.0;  ///< ‖M - left right‖_F / ‖M‖_F
};

/// The factors of rank <= `rank` nearest to M = left right in the Frobenius norm (Eckart, Young 1936),
/// without forming M: QR of both sides, SVD of what is between. Singular values are shared between the sides;
/// the sign of each pair makes the left one's largest entry positive.
LowRank low_rank(const Factors& product, std::int64_t rank);

}  // namespace mcit::fed
