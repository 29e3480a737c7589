#include "slot_adapter.hpp"

#include <torch/types.h>

#include <utility>

namespace mcit::disco {

SlotAdapter::SlotAdapter(const Site& site, const parts::LoraOptions& options, double scale,
                         std::shared_ptr<const Activation> activation, const at::Generator& generator)
    : options_(options),
      scale_(scale),
      activation_(std::move(activation)),
      a_(parts::initial_down(site, options, generator)),
      b_(at::zeros({site.out(), options.rank}, parts::adapter_options(site)).set_requires_grad(true)) {}

SlotAdapter::~SlotAdapter() = default;

Tensor SlotAdapter::mix(const Tensor& z, const Tensor&, RouteContext& route, const std::string& site) const {
  if (!activation_->subspaces()) return z * scale_;
  Tensor weights;
  if (route.rows.decoding) {
    weights = route.memo.at(site);
  } else {
    weights = activation_->weights.to(z.device());
    route.memo[site] = weights;
  }
  const Tensor gate = (weights.index_select(0, route.rows.sequence) * scale_).to(z.scalar_type());
  const std::int64_t subspaces = gate.size(1);
  return (z.view({z.size(0), subspaces, -1}) * gate.unsqueeze(-1)).flatten(1);
}

void SlotAdapter::set_subspaces(const std::vector<Tensor>& downs, const std::vector<Tensor>& ups) {
  all_down_ = downs.empty() ? Tensor() : at::cat(downs).to(a_.options().requires_grad(false));
  all_up_ = ups.empty() ? Tensor() : at::cat(ups, 1).to(b_.options().requires_grad(false));
}

}  // namespace mcit::disco
