// FedAvg and the server optimizers that take the mean update as their gradient; SCAFFOLD.
#include <cmath>
#include <nlohmann/json.hpp>

#include "fed/client_terms.hpp"
#include "fed/rules.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

/// x ← x + Σ_k (n_k / n) Δ_k (McMahan et al. 2017).
class FedAvg final : public Aggregator {
 public:
  std::string name() const override { return "fedavg"; }
  Arrays aggregate(const AggregatorInput& input, Json&) const override {
    Arrays next = input.state;
    move_model(next, input, input.weights());
    return next;
  }
};

/// @param step makes of a tensor's mean update Δ, in place, what the tensor is moved by: (next, name, Δ)
template <class Step>
Arrays stepped(const AggregatorInput& input, const Step& step) {
  Arrays next = input.state;
  const std::vector<double> weights = input.weights();
  for (auto& [key, array] : next) {
    const std::string name = model_name(key);
    if (name.empty()) continue;
    std::vector<double> delta = mean_delta(input.updates, weights, name, Group::model, array.size());
    step(next, name, delta);
    array = moved(array, delta);
  }
  return next;
}

/// v ← β v + Δ, x ← x + η v (Hsu, Qi, Brown 2019).
class FedAvgM final : public Aggregator {
 public:
  explicit FedAvgM(const Config& settings)
      : momentum_(settings.number("momentum", 0.9, 0.0, 1.0)), rate_(settings.number("rate", 1.0, 0.0)) {}
  std::string name() const override { return "fedavgm"; }

  Arrays initial(const Arrays& model) const override {
    Arrays state = Aggregator::initial(model);
    for (const auto& [name, array] : model) state["momentum/" + name] = zeros(Dtype::f64, array.shape);
    return state;
  }

  Arrays aggregate(const AggregatorInput& input, Json&) const override {
    return stepped(input, [this](Arrays& next, const std::string& name, std::vector<double>& step) {
      Array& kept = next.at("momentum/" + name);
      std::vector<double> v = values_of(kept);
      for (std::size_t i = 0; i < v.size(); ++i) {
        v[i] = momentum_ * v[i] + step[i];
        step[i] = rate_ * v[i];
      }
      kept = array_of(Dtype::f64, kept.shape, v);
    });
  }

 private:
  double momentum_, rate_;
};

/// Reddi et al. 2021, algorithm 2: m ← β1 m + (1-β1) Δ; v by the rule; x ← x + η m / (√v + τ). v starts at
/// τ².
class FedOpt final : public Aggregator {
 public:
  explicit FedOpt(const Config& settings)
      : name_(settings.text("rule", "fedadam")),
        rate_(settings.number("rate", 0.01, 0.0)),
        beta1_(settings.number("beta1", 0.9, 0.0, 1.0)),
        beta2_(name_ == "fedadagrad" ? 0.0 : settings.number("beta2", 0.99, 0.0, 1.0)),
        tau_(settings.number("tau", 1e-3, 0.0)) {
    if (tau_ <= 0.0) throw ConfigError(settings.where("tau"), "must be positive", "it bounds the step");
  }
  std::string name() const override { return name_; }

  Arrays initial(const Arrays& model) const override {
    Arrays state = Aggregator::initial(model);
    for (const auto& [name, array] : model) {
      const std::vector<double> start(array.size(), tau_ * tau_);
      state["first/" + name] = zeros(Dtype::f64, array.shape);
      state["second/" + name] = array_of(Dtype::f64, array.shape, start);
    }
    return state;
  }

  Arrays aggregate(const AggregatorInput& input, Json&) const override {
    return stepped(input, [this](Arrays& next, const std::string& name, std::vector<double>& step) {
      Array &first = next.at("first/" + name), &second = next.at("second/" + name);
      std::vector<double> m = values_of(first), v = values_of(second);
      for (std::size_t i = 0; i < m.size(); ++i) {
        m[i] = beta1_ * m[i] + (1.0 - beta1_) * step[i];
        v[i] = grown(v[i], step[i] * step[i]);
        step[i] = rate_ * m[i] / (std::sqrt(v[i]) + tau_);
      }
      first = array_of(Dtype::f64, first.shape, m);
      second = array_of(Dtype::f64, second.shape, v);
    });
  }

 private:
  double grown(double v, double square) const {
    if (name_ == "fedadagrad") return v + square;
    if (name_ == "fedadam") return beta2_ * v + (1.0 - beta2_) * square;
    const double sign = v > square ? 1.0 : v < square ? -1.0 : 0.0;  // fedyogi
    return v - (1.0 - beta2_) * square * sign;
  }

  std::string name_;
  double rate_, beta1_, beta2_, tau_;
};

/// Karimireddy et al. 2020, algorithm 1: x ← x + η_g mean Δ_k, c ← c + |S|/N mean (c_k⁺ - c_k). The client
/// adds c - c_k to its gradients and sends c_k⁺ - c_k as "control/<name>" (client_terms.hpp).
class Scaffold final : public Aggregator {
 public:
  explicit Scaffold(const Config& settings)
      : clients_(settings.require_integer("clients")), rate_(settings.number("rate", 1.0, 0.0)) {
    if (clients_ < 1) throw ConfigError(settings.where("clients"), "must be at least 1");
  }
  std::string name() const override { return "scaffold"; }

  Arrays initial(const Arrays& model) const override {
    Arrays state = Aggregator::initial(model);
    for (const auto& [name, array] : model) {
      if (name.starts_with(kControl)) throw ConfigError(name, "is a name that SCAFFOLD keeps for itself");
      state[kControl + name] = zeros(Dtype::f32, array.shape);
    }
    return state;
  }

  Layout layout(const Arrays& state) const override {
    Layout out = Aggregator::layout(state);
    for (const auto& [key, array] : state)
      if (key.starts_with(kControl)) out[key] = {array.dtype, array.shape, Group::control};
    return out;
  }

  Arrays download(const Arrays& state, const std::string& client) const override {
    Arrays out = Aggregator::download(state, client);
    for (const auto& [key, array] : state)
      if (key.starts_with(kControl)) out[key] = array;
    return out;
  }

  Arrays aggregate(const AggregatorInput& input, Json& notes) const override {
    Arrays next = input.state;
    const auto count = static_cast<double>(input.updates.size());
    if (count > static_cast<double>(clients_))
      throw ConfigError("aggregate.clients", "is " + std::to_string(clients_) + ", but " +
                                                 std::to_string(input.updates.size()) + " clients took part");
    std::vector<double> weights = input.weights();
    for (double& weight : weights) weight *= rate_;
    move_model(next, input, weights);
    const std::vector<double> uniform(input.updates.size(), 1.0 / static_cast<double>(clients_));
    for (auto& [key, array] : next)
      if (key.starts_with(kControl))
        array = moved(array, mean_delta(input.updates, uniform, key, Group::control, array.size()));
    notes["participation"] = count / static_cast<double>(clients_);
    return next;
  }

 private:
  std::int64_t clients_;
  double rate_;
};

}  // namespace

std::unique_ptr<Aggregator> make_fedavg(const Config&) { return std::make_unique<FedAvg>(); }
std::unique_ptr<Aggregator> make_fedavgm(const Config& settings) {
  return std::make_unique<FedAvgM>(settings);
}
std::unique_ptr<Aggregator> make_fedopt(const Config& settings) { return std::make_unique<FedOpt>(settings); }
std::unique_ptr<Aggregator> make_scaffold(const Config& settings) {
  return std::make_unique<Scaffold>(settings);
}

}  // namespace mcit::fed
