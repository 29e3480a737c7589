// The optimizers, clipping and the schedule against their formulas, written out.
#include "train/optimizer.hpp"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <numbers>

#include "mcit/errors.hpp"

#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include "torch_catch.hpp"

namespace mcit::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

Tensor normal(at::IntArrayRef shape, std::uint64_t seed, at::ScalarType type = at::kFloat) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kDouble))
      .to(type);
}

double worst(const Tensor& a, const Tensor& b) {
  return (a.detach().to(at::kDouble) - b.detach().to(at::kDouble)).abs().max().item<double>();
}

/// Two adapters, a connector and a base tensor, in this order; the last one does not train.
Parameters four(at::ScalarType type = at::kFloat) {
  Parameters out = {{"a", normal({4, 3}, 1, type), "adapter"},
                    {"b", normal({5}, 2, type), "adapter"},
                    {"c", normal({2, 6}, 3, type), "connector"},
                    {"frozen", normal({3}, 4, type), "adapter"}};
  for (std::size_t i = 0; i < 3; ++i) out[i].value.set_requires_grad(true);
  return out;
}

/// The gradient of parameter `i` at `step`, the same whoever asks.
Tensor gradient(const Parameter& p, std::size_t i, int step) {
  return normal(p.value.sizes(), 100 + 10 * static_cast<std::uint64_t>(step) + i, p.value.scalar_type()) *
         (1.0 + step % 3);
}

void give_gradients(const Parameters& parameters, int step, bool skip_b = false) {
  for (std::size_t i = 0; i < parameters.size(); ++i)
    parameters[i].value.mutable_grad() =
        skip_b && parameters[i].name == "b" ? Tensor() : gradient(parameters[i], i, step);
}

/// Algorithm 2 of Loshchilov and Hutter 2019, "Decoupled weight decay regularization", in float64; decay as
/// in torch.optim.AdamW, times the learning rate.
struct Reference {
  Tensor value, m, v;
  int t = 0;
  void step(const Tensor& gradient, double rate, const AdamWOptions& o) {
    const Tensor g = gradient.to(at::kDouble);
    ++t;
    value = value * (1.0 - rate * o.weight_decay);
    m = o.beta1 * m + (1.0 - o.beta1) * g;
    v = o.beta2 * v + (1.0 - o.beta2) * g * g;
    const Tensor m_hat = m / (1.0 - std::pow(o.beta1, t)), v_hat = v / (1.0 - std::pow(o.beta2, t));
    value = value - rate * m_hat / (v_hat.sqrt() + o.eps);
  }
};

}  // namespace

TEST_CASE("AdamW follows its formula for twenty steps, each group at its own rate") {
  const AdamWOptions options{.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1};
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    INFO(at::toString(type));
    const Parameters parameters = four(type);
    std::vector<Reference> references;
    for (const Parameter& p : parameters) {
      const Tensor zero = at::zeros_like(p.value.detach(), at::kDouble);
      references.push_back({p.value.detach().to(at::kDouble).clone(), zero, zero});
    }
    AdamW adam(parameters, options);
    REQUIRE(adam.parameters().size() == 3);
    for (int step = 0; step < 20; ++step) {
      const double rate = 1e-2 / (1.0 + step), connector = 3e-3;
      const bool skip_b = step % 4 == 2;
      give_gradients(adam.parameters(), step, skip_b);
      adam.step({{"adapter", rate}, {"connector", connector}, {"prompt", 1.0}});
      for (std::size_t i = 0; i < 3; ++i)
        if (!(skip_b && i == 1))
          references[i].step(gradient(parameters[i], i, step), i == 2 ? connector : rate, options);
    }
    const double tolerance = type == at::kDouble ? 1e-12 : 1e-6;
    const StateDict state = adam.state();
    for (std::size_t i = 0; i < 4; ++i) {
      INFO(parameters[i].name);
      CHECK(worst(parameters[i].value, references[i].value) < tolerance);
      if (i == 3) continue;
      CHECK(worst(state.at(parameters[i].name + ".exp_avg"), references[i].m) < tolerance);
      CHECK(worst(state.at(parameters[i].name + ".exp_avg_sq"), references[i].v) < 4 * tolerance);
      CHECK(state.at(parameters[i].name + ".step").item<double>() == references[i].t);
    }
    CHECK(references[1].t == 15);
    CHECK(state.size() == 9);
    CHECK(worst(parameters[0].value, four(type)[0].value) > 1e-2);
  }
}

