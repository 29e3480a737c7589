#include "mcit/parts/subspace.hpp"

#include <ATen/core/grad_mode.h>

#include "mcit/errors.hpp"

namespace mcit::parts {
namespace {

/// The fewest leading values that reach `wanted`.
std::int64_t leading(const Tensor& values, double wanted) {
  double sum = 0.0;
  for (std::int64_t k = 0; k < values.size(0); ++k) {
    if (sum >= wanted) return k;
    sum += values[k].item<double>();
  }
  return values.size(0);
}

Tensor without(const Tensor& moment, const Tensor& basis) {
  const Tensor left = moment - basis.mm(basis.t().mm(moment));
  return left - left.mm(basis).mm(basis.t());
}

}  // namespace

SecondMoment::SecondMoment(std::int64_t width)
    : sum_(at::zeros({width, width}, at::TensorOptions(at::kDouble))) {}

void SecondMoment::add(const Tensor& rows) {
  if (rows.dim() != 2 || rows.size(1) != width())
    throw Error("second moment", "takes rows of width " + std::to_string(width()));
  const at::NoGradGuard no_grad;
  const Tensor wide = rows.detach().to(at::kCPU, at::kDouble);
  sum_.addmm_(wide.t(), wide);
  rows_ += rows.size(0);
}

Tensor SecondMoment::mean() const { return rows_ == 0 ? sum_.clone() : sum_ / static_cast<double>(rows_); }

std::pair<Tensor, Tensor> spectrum(const Tensor& moment) {
  const auto [values, vectors] = at::linalg_eigh(moment);
  return {values.flip(0).clamp_min(0.0), vectors.flip(1)};
}

Tensor core_subspace(const Tensor& moment, double energy) {
  return grown_subspace(moment.new_zeros({moment.size(0), 0}), moment, energy);
}

Tensor grown_subspace(const Tensor& basis, const Tensor& moment, double energy) {
  const double total = moment.trace().item<double>();
  if (!(total > 0.0)) return basis;
  const Tensor rest = basis.size(1) == 0 ? moment : without(moment, basis);
  const auto [values, vectors] = spectrum(rest);
  const double held = total - rest.trace().item<double>();
  const std::int64_t room = basis.size(0) - basis.size(1);
  const std::int64_t more = std::min(room, leading(values, energy * total - held));
  if (more == 0) return basis;
  // Eigenvectors of the rest are orthogonal to the basis up to rounding, which tasks would add up.
  Tensor fresh = vectors.narrow(1, 0, more);
  for (int pass = 0; pass < 2; ++pass) fresh = fresh - basis.mm(basis.t().mm(fresh));
  return at::cat({basis, std::get<0>(at::linalg_qr(fresh))}, 1);
}

Tensor outside_subspace(const Tensor& wanted, const Tensor& old, double tolerance) {
  Tensor rest = wanted;
  for (int pass = 0; pass < 2; ++pass) rest = rest - old.mm(old.t().mm(rest));
  if (rest.size(1) == 0) return rest;
  const auto [u, s, v] = at::linalg_svd(rest, false);
  const std::int64_t rank = (s > tolerance).sum().item<std::int64_t>();
  Tensor basis = u.narrow(1, 0, rank);
  basis = basis - old.mm(old.t().mm(basis));
  return rank == 0 ? basis : std::get<0>(at::linalg_qr(basis));
}

Tensor project_onto(const Tensor& x, const Tensor& basis) {
  const Tensor q = basis.to(x.device(), at::kDouble);
  return at::mm(at::mm(x.to(at::kDouble), q), q.t()).to(x.scalar_type());
}

Tensor project_off(const Tensor& x, const Tensor& basis) {
  const Tensor q = basis.to(x.device(), at::kDouble), wide = x.to(at::kDouble);
  return (wide - at::mm(at::mm(wide, q), q.t())).to(x.scalar_type());
}

}  // namespace mcit::parts
