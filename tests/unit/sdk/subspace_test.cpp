// Subspaces and projectors against their algebra, the pool against its definition, in float64.
#include "mcit/parts/subspace.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/prompt_pool.hpp"
#include "unit/strategies/fake_backbone.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using namespace mcit::parts;

namespace {

constexpr std::int64_t kWidth = 12;

Tensor normal(at::IntArrayRef shape, std::uint64_t seed) {
  return at::randn(shape, fake::generator(seed), at::TensorOptions(at::kDouble));
}
double worst(const Tensor& a, const Tensor& b) { return (a - b).abs().max().item<double>(); }
Tensor projector(const Tensor& q) { return q.mm(q.t()); }

/// Rows with standard deviations 1, 1/2, 1/4, … along random orthogonal directions.
Tensor graded(std::int64_t rows, std::uint64_t seed) {
  const Tensor directions = std::get<0>(at::linalg_qr(normal({kWidth, kWidth}, seed)));
  return (normal({rows, kWidth}, seed + 1) * at::pow(0.5, at::arange(kWidth, at::kDouble))).mm(directions);
}

bool orthonormal(const Tensor& q) {
  return q.size(1) == 0 || worst(q.t().mm(q), at::eye(q.size(1), q.options())) < 1e-12;
}

}  // namespace

TEST_CASE("a second moment does not depend on how its rows arrive, nor its size on their number") {
  const Tensor x = graded(100, 1);
  SecondMoment whole(kWidth), parts(kWidth);
  whole.add(x);
  for (const Tensor& part : x.split(7)) parts.add(part.to(at::kFloat).to(at::kDouble) * 0.0 + part);
  CHECK(worst(whole.mean(), x.t().mm(x) / 100.0) < 1e-12);
  CHECK(worst(parts.mean(), whole.mean()) < 1e-12);
  CHECK(parts.rows() == 100);
  CHECK(whole.mean().sizes() == at::IntArrayRef({kWidth, kWidth}));
  CHECK_THROWS_AS(whole.add(normal({3, kWidth + 1}, 1)), Error);
}

TEST_CASE("the core holds the asked share of sigma squared with the fewest directions") {
  const Tensor x = graded(400, 2), c = x.t().mm(x) / 400.0;
  const auto [values, vectors] = spectrum(c);
  CHECK(worst(vectors.mm(at::diag(values)).mm(vectors.t()), c) < 1e-12);
  CHECK((values.diff() <= 0).all().item<bool>());
  for (const double energy : {0.5, 0.75, 0.95, 0.999, 1.0}) {
    const Tensor q = core_subspace(c, energy);
    CHECK(orthonormal(q));
    const double held = (projector(q).mm(c)).trace().item<double>() / c.trace().item<double>();
    CHECK(held >= energy - 1e-12);
    if (q.size(1) > 1) {
      const Tensor fewer = q.narrow(1, 0, q.size(1) - 1);
      CHECK((projector(fewer).mm(c)).trace().item<double>() / c.trace().item<double>() < energy);
    }
  }
  CHECK(core_subspace(at::zeros_like(c), 0.95).size(1) == 0);
  // With a graded spectrum sigma^4 would have asked for fewer: the threshold is of sigma^2.
  const Tensor fourth = values.square().cumsum(0) / values.square().sum();
  CHECK((fourth < 0.97).sum().item<std::int64_t>() + 1 < core_subspace(c, 0.97).size(1));
}

TEST_CASE("a grown subspace keeps its columns, stays orthonormal and reaches the energy of new data") {
  Tensor q = core_subspace(graded(300, 3).t().mm(graded(300, 3)) / 300.0, 0.9);
  for (std::uint64_t task = 0; task < 4; ++task) {
    const Tensor x = graded(200, 10 + task), c = x.t().mm(x) / 200.0;
    const Tensor grown = grown_subspace(q, c, 0.95);
    REQUIRE(grown.size(1) >= q.size(1));
    CHECK(grown.narrow(1, 0, q.size(1)).equal(q));
    CHECK(orthonormal(grown));
    CHECK(projector(grown).mm(c).trace().item<double>() / c.trace().item<double>() >= 0.95 - 1e-10);
    // the rule of GPM: not one direction more than needed
    if (grown.size(1) > q.size(1)) {
      const Tensor fewer = grown.narrow(1, 0, grown.size(1) - 1);
      CHECK(projector(fewer).mm(c).trace().item<double>() / c.trace().item<double>() < 0.95);
    }
    q = grown;
  }
  CHECK(grown_subspace(at::eye(kWidth, at::kDouble), graded(50, 3).t().mm(graded(50, 3)), 1.0).size(1) ==
        kWidth);
}

