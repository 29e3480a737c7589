#pragma once
/// Second moments of a stream of vectors, the subspaces that hold most of their energy, and projections onto
/// and away from them. Everything in float64 on the CPU; memory is O(d²) whatever the number of vectors.

#include <string>
#include <utility>

#include "mcit/parts/state_reader.hpp"

namespace mcit::parts {

/// C = (1/n) Σ h hᵀ of vectors that arrive in any number of portions.
class MCIT_EXPORT SecondMoment {
 public:
  explicit SecondMoment(std::int64_t width);
  void add(const Tensor& rows);  ///< [N, d]
  Tensor mean() const;           ///< C, [d, d]; zero before the first row
  std::int64_t rows() const { return rows_; }
  std::int64_t width() const { return sum_.size(0); }

 private:
  Tensor sum_;
  std::int64_t rows_ = 0;
};

/// Eigenvalues (σ², descending, not below 0) and eigenvectors (columns) of a symmetric second moment.
MCIT_EXPORT std::pair<Tensor, Tensor> spectrum(const Tensor& moment);

/// The leading directions of `moment` that hold at least the share `energy` of its trace, Σ_{i≤k} σ_i² / Σ
/// σ_i² ≥ energy. @return [d, k], orthonormal columns; no column for a zero moment
MCIT_EXPORT Tensor core_subspace(const Tensor& moment, double energy);

/// Gradient Projection Memory's rule (Saha et al. 2021) on second moments: what `moment` has outside of
/// span(basis) is added direction by direction until basis and additions together hold the share `energy` of
/// its trace. Thresholds are shares of σ², not of σ⁴.
/// @param basis [d, k], orthonormal, k may be 0; @return [d, k' ≥ k], orthonormal, the first k columns
/// unchanged
MCIT_EXPORT Tensor grown_subspace(const Tensor& basis, const Tensor& moment, double energy);

/// Orthonormal basis of span((I − old oldᵀ) wanted). Directions shorter than `tolerance` are taken for zero.
MCIT_EXPORT Tensor outside_subspace(const Tensor& wanted, const Tensor& old, double tolerance = 1e-8);

/// Rows projected onto span(basis): x Q Qᵀ, in the type of x.
MCIT_EXPORT Tensor project_onto(const Tensor& x, const Tensor& basis);
/// Rows without what lies in span(basis): x − x Q Qᵀ, in the type of x.
MCIT_EXPORT Tensor project_off(const Tensor& x, const Tensor& basis);

}  // namespace mcit::parts
