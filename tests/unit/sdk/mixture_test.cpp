// Members of the family of expert mixtures against loops over experts, rows and tasks, in float64.
#include <algorithm>
#include <cstring>

#include "mcit/errors.hpp"
#include "mcit/parts/expert_mixture.hpp"
#include "unit/strategies/fake_backbone.hpp"

#include "torch_catch.hpp"

using namespace mcit;
using namespace mcit::parts;

namespace {

constexpr std::int64_t kIn = 16, kOut = 10;

Tensor normal(at::IntArrayRef shape, std::uint64_t seed, at::ScalarType type = at::kDouble) {
  return at::randn(shape, fake::generator(seed), at::TensorOptions(at::kDouble)).to(type);
}

Site make_site(at::ScalarType type = at::kDouble) {
  return Site("block.q_proj", normal({kOut, kIn}, 1, type), normal({kOut}, 2, type));
}

Tensor longs(const std::vector<std::int64_t>& values) { return at::tensor(values, at::kLong); }

/// Three sequences of 3, 4 and 2 rows whose prompts take 2, 2 and 1; tasks 0, 1 and 0.
RouteContext three_sequences() {
  RouteContext route;
  route.task = {0, 1, 0};
  route.rows = {longs({0, 0, 0, 1, 1, 1, 1, 2, 2}),
                longs({0, 1, 2, 0, 1, 2, 3, 0, 1}),
                longs({0, 3, 7}),
                longs({2, 6, 8}),
                longs({1, 4, 7}),
                {3, 4, 2}};
  return route;
}
constexpr std::int64_t kRows = 9;

void fill_up(const ExpertMixture& mixture, std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (const Parameter& p : mixture.parameters())
    if (p.name.starts_with("lora_B")) Tensor(p.value).copy_(normal(p.value.sizes(), seed++));
}

double worst(const Tensor& a, const Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  const Tensor x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.nbytes() == y.nbytes() && std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

/// What row n's router reads, by the definition of each pool.
Tensor pooled_row(const Tensor& x, Reads reads, const RowLayout& rows, std::int64_t n) {
  if (reads == Reads::own_row) return x[n];
  const std::int64_t b = rows.sequence[n].item<std::int64_t>(), first = rows.first[b].item<std::int64_t>(),
                     end = rows.last_prompt[b].item<std::int64_t>();
  if (reads == Reads::first_row) return x[first];
  if (reads == Reads::last_prompt_row) return x[end];
  return x.narrow(0, first, end - first + 1).mean(0);
}

/// y of each row: its own task's router, the k largest logits, one expert after another.
Tensor loop_output(const Site& site, const ExpertMixture& mixture, const Tensor& x,
                   const RouteContext& route) {
  const MixtureOptions& o = mixture.mixture();
  const std::int64_t width = mixture.width(), k = o.top_k == 0 ? o.experts : o.top_k;
  const Tensor up = mixture.up();
  std::vector<Tensor> rows;
  for (std::int64_t n = 0; n < x.size(0); ++n) {
    const std::int64_t task =
        route.task[static_cast<std::size_t>(route.rows.sequence[n].item<std::int64_t>())];
    const Tensor router = mixture.routers().empty() ? mixture.route(route) : mixture.routers().at(task);
    const Tensor logits = at::mv(router, pooled_row(x, o.reads, route.rows, n));
    std::vector<std::int64_t> order(static_cast<std::size_t>(logits.size(0)));
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
    std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
      return logits[a].item<double>() > logits[b].item<double>();
    });
    Tensor y = at::mv(site.weight(), x[n]) + site.bias(), total = at::zeros({}, x.options());
    const Tensor all = at::softmax(logits, 0);
    for (std::int64_t i = 0; i < k; ++i) total = total + all[order[static_cast<std::size_t>(i)]];
    for (std::int64_t i = 0; i < k; ++i) {
      const std::int64_t e = order[static_cast<std::size_t>(i)];
      const Tensor a = o.shared_down ? mixture.down() : mixture.down().narrow(0, e * width, width);
      const Tensor gate = o.renormalize ? all[e] / total : all[e];
      y = y + mixture.options().scale() * gate * at::mv(up.narrow(1, e * width, width), at::mv(a, x[n]));
    }
    rows.push_back(y);
  }
  return at::stack(rows);
}

std::vector<Tensor> gradients(const Tensor& y, const ExpertMixture& mixture) {
  (y * normal(y.sizes(), 7)).sum().backward();
  std::vector<Tensor> out;
  for (const Parameter& p : mixture.parameters()) {
    out.push_back(p.value.grad().defined() ? p.value.grad().clone() : at::zeros_like(p.value));
    p.value.mutable_grad().reset();
  }
  return out;
}

}  // namespace