TEST_CASE(
    "what of one space lies outside of another is a projector's range; two projectors in a row are none") {
  const Tensor old = std::get<0>(at::linalg_qr(normal({kWidth, 4}, 5))),
               known = std::get<0>(at::linalg_qr(normal({kWidth, 6}, 6)));
  const Tensor free = outside_subspace(known, old), p = projector(free);
  CHECK(free.size(1) == 6);
  CHECK(orthonormal(free));
  CHECK(worst(p.mm(p), p) < 1e-12);
  CHECK(worst(p, p.t()) < 1e-15);
  CHECK(old.t().mm(free).abs().max().item<double>() < 1e-13);
  const Tensor residual = at::eye(kWidth, at::kDouble) - projector(old);
  const Tensor sequence = projector(known).mm(residual);
  CHECK(worst(sequence.mm(sequence), sequence) > 1e-3);           // not idempotent
  CHECK(old.t().mm(sequence).abs().max().item<double>() > 1e-3);  // and back in the old space
  CHECK(outside_subspace(old, old).size(1) == 0);
  CHECK(outside_subspace(known, at::zeros({kWidth, 0}, at::kDouble)).size(1) == 6);
  const Tensor x = normal({5, kWidth}, 7);
  CHECK(worst(project_onto(x, free), x.mm(p)) < 1e-13);
  CHECK(worst(project_off(x, old), x.mm(residual)) < 1e-13);
  CHECK(project_off(x.to(at::kFloat), old).scalar_type() == at::kFloat);
}

TEST_CASE(
    "an example draws the prompts whose keys are nearest, the best last; text-only ones by their text") {
  PromptPool pool({.size = 6, .length = 2, .top_k = 3});
  pool.attach(kWidth, 4, at::TensorOptions(at::kDouble), fake::generator(3));
  const Parameters p = pool.parameters();
  REQUIRE(p.size() == 3);
  CHECK(p[0].value.sizes() == at::IntArrayRef({6, 2, kWidth}));
  const auto unit = [](const Tensor& x) { return x / x.norm(2, -1, true); };
  TaskFeatures e{unit(normal({5, 4}, 8)), unit(normal({5, 4}, 9))};
  e.image[2].zero_();
  const Tensor score = e.image.mm(unit(p[1].value).t()) + e.text.mm(unit(p[2].value).t());
  const Tensor chosen = pool.choose(e);
  double by_hand = 0.0;
  for (std::int64_t b = 0; b < 5; ++b) {
    const Tensor order = score[b].argsort(0, true);
    for (std::int64_t i = 0; i < 3; ++i) {
      CHECK(chosen[b][2 - i].item<std::int64_t>() == order[i].item<std::int64_t>());
      by_hand += (b == 2 ? 1.0 : 2.0) - score[b][order[i]].item<double>();
    }
  }
  CHECK(std::abs(pool.key_loss(e, chosen).item<double>() - by_hand / 5.0) < 1e-12);
  const Tensor rows = pool.gather(chosen);
  CHECK(rows.sizes() == at::IntArrayRef({5, 6, kWidth}));
  CHECK(rows[1].narrow(0, 4, 2).equal(p[0].value[chosen[1][2].item<std::int64_t>()]));
  CHECK_THROWS_AS(PoolOptions::read(Params({{"pool", std::int64_t{3}}, {"top_k", std::int64_t{4}}})),
                  ConfigError);
  CHECK_THROWS_AS(PoolOptions::read(Params({{"prompt_length", std::int64_t{0}}})), ConfigError);
}
