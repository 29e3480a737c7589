// Stacked products beside a LoRA, in double precision: y = W x + s B A x + s B' A' x, whatever was there
// before.
#include "federate/stacked_factors.hpp"
#include "federate/tensors.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/lora.hpp"
#include "unit/strategies/fake_backbone.hpp"

#include "torch_catch.hpp"

using namespace mcit;

namespace {

constexpr const char *kA = ".lora_A.weight", *kB = ".lora_B.weight";

Tensor drawn(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, fake::generator(seed), at::TensorOptions(at::kDouble));
}

void put(fed::Arrays& model, const Site& site, std::int64_t rank, std::uint64_t seed) {
  model["stack/" + site.name() + kA] = array_of_tensor(drawn({rank, site.in()}, seed));
  model["stack/" + site.name() + kB] = array_of_tensor(drawn({site.out(), rank}, seed + 1));
}

}  // namespace

TEST_CASE("stacked factors add their product with the LoRA's own scale, and are replaced by the next ones") {
  const at::NoGradGuard no_grad;
  fake::FakeBackbone backbone;
  parts::LoraOptions options;
  options.rank = 2;
  options.alpha = 3.0;
  std::vector<Site*> sites = backbone.sites("decoder");
  for (Site* site : sites) {
    const auto lora = std::make_shared<parts::Lora>(*site, options, fake::generator(3));
    lora->up().copy_(drawn(lora->up().sizes(), 4));
    site->attach("lora", lora);
  }
  StackedFactors stack(backbone);
  Site& site = *sites[1];
  const Tensor x = drawn({5, site.in()}, 6);
  RouteContext route;
  const Tensor alone = fake::site_output(site, x, route),
               other = fake::site_output(*sites[0], drawn({5, sites[0]->in()}, 7), route);
  for (const std::int64_t rank : {3, 7, 0, 1}) {
    INFO(rank);
    fed::Arrays model;
    put(model, site, rank, static_cast<std::uint64_t>(100 + rank));
    CHECK(stack.objection(model).empty());
    stack.load(model);
    CHECK(stack.size() == rank * (site.in() + site.out()));
    const Tensor a = drawn({rank, site.in()}, static_cast<std::uint64_t>(100 + rank)),
                 b = drawn({site.out(), rank}, static_cast<std::uint64_t>(101 + rank));
    const Tensor expected = alone + 1.5 * at::mm(x, at::mm(b, a).t());
    CHECK((fake::site_output(site, x, route) - expected).abs().max().item<double>() < 1e-12);
  }
  CHECK(fake::site_output(*sites[0], drawn({5, sites[0]->in()}, 7), route).equal(other));
  stack.load({});
  CHECK(fake::site_output(site, x, route).equal(alone));
}

TEST_CASE("stacked factors that fit no LoRA are refused, and nothing changes") {
  fake::FakeBackbone backbone;
  Site& site = *backbone.sites("decoder").front();
  fed::Arrays model;
  put(model, site, 2, 1);
  CHECK(StackedFactors(backbone).objection(model).find("no factor of a LoRA") != std::string::npos);
  site.attach("lora", std::make_shared<parts::Lora>(site, parts::LoraOptions{}, fake::generator(1)));
  StackedFactors stack(backbone);
  CHECK(stack.objection(model).empty());
  fed::Arrays half = model;
  half.erase("stack/" + site.name() + kA);
  fed::Arrays wide = model;
  wide["stack/" + site.name() + kA] = array_of_tensor(drawn({2, site.in() + 1}, 1));
  for (const fed::Arrays& wrong : {half, wide}) {
    CHECK(stack.objection(wrong).find("not of its site's shape") != std::string::npos);
    CHECK_THROWS_AS(stack.load(wrong), DataError);
    CHECK(stack.size() == 0);
  }
}
