// LoRA and the expert mixture: one low-rank product, scaled or gated.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "mcit/errors.hpp"
#include "mcit/parts/expert_mixture.hpp"
#include "mcit/parts/lora.hpp"

namespace mcit::parts {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The layout of z [N, E·q] beside gates [N, E]; rows of z may lie apart, as in a slice of a wider product.
struct Shape {
  std::int64_t rows, experts, width;
};

/// out[n, e·q + j] = gate[n, e] · z[n, e·q + j]
void scale_experts(const float* z, std::int64_t stride, const float* gate, float* out, std::int64_t begin,
                   std::int64_t end, const Shape& shape) {
  for (std::int64_t n = begin; n < end; ++n) {
    const float *zn = z + n * stride, *gn = gate + n * shape.experts;
    float* on = out + n * shape.experts * shape.width;
    for (std::int64_t e = 0; e < shape.experts; ++e)
      for (std::int64_t j = 0; j < shape.width; ++j)
        on[e * shape.width + j] = gn[e] * zn[e * shape.width + j];
  }
}

/// Gradient of the logits through gate = s·p, p = softmax(logits): with t_e = Σ_j dv·z over expert e,
/// dlogit_e = s·p_e·(t_e − Σ_i p_i·t_i) = gate_e·(t_e − Σ_i gate_i·t_i / s).
void router_gradient(const float* z, std::int64_t stride, const float* gate, const float* dv, float* dlogit,
                     float scale, std::int64_t begin, std::int64_t end, const Shape& shape) {
  const std::int64_t rank = shape.experts * shape.width;
  for (std::int64_t n = begin; n < end; ++n) {
    const float *zn = z + n * stride, *gn = gate + n * shape.experts, *vn = dv + n * rank;
    float* dn = dlogit + n * shape.experts;
    float mean = 0.0F;
    for (std::int64_t e = 0; e < shape.experts; ++e) {
      float dot = 0.0F;
      for (std::int64_t j = e * shape.width; j < (e + 1) * shape.width; ++j) dot += vn[j] * zn[j];
      dn[e] = dot;
      mean += gn[e] * dot;
    }
    mean /= scale;
    for (std::int64_t e = 0; e < shape.experts; ++e) dn[e] = gn[e] * (dn[e] - mean);
  }
}

constexpr std::int64_t kGrain = 512;  // rows for which a second thread pays

Tensor gate_rows(const Tensor& z, const Tensor& gate) {
  const Shape shape{z.size(0), gate.size(1), z.size(1) / gate.size(1)};
  Tensor out = at::empty({z.size(0), z.size(1)}, z.options());
  const float *pz = z.const_data_ptr<float>(), *pg = gate.const_data_ptr<float>();
  float* po = out.data_ptr<float>();
  const std::int64_t stride = z.stride(0);
  at::parallel_for(0, shape.rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    scale_experts(pz, stride, pg, po, begin, end, shape);
  });
  return out;
}

/// v = (s·softmax(logits)) ⊙ z per expert, for float32 on the CPU: three passes over N·r numbers in all.
struct GateExperts : torch::autograd::Function<GateExperts> {
  static Tensor forward(AutogradContext* ctx, const Tensor& z, const Tensor& logits, double scale) {
    const Tensor gate = ExpertMixture::gates(logits).mul_(scale);
    ctx->save_for_backward({z, gate});
    ctx->saved_data["scale"] = scale;
    return gate_rows(z, gate);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &z = saved[0], &gate = saved[1], dv = grads[0].contiguous();
    Tensor dz, dlogits;
    if (ctx->needs_input_grad(0)) dz = gate_rows(dv, gate);
    if (ctx->needs_input_grad(1)) {
      dlogits = at::empty_like(gate);
      const Shape shape{z.size(0), gate.size(1), z.size(1) / gate.size(1)};
      const float *pz = z.const_data_ptr<float>(), *pg = gate.const_data_ptr<float>(),
                  *pv = dv.const_data_ptr<float>();
      float* pd = dlogits.data_ptr<float>();
      const auto scale = static_cast<float>(ctx->saved_data["scale"].toDouble());
      const std::int64_t stride = z.stride(0);
      at::parallel_for(0, shape.rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
        router_gradient(pz, stride, pg, pv, pd, scale, begin, end, shape);
      });
    }
    return {dz, dlogits, Tensor()};
  }
};

Tensor zero_up(const Site& site, std::int64_t rank) {
  return at::zeros({site.out(), rank}, adapter_options(site)).set_requires_grad(true);
}

/// Drawn in float32 on the CPU whatever the device, so that a seed means the same numbers everywhere.
Tensor drawn(const Site& site, std::int64_t rows, double deviation, bool normal,
             const at::Generator& generator) {
  Tensor values = at::empty({rows, site.in()}, at::TensorOptions(at::kFloat));
  if (normal)
    values.normal_(0.0, deviation, generator);
  else
    values.uniform_(-deviation, deviation, generator);
  return values.to(adapter_options(site)).set_requires_grad(true);
}