TEST_CASE("a parameter without a gradient keeps value and moments to the bit") {
  const Parameters parameters = four();
  AdamW adam(parameters, {.weight_decay = 0.1});
  give_gradients(adam.parameters(), 0);
  adam.step({{"adapter", 1e-2}});
  const Tensor value = parameters[1].value.detach().clone(), m = adam.state().at("b.exp_avg").clone(),
               v = adam.state().at("b.exp_avg_sq").clone(), a = parameters[0].value.detach().clone();
  adam.zero_grad();
  CHECK_FALSE(parameters[0].value.grad().defined());
  give_gradients(adam.parameters(), 1, true);
  adam.step({{"adapter", 1e-2}});
  CHECK(at::equal(parameters[1].value.detach(), value));
  CHECK(at::equal(adam.state().at("b.exp_avg"), m));
  CHECK(at::equal(adam.state().at("b.exp_avg_sq"), v));
  CHECK(adam.state().at("b.step").item<float>() == 1.0F);
  CHECK_FALSE(at::equal(parameters[0].value.detach(), a));
}

TEST_CASE("an optimizer that takes up a saved state goes on to the bit") {
  const std::map<std::string, double> rates = {{"adapter", 1e-2}, {"connector", 3e-3}};
  const Parameters whole = four();
  AdamW one(whole, {.weight_decay = 0.01});
  Parameters resumed;
  StateDict saved;
  for (int step = 0; step < 10; ++step) {
    if (step == 5) {
      for (const auto& [name, tensor] : one.state()) saved[name] = tensor.clone();
      for (const Parameter& p : whole)
        resumed.push_back(
            {p.name, p.value.detach().clone().set_requires_grad(p.value.requires_grad()), p.group});
    }
    give_gradients(one.parameters(), step);
    one.step(rates);
  }
  AdamW two(resumed, {.weight_decay = 0.01});
  two.load_state(saved);
  for (const auto& [name, tensor] : two.state()) CHECK(at::equal(tensor, saved.at(name)));
  for (int step = 5; step < 10; ++step) {
    give_gradients(two.parameters(), step);
    two.step(rates);
  }
  for (std::size_t i = 0; i < 4; ++i) CHECK(at::equal(resumed[i].value, whole[i].value));
  for (const auto& [name, tensor] : two.state()) CHECK(at::equal(tensor, one.state().at(name)));

  StateDict lacking = saved;
  lacking.erase("b.exp_avg_sq");
  CHECK_THROWS_MATCHES(two.load_state(lacking), CheckpointError,
                       MessageMatches(ContainsSubstring("b.exp_avg_sq: is missing")));
  saved["a.exp_avg"] = at::zeros({3, 4});
  CHECK_THROWS_MATCHES(two.load_state(saved), CheckpointError,
                       MessageMatches(ContainsSubstring("a.exp_avg: has another shape")));
}

TEST_CASE("a bfloat16 parameter follows a float32 one, however small the updates") {
  const Tensor begin = normal({6, 4}, 7).to(at::kBFloat16);
  Parameters narrow = {{"p", begin.clone().set_requires_grad(true), "adapter"}},
             wide = {{"p", begin.to(at::kFloat).set_requires_grad(true), "adapter"}};
  AdamW ours(narrow, {}), theirs(wide, {});
  AdamW resumed(narrow, {});
  for (int step = 0; step < 50; ++step) {
    const Tensor gradient = normal({6, 4}, 100 + static_cast<std::uint64_t>(step)).abs().to(at::kBFloat16);
    if (step == 20) resumed.load_state(ours.state());
    narrow[0].value.mutable_grad() = gradient.clone();
    wide[0].value.mutable_grad() = gradient.to(at::kFloat);
    (step < 20 ? ours : resumed).step({{"adapter", 1e-5}});  // far below bfloat16's steps of 2^-9
    theirs.step({{"adapter", 1e-5}});
    INFO("step " << step);
    REQUIRE(at::equal(narrow[0].value.detach(), wide[0].value.detach().to(at::kBFloat16)));
  }
  CHECK_FALSE(at::equal(narrow[0].value.detach(), begin));
  CHECK(at::equal(resumed.state().at("p.master"), wide[0].value.detach()));

  // A strategy moves the parameter: the master goes along.
  {
    const at::NoGradGuard no_grad;
    narrow[0].value.zero_();
  }
  narrow[0].value.mutable_grad() = at::zeros_like(begin);
  resumed.step({{"adapter", 0.0}});
  CHECK(narrow[0].value.detach().abs().max().item<float>() < 1e-2F);
}