TEST_CASE("every member of the family equals the loop over rows and experts, in value and gradient") {
  for (const bool shared : {false, true})
    for (const std::int64_t top_k : {0, 1, 2})
      for (const bool renormalize : {true, false})
        for (const Reads reads :
             {Reads::own_row, Reads::first_row, Reads::last_prompt_row, Reads::prompt_mean})
          for (const std::int64_t routers : {0, 2}) {
            INFO("shared " << shared << " top_k " << top_k << " renorm " << renormalize << " reads "
                           << static_cast<int>(reads) << " routers " << routers);
            Site site = make_site();
            const MixtureOptions o{.experts = 4,
                                   .shared_down = shared,
                                   .top_k = top_k,
                                   .renormalize = renormalize,
                                   .reads = reads,
                                   .separate_up = shared};
            const auto mixture = std::make_shared<ExpertMixture>(
                site, o, LoraOptions{.rank = 12, .alpha = 24.0}, fake::generator(4));
            for (std::int64_t t = 0; t < routers; ++t)
              mixture->add_router(t, -1, fake::generator(static_cast<std::uint64_t>(20 + t)));
            fill_up(*mixture, 6);
            site.attach("moe", mixture);
            RouteContext route = three_sequences();
            const Tensor x = normal({kRows, kIn}, 3);
            const Tensor fused = fake::site_output(site, x, route),
                         loop = loop_output(site, *mixture, x, route);
            CHECK(worst(fused, loop) < 1e-12);
            const std::vector<Tensor> f = gradients(fused, *mixture), l = gradients(loop, *mixture);
            for (std::size_t i = 0; i < l.size(); ++i) CHECK(worst(f[i], l[i]) < 1e-12);
          }
}

TEST_CASE("top-k gates: k of them, summing to one when renormalized, else the softmax's own") {
  const Tensor logits = normal({50, 8}, 3) * 3.0, all = at::softmax(logits, -1);
  for (const std::int64_t k : {1, 2, 7}) {
    const Tensor shared = ExpertMixture::gates(logits, k, true), own = ExpertMixture::gates(logits, k, false);
    CHECK((shared > 0).sum(-1).eq(k).all().item<bool>());
    CHECK(worst(shared.sum(-1), at::ones({50})) < 1e-14);
    CHECK(worst(own, at::where(shared > 0, all, at::zeros_like(all))) < 1e-15);
  }
  CHECK(same_bytes(ExpertMixture::gates(logits, 8, true), ExpertMixture::gates(logits)));
}

TEST_CASE("the float32 kernel equals its definition in float64, backward included") {
  const LoraOptions options{.rank = 12, .alpha = 30.0};
  for (const bool shared : {false, true}) {
    const MixtureOptions o{.experts = 4, .shared_down = shared, .top_k = shared ? 2 : 0};
    const ExpertMixture narrow(make_site(at::kFloat), o, options, fake::generator(4)),
        wide(make_site(), o, options, fake::generator(4));
    // z and logits as a site hands them over: columns of one wider product, 700 rows so that two threads may
    // share them
    const auto run = [&](const ExpertMixture& mixture, at::ScalarType type) {
      Tensor product = normal({700, 20}, 8, type).set_requires_grad(true);
      const Tensor z = product.narrow(1, 3, shared ? 3 : 12), logits = product.narrow(1, 16, 4) * 3.0;
      RouteContext route;
      Tensor v = mixture.mix(z, logits, route, "site");
      (v * normal({700, 12}, 9, type)).sum().backward();
      const at::NoGradGuard no_grad;
      CHECK(same_bytes(mixture.mix(z, logits, route, "site"), v));
      return std::pair{v, product.grad()};
    };
    const auto [v, grad] = run(narrow, at::kFloat);
    const auto [reference, reference_grad] = run(wide, at::kDouble);
    CHECK(worst(v, reference) < 2e-5);
    CHECK(worst(grad, reference_grad) < 1e-4);
    CHECK(reference_grad.abs().max().item<double>() > 1.0);
  }
}

TEST_CASE("a router that reads one row a sequence decides at prefill, and decoding keeps to it") {
  const at::NoGradGuard no_grad;
  for (const Reads reads : {Reads::first_row, Reads::last_prompt_row, Reads::prompt_mean}) {
    Site site = make_site();
    const auto mixture = std::make_shared<ExpertMixture>(
        site, MixtureOptions{.experts = 4, .shared_down = true, .top_k = 2, .reads = reads},
        LoraOptions{.rank = 12}, fake::generator(4));
    fill_up(*mixture, 6);
    site.attach("moe", mixture);
    RouteContext route = three_sequences();
    const Tensor x = normal({kRows, kIn}, 3);
    fake::site_output(site, x, route);
    const Tensor decided = route.memo.at(site.name());
    CHECK(decided.sizes() == at::IntArrayRef({3, 4}));
    RouteContext next = route;
    const Tensor each = longs({0, 1, 2});
    next.rows = {each, longs({3, 4, 2}), each, each, each, {1, 1, 1}, true};
    const Tensor row = normal({3, kIn}, 5), z = at::linear(row, mixture->down());
    const Tensor v = mixture->mix(z, {}, next, site.name());
    CHECK(worst(v, (decided.unsqueeze(-1) * mixture->options().scale() * z.unsqueeze(1)).flatten(1)) < 1e-14);
  }
}

