#include "federate/stacked_factors.hpp"

#include <torch/torch.h>

#include "federate/tensors.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/lora.hpp"

namespace mcit {
namespace {

constexpr const char *kName = "stacked", *kA = "lora_A.weight", *kB = "lora_B.weight";

class FrozenProduct final : public Adapter {
 public:
  FrozenProduct(Tensor a, Tensor b, double scale) : a_(std::move(a)), b_(std::move(b)), scale_(scale) {}
  Tensor down() const override { return a_; }
  Tensor up() const override { return b_; }
  Tensor mix(const Tensor& z, const Tensor&, RouteContext&, const std::string&) const override {
    return z * scale_;
  }
  Parameters parameters() const override { return {}; }

 private:
  Tensor a_, b_;
  double scale_;
};

}  // namespace

struct StackedFactors::Place {
  Site* site = nullptr;
  double scale = 1.0;
  fed::Array a, b;  ///< as they were put there
};

StackedFactors::StackedFactors(Backbone& backbone) {
  for (Site* site : backbone.sites("all"))
    for (const AdapterPtr& adapter : site->active())
      if (const auto lora = std::dynamic_pointer_cast<parts::Lora>(adapter)) {
        auto place = std::make_unique<Place>();
        place->site = site;
        place->scale = lora->options().scale();
        places_[site->name() + "."] = std::move(place);
      }
}

StackedFactors::~StackedFactors() = default;

std::string StackedFactors::objection(const fed::Arrays& model) const {
  for (const auto& [key, array] : model) {
    if (!key.starts_with(kPrefix)) continue;
    const std::string name = key.substr(std::string(kPrefix).size());
    const bool a = name.ends_with(kA), b = name.ends_with(kB);
    const auto place =
        a || b ? places_.find(name.substr(0, name.size() - std::string(a ? kA : kB).size())) : places_.end();
    if (place == places_.end()) return "'" + name + "' is no factor of a LoRA";
    const auto other = model.find(kPrefix + place->first + (a ? kB : kA));
    const Site& site = *place->second->site;
    if (other == model.end() || array.shape.size() != 2 || other->second.shape.size() != 2 ||
        array.shape[a ? 1 : 0] != (a ? site.in() : site.out()) ||
        array.shape[a ? 0 : 1] != other->second.shape[a ? 1 : 0] || !fed::is_float(array.dtype))
      return "'" + key + "' is not of its site's shape";
  }
  return {};
}

void StackedFactors::load(const fed::Arrays& model) {
  if (const std::string why = objection(model); !why.empty()) throw DataError("model", why);
  for (auto& [prefix, place] : places_) {
    const auto a = model.find(kPrefix + prefix + kA);
    const auto b = model.find(kPrefix + prefix + kB);
    const fed::Array none;
    const fed::Array &next_a = a == model.end() ? none : a->second,
                     &next_b = b == model.end() ? none : b->second;
    if (next_a == place->a && next_b == place->b) continue;
    if (!place->a.bytes.empty()) place->site->detach(kName);
    if (!next_a.bytes.empty()) {
      const at::TensorOptions options = parts::adapter_options(*place->site);
      const auto tensor = [&](const fed::Array& array) {
        Tensor out = at::empty(array.shape, options);
        copy_into(array, out);
        return out;
      };
      place->site->attach(kName,
                          std::make_shared<FrozenProduct>(tensor(next_a), tensor(next_b), place->scale));
    }
    place->a = next_a;
    place->b = next_b;
  }
}

std::int64_t StackedFactors::size() const {
  std::size_t total = 0;
  for (const auto& [prefix, place] : places_) total += place->a.size() + place->b.size();
  return static_cast<std::int64_t>(total);
}

}  // namespace mcit