TEST_CASE("Muon's update is the momentum's orthogonal factor, singular values near one") {
  // Jordan et al. 2024: the quintic iteration with (3.4445, -4.7750, 2.0315) takes singular values into
  // [0.7, 1.2]; update = orthogonalise(g + momentum * buffer) * sqrt(max(1, rows / columns)), buffer =
  // momentum * buffer + g.
  for (const auto& shape : {std::vector<std::int64_t>{6, 40}, {40, 6}, {24, 24}}) {
    INFO(shape[0] << " x " << shape[1]);
    Parameters parameters = {{"w", normal(shape, 1).set_requires_grad(true), "base"}};
    Muon muon(parameters, {.momentum = 0.95});
    Tensor buffer = at::zeros(shape, at::kDouble);
    const double scale =
        std::sqrt(std::max(1.0, static_cast<double>(shape[0]) / static_cast<double>(shape[1])));
    for (int step = 0; step < 4; ++step) {
      const Tensor before = parameters[0].value.detach().clone();
      give_gradients(parameters, step);
      const Tensor g = parameters[0].value.grad().to(at::kDouble);
      muon.step(0.02);
      buffer = 0.95 * buffer + g;
      const Tensor update = (before - parameters[0].value.detach()).to(at::kDouble) / (0.02 * scale);
      const auto [u, s, vh] = at::linalg_svd(g + 0.95 * buffer, false);
      const Tensor singular = at::linalg_svdvals(update);
      // The iteration needs more than five steps for values below a hundredth of the largest.
      CHECK(singular.max().item<double>() < 1.25);
      if (shape[0] != shape[1]) CHECK(singular.min().item<double>() > 0.65);
      // In the basis of the momentum's singular vectors the update is diagonal and positive.
      const Tensor inside = at::mm(u.t(), at::mm(update, vh.t())), diagonal = inside.diagonal();
      CHECK(worst(inside, at::diag(diagonal)) < 1e-3);
      CHECK(diagonal.min().item<double>() > 0.0);
      CHECK(worst(muon.state().at("w.momentum"), buffer) < 1e-4);
    }
  }
}

TEST_CASE("Muon's decay shrinks the value by learning rate times decay, beside the update") {
  // Liu et al. 2025 (Muon is scalable), eq. 3: W <- W - lr (O + decay W)
  Parameters plain = {{"w", normal({5, 7}, 1).set_requires_grad(true), "base"}},
             decayed = {{"w", normal({5, 7}, 1).set_requires_grad(true), "base"}};
  const Tensor start = plain[0].value.detach().clone();
  Muon one(plain, {}), two(decayed, {.weight_decay = 0.5});
  give_gradients(plain, 0);
  give_gradients(decayed, 0);
  one.step(0.02);
  two.step(0.02);
  CHECK(worst(plain[0].value.detach() - 0.01 * start, decayed[0].value.detach()) < 1e-6);
}