TEST_CASE("a batch of several tasks gives each sequence what it gets alone") {
  const at::NoGradGuard no_grad;
  Site site = make_site();
  const auto mixture = std::make_shared<ExpertMixture>(
      site, MixtureOptions{.experts = 4, .shared_down = true, .top_k = 2, .reads = Reads::first_row},
      LoraOptions{.rank = 12}, fake::generator(4));
  for (std::int64_t t = 0; t < 3; ++t)
    mixture->add_router(t, -1, fake::generator(static_cast<std::uint64_t>(t)));
  fill_up(*mixture, 6);
  site.attach("moe", mixture);
  RouteContext together = three_sequences();
  together.task = {2, 0, -1};  // unknown: the newest router, task 2's
  const Tensor x = normal({kRows, kIn}, 3), y = fake::site_output(site, x, together);
  std::int64_t row = 0;
  for (const std::int64_t task : {2, 0, 2}) {
    const std::int64_t length = together.rows.lengths[static_cast<std::size_t>(task == 0  ? 1
                                                                               : row == 0 ? 0
                                                                                          : 2)];
    RouteContext alone;
    alone.task = {task};
    alone.rows = {at::zeros({length}, at::kLong),
                  at::arange(length, at::kLong),
                  longs({0}),
                  longs({length - 1}),
                  longs({0}),
                  {length}};
    CHECK(worst(fake::site_output(site, x.narrow(0, row, length), alone), y.narrow(0, row, length)) < 1e-13);
    row += length;
  }
  CHECK(row == kRows);
}

TEST_CASE("a new expert changes nothing until it is trained, and earlier tasks' routers never choose it") {
  constexpr double kRounding = 1e-13;  // more columns: another order of the sums on some processors
  Site site = make_site();
  const auto mixture = std::make_shared<ExpertMixture>(
      site,
      MixtureOptions{
          .experts = 2, .shared_down = true, .top_k = 2, .reads = Reads::first_row, .separate_up = true},
      LoraOptions{.rank = 6}, fake::generator(4));
  mixture->add_router(0, -1, fake::generator(1));
  fill_up(*mixture, 6);
  site.attach("moe", mixture);
  RouteContext route = three_sequences();
  route.task = {0, 0, 0};
  const Tensor x = normal({kRows, kIn}, 3), before = fake::site_output(site, x, route).detach();
  mixture->add_expert(fake::generator(2));
  CHECK(mixture->experts() == 3);
  CHECK(mixture->up().sizes() == at::IntArrayRef({kOut, 9}));
  CHECK(worst(fake::site_output(site, x, route), before) < kRounding);
  {
    const at::NoGradGuard no_grad;
    mixture->expert_up(2).copy_(normal({kOut, 3}, 9));
  }
  CHECK(worst(fake::site_output(site, x, route), before) < kRounding);
  mixture->add_router(1, 0, fake::generator(3));  // starts as task 0's, with a fresh row for the new expert
  CHECK(mixture->routers().at(1).sizes() == at::IntArrayRef({3, kIn}));
  CHECK(same_bytes(mixture->routers().at(1).narrow(0, 0, 2), mixture->routers().at(0)));
  route.task = {0, 1, 0};
  const Tensor mixed = fake::site_output(site, x, route);
  CHECK(worst(mixed.narrow(0, 0, 3), before.narrow(0, 0, 3)) < kRounding);
  CHECK_THROWS_AS(mixture->add_router(1, -1, fake::generator(3)), Error);
  ExpertMixture stacked(make_site(), MixtureOptions{.experts = 2}, LoraOptions{.rank = 4},
                        fake::generator(1));
  CHECK_THROWS_AS(stacked.add_expert(fake::generator(1)), Error);
}

