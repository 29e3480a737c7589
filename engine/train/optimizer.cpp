#include "train/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

Parameters trainable(Parameters parameters) {
  std::erase_if(parameters, [](const Parameter& p) { return !p.value.requires_grad(); });
  return parameters;
}

void zero_gradients(Parameters& parameters) {
  for (Parameter& p : parameters) p.value.mutable_grad() = Tensor();
}

void restore(const StateDict& state, const std::string& name, Tensor& target) {
  const auto found = state.find(name);
  if (found == state.end())
    throw CheckpointError(name, "is missing from the optimizer state", "the snapshot belongs to another run");
  if (found->second.sizes() != target.sizes())
    throw CheckpointError(name, "has another shape in the optimizer state",
                          "the snapshot belongs to another run");
  target.copy_(found->second);
}

}  // namespace

AdamW::AdamW(Parameters parameters, AdamWOptions options)
    : parameters_(trainable(std::move(parameters))), options_(options) {
  for (const Parameter& p : parameters_) {
    const Tensor value = p.value.detach();
    const bool narrow = value.scalar_type() == at::kBFloat16 || value.scalar_type() == at::kHalf;
    master_.push_back(narrow ? value.to(at::kFloat) : Tensor());
    exp_avg_.push_back(at::zeros_like(narrow ? master_.back() : value));
    exp_avg_sq_.push_back(at::zeros_like(exp_avg_.back()));
    steps_.push_back(at::zeros({}, at::TensorOptions(at::kFloat).device(p.value.device())));
  }
}

void AdamW::step(const std::map<std::string, double>& learning_rate) {
  const at::NoGradGuard no_grad;
  for (const auto& [group, rate] : learning_rate) {
    std::vector<Tensor> values, grads, m, v, steps;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const Parameter& p = parameters_[i];
      if (p.group != group || !p.value.grad().defined()) continue;
      const Tensor value = p.value.detach(), &master = master_[i];
      if (master.defined()) master.add_(value.to(at::kFloat) - master.to(value.scalar_type()).to(at::kFloat));
      values.push_back(master.defined() ? master : value);
      grads.push_back(master.defined() ? p.value.grad().to(at::kFloat) : p.value.grad());
      m.push_back(exp_avg_[i]);
      v.push_back(exp_avg_sq_[i]);
      steps.push_back(steps_[i]);
    }
    if (values.empty()) continue;
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(values, grads, m, v, {}, steps, rate, options_.beta1, options_.beta2,
                      options_.weight_decay, options_.eps, false, false);
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      if (master_[i].defined() && parameters_[i].group == group)
        parameters_[i].value.detach().copy_(master_[i]);
  }
}

void AdamW::zero_grad() { zero_gradients(parameters_); }

StateDict AdamW::state() const {
  StateDict out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    out[parameters_[i].name + ".exp_avg"] = exp_avg_[i];
    out[parameters_[i].name + ".exp_avg_sq"] = exp_avg_sq_[i];
    out[parameters_[i].name + ".step"] = steps_[i];
    if (master_[i].defined()) out[parameters_[i].name + ".master"] = master_[i];
  }
  return out;
}

void AdamW::load_state(const StateDict& state) {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    restore(state, parameters_[i].name + ".exp_avg", exp_avg_[i]);
    restore(state, parameters_[i].name + ".exp_avg_sq", exp_avg_sq_[i]);
    restore(state, parameters_[i].name + ".step", steps_[i]);
    if (master_[i].defined()) restore(state, parameters_[i].name + ".master", master_[i]);
  }
}

Muon::Muon(Parameters parameters, MuonOptions options)
    : parameters_(trainable(std::move(parameters))), options_(options) {
  for (const Parameter& p : parameters_) momentum_.push_back(at::zeros_like(p.value.detach()));
}

void Muon::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& value = parameters_[i].value;
    if (!value.grad().defined()) continue;
    momentum_[i].mul_(options_.momentum).add_(value.grad());
    Tensor update = value.grad() + options_.momentum * momentum_[i];  // Nesterov
    const bool tall = update.size(0) > update.size(1);
    if (tall) update = update.t();
    update = update / (update.norm() + 1e-7);
    for (int k = 0; k < options_.iterations;
         ++k) {  // quintic iteration with the coefficients of the Muon report
      const Tensor a = at::mm(update, update.t());
      update = 3.4445 * update + at::mm(-4.7750 * a + 2.0315 * at::mm(a, a), update);
    }
    if (tall) update = update.t();
    const double scale =
        std::sqrt(std::max(1.0, static_cast<double>(value.size(0)) / static_cast<double>(value.size(1))));
    value.detach().mul_(1.0 - learning_rate * options_.weight_decay).add_(update, -learning_rate * scale);
  }
}

void Muon::zero_grad() { zero_gradients(parameters_); }

StateDict Muon::state() const {
  StateDict out;
  for (std::size_t i = 0; i < parameters_.size(); ++i) out[parameters_[i].name + ".momentum"] = momentum_[i];
  return out;
}

void Muon::load_state(const StateDict& state) {
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    restore(state, parameters_[i].name + ".momentum", momentum_[i]);
}

double clip_gradients(const Parameters& parameters, double limit) {
  const at::NoGradGuard no_grad;
  std::vector<Tensor> grads;
  for (const Parameter& p : parameters)
    if (p.value.grad().defined()) grads.push_back(p.value.grad());
  if (grads.empty()) return 0.0;
  const double norm = at::stack(at::_foreach_norm(grads)).to(at::kDouble).norm().item<double>();
  if (limit > 0.0 && norm > limit) at::_foreach_mul_(grads, limit / (norm + 1e-6));
  return norm;
}

double schedule_factor(const std::string& decay, std::int64_t step, std::int64_t warmup, std::int64_t total) {
  if (step < warmup) return static_cast<double>(step) / static_cast<double>(warmup);
  const double left = static_cast<double>(std::max<std::int64_t>(0, total - step)) /
                      static_cast<double>(std::max<std::int64_t>(1, total - warmup));
  if (decay == "constant") return 1.0;
  if (decay == "linear") return left;
  if (decay == "cosine") return 0.5 * (1.0 - std::cos(std::numbers::pi * left));
  throw ConfigError("train.schedule", "unknown schedule '" + decay + "'", "known: cosine, linear, constant");
}

}  // namespace mcit
