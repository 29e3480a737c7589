#pragma once
/// The operations a decoder step is made of, each with a hand-written backward that saves only what it needs.
/// On float32 CPU tensors they run as plain loops; everywhere else (double, CUDA, bf16) as the ATen
/// composition that defines them, under ordinary autograd. Both give the same numbers up to the rounding of
/// reordered sums.

#include <optional>
#include <span>
#include <vector>

#include "mcit/backbone.hpp"

namespace mcit::kernels {

/// x · rsqrt(mean(x²) + eps) · weight over the last dimension; statistics in float32, cast back before the
/// product.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);

/// silu(gate) · up, where [gate | up] are the two halves of x's last dimension. x: [N, 2f] -> [N, f]
Tensor swiglu(const Tensor& gate_up);

/// Rotary positions on halves (feature i pairs with i + head_dim / 2), applied to the first `heads` heads of
/// each row.
/// @param x [N, heads_total * head_dim]; @param angles [N, head_dim / 2] float32. Returns x itself where that
/// is safe.
Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, std::int64_t heads,
              std::int64_t head_dim);

Tensor activation(const std::string& name, const Tensor& x);

/// The linear layers of sites that read the same input, side by side, with all their active adapters:
///
///     y_j = x W_jᵀ + b_j + Σ_a mix_a(drop(x) down_aᵀ, x route_aᵀ) up_aᵀ
///
/// While no W_j is trained, the base is one product with `fused`, x is not kept for it, and each adapter is
/// added into the output in place.
/// @param fused [Σ out_j, in], the weights of `sites` stacked, sharing their storage; @return [N, Σ out_j]
Tensor site_linear(const Tensor& x, std::span<Site* const> sites, const Tensor& fused,
                   const Tensor& fused_bias, RouteContext& route, bool training);

/// Causal attention over packed rows. q: [N, heads, d], k and v: [N, kv_heads, d] -> [N, heads * d]
Tensor packed_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<std::int64_t>& lengths);

}  // namespace mcit::kernels