TEST_CASE("usage sums the gates of what was routed, and its table gives shares") {
  const at::NoGradGuard no_grad;
  const Site site = make_site();
  for (const Reads reads : {Reads::own_row, Reads::first_row}) {
    const auto mixture =
        std::make_shared<ExpertMixture>(site, MixtureOptions{.experts = 4, .top_k = 2, .reads = reads},
                                        LoraOptions{.rank = 4}, fake::generator(4));
    RouteContext route = three_sequences();
    const Tensor x = normal({kRows, kIn}, 3), input = router_input(x, reads, route.rows);
    const Tensor logits = at::linear(input, mixture->route(route));
    mixture->mix(at::linear(x, mixture->down()), logits, route, "a");  // not counted
    mixture->count_usage(true);
    for (int i = 0; i < 2; ++i) mixture->mix(at::linear(x, mixture->down()), logits, route, "a");
    mixture->count_usage(false);
    mixture->mix(at::linear(x, mixture->down()), logits, route, "a");
    CHECK(worst(mixture->usage(), 2.0 * ExpertMixture::gates(logits, 2).sum(0)) < 1e-12);
    const std::vector<std::shared_ptr<ExpertMixture>> all = {mixture};
    const StageTable table = usage_table({"a"}, all);
    CHECK_NOTHROW(check_table("experts", table));
    double total = 0.0;
    for (const double share : table.values[0]) total += share;
    CHECK(std::abs(total - 100.0) < 1e-9);
  }
}

TEST_CASE("the balance loss is 1 for even use and the number of experts for a single one") {
  const Tensor even = at::eye(4, at::TensorOptions(at::kDouble)) * 1e-6 + 0.25;  // first places are spread
  CHECK(std::abs(balance_loss(even, 1).item<double>() - 1.0) < 1e-5);
  Tensor one = at::zeros({6, 4}, at::TensorOptions(at::kDouble));
  one.select(1, 2).fill_(1.0);
  CHECK(balance_loss(one, 1).item<double>() == 4.0);
  // f of the top two, P of all: worked out by hand from the three rows
  const Tensor shares = at::tensor({0.5, 0.3, 0.2, 0.1, 0.6, 0.3, 0.7, 0.2, 0.1}, at::kDouble).view({3, 3});
  const double f[3] = {2.0 / 6.0, 3.0 / 6.0, 1.0 / 6.0}, p[3] = {1.3 / 3.0, 1.1 / 3.0, 0.6 / 3.0};
  CHECK(std::abs(balance_loss(shares, 2).item<double>() - 3.0 * (f[0] * p[0] + f[1] * p[1] + f[2] * p[2])) <
        1e-12);
}

TEST_CASE("settings of a mixture and their bounds") {
  const auto read = [](std::map<std::string, Params::Value> values) {
    return MixtureOptions::read(Params(std::move(values)), {});
  };
  CHECK(read({}).experts == 8);
  CHECK(read({}).top_k == 0);
  CHECK(read({{"pool", std::string("first")}}).reads == Reads::first_row);
  CHECK(read({{"pool", std::string("mean_prompt")}}).reads == Reads::prompt_mean);
  CHECK_THROWS_AS(read({{"pool", std::string("last")}}), ConfigError);
  const LoraOptions rank8{.rank = 8};
  CHECK_NOTHROW(read({{"top_k", std::int64_t{8}}}).check(rank8));
  CHECK_THROWS_AS(read({{"top_k", std::int64_t{9}}}).check(rank8), ConfigError);
  CHECK_THROWS_AS(read({{"top_k", std::int64_t{-1}}}).check(rank8), ConfigError);
  CHECK_THROWS_AS(read({{"experts", std::int64_t{3}}}).check(rank8), ConfigError);
  CHECK_THROWS_AS(read({{"experts", std::int64_t{0}}}).check(rank8), ConfigError);
}

TEST_CASE("parameter count of BranchLoRA in LLaVA-1.5-7B, nothing allocated") {
  // 32 blocks of width 4096 and inner width 11008, total rank 128, 8 branches, one router; projector 1024 ->
  // 4096 -> 4096 with biases. The paper reports 222 M; plugins/branch_lora/README.md works the sum out.
  const std::int64_t d = 4096, f = 11008, projector = 1024 * d + d + d * d + d;
  const LoraOptions options{.rank = 128, .alpha = 256.0};
  const MixtureOptions branch{.experts = 8, .shared_down = true, .top_k = 2};
  std::int64_t total = projector;
  for (const auto& [in, out] : {std::pair{d, d}, {d, d}, {d, d}, {d, d}, {d, f}, {d, f}, {f, d}})
    total += 32 * ExpertMixture::count(in, out, branch, options);
  CHECK(total == 222'371'840);

  const LoraOptions small{.rank = 6};
  MixtureOptions three{.experts = 3, .shared_down = true, .top_k = 2, .separate_up = true};
  ExpertMixture mixture(make_site(), three, small, fake::generator(1));
  mixture.add_router(0, -1, fake::generator(1));
  mixture.add_router(1, -1, fake::generator(1));
  std::int64_t held = 0;
  for (const Parameter& p : mixture.parameters()) held += p.value.numel();
  CHECK(held == ExpertMixture::count(kIn, kOut, three, small, 2));
}