TEST_CASE("Muon's state goes on to the bit, and a matrix without a gradient stays") {
  Parameters whole = {{"w", normal({5, 7}, 1).set_requires_grad(true), "base"}}, resumed;
  Muon one(whole, {});
  StateDict saved;
  for (int step = 0; step < 4; ++step) {
    if (step == 2) {
      for (const auto& [name, tensor] : one.state()) saved[name] = tensor.clone();
      resumed.push_back({"w", whole[0].value.detach().clone().set_requires_grad(true), "base"});
    }
    give_gradients(whole, step);
    one.step(0.02);
  }
  Muon two(resumed, {});
  two.load_state(saved);
  for (int step = 2; step < 4; ++step) {
    give_gradients(resumed, step);
    two.step(0.02);
  }
  CHECK(at::equal(whole[0].value, resumed[0].value));
  two.zero_grad();
  two.step(0.02);
  CHECK(at::equal(whole[0].value, resumed[0].value));
  CHECK(at::equal(two.state().at("w.momentum"), one.state().at("w.momentum")));
  CHECK_THROWS_AS(two.load_state({}), CheckpointError);
}

TEST_CASE("clipping scales all gradients by limit / (norm + 1e-6)") {
  // torch.nn.utils.clip_grad_norm_: the coefficient, and nothing at all below the limit.
  const Parameters parameters = four();
  give_gradients(parameters, 0, true);
  double sum = 0.0;
  std::vector<Tensor> before;
  for (const Parameter& p : parameters) {
    before.push_back(p.value.grad().defined() ? p.value.grad().clone() : Tensor());
    if (before.back().defined()) sum += before.back().to(at::kDouble).square().sum().item<double>();
  }
  const double norm = std::sqrt(sum);
  REQUIRE(norm > 1.0);
  const auto unchanged = [&] {
    for (std::size_t i = 0; i < 4; ++i)
      if (before[i].defined() && !at::equal(parameters[i].value.grad(), before[i])) return false;
    return true;
  };
  CHECK(std::abs(clip_gradients(parameters, 0.0) - norm) < 1e-5);
  CHECK(unchanged());
  CHECK(std::abs(clip_gradients(parameters, 100.0) - norm) < 1e-5);
  CHECK(unchanged());
  CHECK(std::abs(clip_gradients(parameters, 0.5) - norm) < 1e-5);  // the norm before
  for (std::size_t i = 0; i < 4; ++i)
    if (before[i].defined())
      CHECK(worst(parameters[i].value.grad(), before[i] * (0.5 / (norm + 1e-6))) < 1e-6);
  CHECK_FALSE(parameters[1].value.grad().defined());
  CHECK(std::abs(clip_gradients(parameters, 0.0) - 0.5) < 1e-5);
  CHECK(clip_gradients({}, 1.0) == 0.0);
  parameters[0].value.mutable_grad()[0][0] = std::numeric_limits<float>::quiet_NaN();
  CHECK(std::isnan(clip_gradients(parameters, 1.0)));
}

TEST_CASE("the learning rate follows transformers' schedules step for step") {
  // transformers/optimization.py 5.23.0: _get_cosine_schedule_with_warmup_lr_lambda,
  // _get_linear_schedule_with_warmup_lr_lambda and _get_constant_schedule_with_warmup_lr_lambda.
  for (const auto& [warmup, total] : {std::pair{0, 1}, {0, 20}, {3, 20}, {20, 20}, {7, 200}})
    for (int step = 0; step < total; ++step) {
      INFO("warm-up " << warmup << ", step " << step << " of " << total);
      const double up = static_cast<double>(step) / std::max(1, warmup),
                   progress = static_cast<double>(step - warmup) / std::max(1, total - warmup);
      const double cosine =
          step < warmup ? up : std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * progress)));
      const double linear =
          step < warmup ? up : std::max(0.0, static_cast<double>(total - step) / std::max(1, total - warmup));
      CHECK(std::abs(schedule_factor("cosine", step, warmup, total) - cosine) < 1e-12);
      CHECK(std::abs(schedule_factor("linear", step, warmup, total) - linear) < 1e-12);
      CHECK(schedule_factor("constant", step, warmup, total) == (step < warmup ? up : 1.0));
    }
  CHECK_THROWS_AS(schedule_factor("step", 5, 0, 10), ConfigError);
}

TEST_CASE("behind its last step the linear schedule stays at zero, as transformers' does") {
  CHECK(schedule_factor("linear", 20, 3, 20) == 0.0);
  CHECK(schedule_factor("linear", 21, 3, 20) == 0.0);
}

}  // namespace mcit::test
