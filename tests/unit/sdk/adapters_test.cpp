// LoRA and the expert mixture against the equations they state, in float64 where a rounding error could hide
// a fault.
#include <cstring>

#include "mcit/errors.hpp"
#include "mcit/parts/expert_mixture.hpp"
#include "unit/strategies/fake_backbone.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using namespace mcit::parts;

namespace {

constexpr std::int64_t kIn = 16, kOut = 10, kRows = 7;

Tensor normal(at::IntArrayRef shape, std::uint64_t seed, at::ScalarType type = at::kDouble) {
  return at::randn(shape, fake::generator(seed), at::TensorOptions(at::kDouble)).to(type);
}

MixtureOptions experts(std::int64_t count) { return {.experts = count}; }

Site make_site(at::ScalarType type = at::kDouble) {
  return Site("block.q_proj", normal({kOut, kIn}, 1, type), normal({kOut}, 2, type));
}

/// Gives B values, so that the adapter does something.
void fill_up(const Adapter& adapter, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  adapter.up().copy_(normal(adapter.up().sizes(), seed));
}

Tensor output(const Site& site, const Tensor& x) {
  RouteContext route;
  return fake::site_output(site, x, route);
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  const Tensor x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.nbytes() == y.nbytes() && x.scalar_type() == y.scalar_type() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

double worst(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace

TEST_CASE("a fresh adapter leaves the output's bytes alone") {
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    Site site = make_site(type);
    const Tensor x = normal({kRows, kIn}, 3, type), before = output(site, x);
    site.attach("lora",
                std::make_shared<Lora>(site, LoraOptions{.rank = 4, .alpha = 8.0}, fake::generator(4)));
    CHECK(same_bytes(output(site, x), before));
    site.attach("moe", std::make_shared<ExpertMixture>(
                           site, experts(4), LoraOptions{.rank = 8, .alpha = 16.0}, fake::generator(5)));
    CHECK(same_bytes(output(site, x), before));
  }
}

TEST_CASE("LoRA is W + s B A, with either scale") {
  for (const bool rs : {false, true}) {
    Site site = make_site();
    const LoraOptions options{.rank = 4, .alpha = 6.0, .rs_lora = rs};
    CHECK(options.scale() == (rs ? 3.0 : 1.5));
    const auto lora = std::make_shared<Lora>(site, options, fake::generator(4));
    fill_up(*lora, 6);
    site.attach("lora", lora);
    const Tensor x = normal({kRows, kIn}, 3);
    const Tensor whole = site.weight() + options.scale() * at::mm(lora->up(), lora->down());
    CHECK(worst(output(site, x), at::linear(x, whole, site.bias())) < 1e-12);
    CHECK(worst(lora->delta(), whole - site.weight()) < 1e-12);
  }
}

TEST_CASE("A starts as PEFT or CoIN draws it, B at zero, from the generator alone") {
  const Site site("wide", at::zeros({8, 400}));
  const Lora kaiming(site, {.rank = 50}, fake::generator(4)), again(site, {.rank = 50}, fake::generator(4)),
      other(site, {.rank = 50}, fake::generator(5));
  CHECK(same_bytes(kaiming.down(), again.down()));
  CHECK_FALSE(same_bytes(kaiming.down(), other.down()));
  const double bound = 1.0 / 20.0;  // 1 / sqrt(400), Kaiming-uniform with a = sqrt(5)
  const double largest = kaiming.down().abs().max().item<double>();
  CHECK(largest <= bound);
  CHECK(largest > 0.99 * bound);
  CHECK(std::abs(kaiming.down().std().item<double>() / (bound / std::sqrt(3.0)) - 1.0) < 0.02);
  const Lora gaussian(site, {.rank = 50, .init = "gaussian", .init_std = 0.01}, fake::generator(4));
  CHECK(std::abs(gaussian.down().std().item<double>() / 0.01 - 1.0) < 0.02);
  CHECK(kaiming.up().count_nonzero().item<std::int64_t>() == 0);
  CHECK(kaiming.down().requires_grad());
  CHECK(kaiming.up().requires_grad());
}

TEST_CASE("adapters are float32 beside any base but a float64 one") {
  for (const auto& [base, expected] : {std::pair{at::kDouble, at::kDouble}, std::pair{at::kFloat, at::kFloat},
                                       std::pair{at::kBFloat16, at::kFloat}}) {
    const Site site = make_site(base);
    const ExpertMixture mixture(site, experts(2), {.rank = 4}, fake::generator(1));
    for (const Parameter& p : mixture.parameters()) CHECK(p.value.scalar_type() == expected);
  }
}

TEST_CASE("merging equals the adapter, and its end restores every byte") {
  // float32: outputs reach 5 in size, one rounding of which is 4e-7; the order of sums differs
  for (const auto& [type, tolerance] : {std::pair{at::kDouble, 1e-12}, std::pair{at::kFloat, 5e-6}}) {
    Site site = make_site(type);
    const auto lora = std::make_shared<Lora>(site, LoraOptions{.rank = 4, .alpha = 8.0}, fake::generator(4));
    fill_up(*lora, 6);
    site.attach("lora", lora);
    const Tensor x = normal({kRows, kIn}, 3, type), adapted = output(site, x), weight = site.weight().clone();
    {
      const MergedLora merged(site, "lora");
      CHECK(site.active().empty());
      CHECK_FALSE(same_bytes(site.weight(), weight));
      CHECK(worst(output(site, x), adapted) < tolerance);
    }
    CHECK(same_bytes(site.weight(), weight));
    CHECK(same_bytes(output(site, x), adapted));
    site.attach(
        "moe", std::make_shared<ExpertMixture>(site, experts(2), LoraOptions{.rank = 4}, fake::generator(5)));
    CHECK_THROWS_AS(MergedLora(site, "moe"), Error);
  }
}

TEST_CASE("one expert is LoRA") {
  for (const at::ScalarType type : {at::kDouble, at::kFloat}) {
    Site plain = make_site(type), mixed = make_site(type);
    const LoraOptions options{.rank = 4, .alpha = 6.0};
    const auto lora = std::make_shared<Lora>(plain, options, fake::generator(4));
    const auto mixture = std::make_shared<ExpertMixture>(mixed, experts(1), options, fake::generator(4));
    CHECK(same_bytes(lora->down(), mixture->down()));
    fill_up(*lora, 6);
    fill_up(*mixture, 6);
    plain.attach("a", lora);
    mixed.attach("a", mixture);
    const Tensor x = normal({kRows, kIn}, 3, type);
    CHECK(same_bytes(output(plain, x), output(mixed, x)));
  }
}

TEST_CASE("gates sum to one, also for large and for low-precision logits") {
  const Tensor logits = normal({kRows, 8}, 3) * 50.0;
  for (const at::ScalarType type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const Tensor gates = ExpertMixture::gates(logits.to(type));
    CHECK(worst(gates.sum(-1), at::ones({kRows})) < (type == at::kDouble ? 1e-14 : 1e-6));
    CHECK(gates.min().item<double>() >= 0.0);
    CHECK(gates.scalar_type() == (type == at::kDouble ? at::kDouble : at::kFloat));
  }
}

TEST_CASE("settings of LoRA and their bounds") {
  const auto read = [](std::map<std::string, Params::Value> values) {
    return LoraOptions::read(Params(std::move(values)));
  };
  CHECK(read({}).rank == 16);
  CHECK(read({}).scale() == 2.0);  // alpha = 2·rank, as in CoIN's family of scripts
  CHECK(read({{"rank", std::int64_t{64}}}).alpha == 128.0);
  CHECK(read({{"rank", std::int64_t{64}}, {"alpha", std::int64_t{16}}}).scale() == 0.25);
  for (const auto& [key, value] : std::map<std::string, Params::Value>{{"rank", std::int64_t{0}},
                                                                       {"alpha", 0.0},
                                                                       {"dropout", 1.0},
                                                                       {"dropout", -0.1},
                                                                       {"init", std::string("xavier")},
                                                                       {"init_std", -1.0}})
    CHECK_THROWS_AS(read({{key, value}}), ConfigError);
}

TEST_CASE("parameter counts of LLaVA-1.5-7B, nothing allocated") {
  // 32 blocks of width 4096 and inner width 11008; rank 128, 8 experts; projector 1024 -> 4096 -> 4096 with
  // biases. CoIN reports 350 M for MoELoRA; the exact sum is worked out in plugins/moe_lora/README.md.
  const std::int64_t d = 4096, f = 11008, projector = 1024 * d + d + d * d + d;
  const LoraOptions options{.rank = 128, .alpha = 256.0};
  std::int64_t lora = 0, mixture = 0;
  for (const auto& [in, out] : {std::pair{d, d}, {d, d}, {d, d}, {d, d}, {d, f}, {d, f}, {f, d}}) {
    lora += 32 * Lora::count(in, out, options);
    mixture += 32 * ExpertMixture::count(in, out, experts(8), options);
  }
  CHECK(lora == 319'815'680);
  CHECK(mixture - lora == 9'109'504);  // routers
  CHECK(mixture + projector == 349'904'896);

  const auto held = [](const Adapter& adapter) {
    std::int64_t total = 0;
    for (const Parameter& p : adapter.parameters()) total += p.value.numel();
    return total;
  };
  const LoraOptions small{.rank = 6};
  CHECK(held(Lora(make_site(), small, fake::generator(1))) == Lora::count(kIn, kOut, small));
  CHECK(held(ExpertMixture(make_site(), experts(3), small, fake::generator(1))) ==
        ExpertMixture::count(kIn, kOut, experts(3), small));
}