double linear_bound(const Site& site) { return 1.0 / std::sqrt(static_cast<double>(site.in())); }

void require(bool holds, const char* key, const std::string& what) {
  if (!holds) throw ConfigError(std::string("strategy.") + key, what);
}

}  // namespace

LoraOptions LoraOptions::read(const Params& params) {
  LoraOptions o;
  o.rank = params.integer("rank", o.rank);
  require(o.rank >= 1, "rank", "must be at least 1");
  o.alpha = params.number("alpha", 2.0 * static_cast<double>(o.rank));
  require(std::isfinite(o.alpha) && o.alpha > 0.0, "alpha", "must be positive");
  o.rs_lora = params.flag("rs_lora", o.rs_lora);
  o.dropout = params.number("dropout", o.dropout);
  require(o.dropout >= 0.0 && o.dropout < 1.0, "dropout", "must be at least 0 and less than 1");
  o.init = params.choice("init", o.init, {"kaiming", "gaussian"});
  o.init_std = params.number("init_std", o.init_std);
  require(std::isfinite(o.init_std) && o.init_std > 0.0, "init_std", "must be positive");
  return o;
}

double LoraOptions::scale() const {
  const auto r = static_cast<double>(rank);
  return alpha / (rs_lora ? std::sqrt(r) : r);
}

at::TensorOptions adapter_options(const Site& site) {
  return site.weight()
      .options()
      .dtype(site.weight().scalar_type() == at::kDouble ? at::kDouble : at::kFloat)
      .requires_grad(false);
}

Tensor initial_down(const Site& site, const LoraOptions& options, const at::Generator& generator) {
  const bool normal = options.init == "gaussian";
  return drawn(site, options.rank, normal ? options.init_std : linear_bound(site), normal, generator);
}

Lora::Lora(const Site& site, const LoraOptions& options, const at::Generator& generator)
    : options_(options),
      scale_(options.scale()),
      a_(initial_down(site, options, generator)),
      b_(zero_up(site, options.rank)) {}

Lora::~Lora() = default;

Tensor Lora::mix(const Tensor& z, const Tensor&, RouteContext&, const std::string&) const {
  return scale_ == 1.0 ? z : z * scale_;
}

Tensor Lora::delta() const {
  const at::NoGradGuard no_grad;
  return at::mm(b_.detach(), a_.detach()).mul_(scale_);
}

MergedLora::MergedLora(Site& site, const std::string& adapter_name)
    : site_(site), adapter_name_(adapter_name) {
  const auto lora = std::dynamic_pointer_cast<Lora>(site.adapter(adapter_name));
  if (!lora)
    throw Error(site.name(), "has no LoRA named '" + adapter_name + "'",
                "other adapters depend on the input and cannot be merged");
  const at::NoGradGuard no_grad;
  Tensor weight = site.weight().detach();
  original_ = weight.clone();
  weight.copy_(weight.to(lora->down().scalar_type()) +
               lora->delta());  // rounded once, also for a bfloat16 base
  site_.set_active(adapter_name_, false);
}

MergedLora::~MergedLora() {
  const at::NoGradGuard no_grad;
  site_.weight().detach().copy_(original_);
  site_.set_active(adapter_name_, true);
}

ExpertMixture::ExpertMixture(const Site& site, std::int64_t experts, const LoraOptions& options,
                             const at::Generator& generator)
    : experts_(experts), options_(options) {
  require(experts >= 1, "experts", "must be at least 1");
  require(options.rank % experts == 0, "rank",
          std::to_string(options.rank) + " is no multiple of the " + std::to_string(experts) +
              " experts that share it");
  a_ = initial_down(site, options, generator);
  b_ = zero_up(site, options.rank);
  r_ = drawn(site, experts, linear_bound(site), false, generator);
}

ExpertMixture::~ExpertMixture() = default;

Tensor ExpertMixture::gates(const Tensor& logits) {
  return at::softmax(logits, -1, logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

Tensor ExpertMixture::mix(const Tensor& z, const Tensor& logits, RouteContext&, const std::string&) const {
  const double scale = options_.scale();
  if (z.is_cpu() && z.scalar_type() == at::kFloat && z.stride(1) == 1) {
    if (at::GradMode::is_enabled()) return GateExperts::apply(z, logits, scale);
    return gate_rows(z, gates(logits).mul_(scale));
  }
  const Tensor gate = (gates(logits) * scale).to(z.scalar_type());
  return (z.view({z.size(0), experts_, -1}) * gate.unsqueeze(-1)).view({z.size(0), z.size(1)});
}

}  // namespace mcit::parts
