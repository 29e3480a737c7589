// LoRA: a low-rank product, scaled.
#include "mcit/parts/lora.hpp"

#include <cmath>

#include "draw.hpp"
#include "mcit/errors.hpp"

namespace mcit::parts {
namespace {

Tensor drawn(std::int64_t in, std::int64_t rows, double deviation, bool normal,
             const at::TensorOptions& options, const at::Generator& generator) {
  Tensor values = at::empty({rows, in}, at::TensorOptions(at::kFloat));
  if (normal)
    values.normal_(0.0, deviation, generator);
  else
    values.uniform_(-deviation, deviation, generator);
  return values.to(options).set_requires_grad(true);
}

double linear_bound(std::int64_t in) { return 1.0 / std::sqrt(static_cast<double>(in)); }

}  // namespace

Tensor drawn_rows(std::int64_t in, std::int64_t rows, const at::TensorOptions& options,
                  const at::Generator& generator) {
  return drawn(in, rows, linear_bound(in), false, options, generator);
}

Tensor zero_up(const Site& site, std::int64_t width) {
  return at::zeros({site.out(), width}, adapter_options(site)).set_requires_grad(true);
}

void require(bool holds, const char* key, const std::string& what, const std::string& hint) {
  if (!holds) throw ConfigError(std::string("strategy.") + key, what, hint);
}

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
  return drawn(site.in(), options.rank, normal ? options.init_std : linear_bound(site.in()), normal,
               adapter_options(site), generator);
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

}  // namespace mcit::parts
