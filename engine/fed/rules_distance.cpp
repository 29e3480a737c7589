// Weights from Euclidean distances between the clients' parameters (Pilot, AAAI 2025). The paper says that
// distances decide; the map from distances to weights is this engine's.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fed/rules.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

/// [K][K] numbers.
using Square = std::vector<std::vector<double>>;

class Distance final : public Aggregator {
 public:
  explicit Distance(const Config& settings)
      : mode_(settings.choice("mode", "pairwise", {"pairwise", "to_mean", "fedavg"})),
        tensors_(settings.texts("tensors", {""})),
        by_task_(settings.texts("by_task", {})),
        epsilon_(settings.number("epsilon", 1e-8, 0.0)) {
    if (epsilon_ <= 0.0) throw ConfigError(settings.where("epsilon"), "must be positive");
  }
  std::string name() const override { return "distance/" + mode_; }
  bool personal() const override { return mode_ == "pairwise"; }

  Arrays initial(const Arrays& model) const override {
    if (std::none_of(model.begin(), model.end(), [&](const auto& item) { return chosen(item.first); }))
      throw ConfigError("aggregate.tensors", "no tensor of the model begins with one of these");
    return Aggregator::initial(model);
  }

  Arrays download(const Arrays& state, const std::string& client) const override {
    Arrays out = Aggregator::download(state, client);
    for (auto& [name, array] : out)
      if (const auto own = state.find(personal(client, name)); own != state.end()) array = own->second;
    return out;
  }

  std::map<std::string, const Array*> bases(const Arrays& state, const Update& update) const override {
    auto out = Aggregator::bases(state, update);
    for (auto& [name, array] : out)
      if (const auto own = state.find(personal(update.info().client, name)); own != state.end())
        array = &own->second;
    return out;
  }

  Arrays aggregate(const AggregatorInput& input, Json& notes) const override {
    Arrays next = input.state;
    const std::vector<double> weights = input.weights();
    std::map<std::string, std::vector<std::vector<double>>> values;  // of the chosen tensors, θ_k
    for (auto& [key, array] : next) {
      const std::string name = model_name(key);
      if (name.empty()) continue;
      if (of_task(name)) {
        array = task_mean(array, name, input);
        continue;
      }
      if (!chosen(name)) {
        array = moved(array, mean_delta(input.updates, weights, name, Group::model, array.size()));
        continue;
      }
      for (const Contribution& update : input.updates) values[name].push_back(update.part(name).value());
    }
    if (mode_ == "pairwise") {
      personalise(next, input, pairwise(values, input.updates.size()), values, notes);
      mix(next, values, weights);  // what a client that comes later starts from
    } else {
      const std::vector<double> mixed = mode_ == "to_mean" ? to_mean(values, input.updates.size()) : weights;
      mix(next, values, mixed);
      notes["weights"] = mixed;
    }
    return next;
  }

 private:
  using Values = std::map<std::string, std::vector<std::vector<double>>>;

  static std::string personal(const std::string& client, const std::string& name) {
    return "personal/" + client + "/" + name;
  }
  bool chosen(const std::string& name) const {
    return !of_task(name) && std::any_of(tensors_.begin(), tensors_.end(),
                                         [&](const std::string& prefix) { return name.starts_with(prefix); });
  }
  bool of_task(const std::string& name) const {
    return std::any_of(by_task_.begin(), by_task_.end(),
                       [&](const std::string& prefix) { return name.starts_with(prefix); });
  }
  /// Whether it is a tensor of the task that this client trained: "<prefix><task>.…".
  bool trained(const Contribution& update, const std::string& name) const {
    return std::any_of(by_task_.begin(), by_task_.end(), [&](const std::string& prefix) {
      return name.starts_with(prefix + update.update->info().task + ".");
    });
  }

  /// The mean over the clients that trained the tensor's task; nobody else moves it.
  Array task_mean(const Array& array, const std::string& name, const AggregatorInput& input) const {
    std::vector<Contribution> own;
    for (const Contribution& update : input.updates)
      if (trained(update, name)) own.push_back(update);
    if (own.empty()) return array;
    const AggregatorInput part{input.state, own, input.weighting, input.round};
    return moved(array, mean_delta(own, part.weights(), name, Group::model, array.size()));
  }

  static std::vector<double> weighted(const std::vector<std::vector<double>>& values,
                                      const std::vector<double>& weights) {
    std::vector<double> out(values.front().size(), 0.0);
    for (std::size_t k = 0; k < values.size(); ++k)
      for (std::size_t i = 0; i < out.size(); ++i) out[i] += weights[k] * values[k][i];
    return out;
  }

  static double square_distance(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0.0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
  }

  /// w_kj = softmax_j(-d_kj / τ), d_kj = ‖θ_k - θ_j‖₂, τ the median of d over k < j.
  static Square pairwise(const Values& values, std::size_t count) {
    Square d(count, std::vector<double>(count, 0.0));
    std::vector<double> others;
    for (std::size_t k = 0; k < count; ++k)
      for (std::size_t j = k + 1; j < count; ++j) {
        for (const auto& [name, theta] : values) d[k][j] += square_distance(theta[k], theta[j]);
        d[k][j] = d[j][k] = std::sqrt(d[k][j]);
        others.push_back(d[k][j]);
      }
    std::sort(others.begin(), others.end());
    const std::size_t half = others.size() / 2;
    const double tau = others.empty()           ? 0.0
                       : others.size() % 2 == 1 ? others[half]
                                                : 0.5 * (others[half - 1] + others[half]);
    for (std::vector<double>& row : d) {
      double sum = 0.0;
      for (double& w : row) sum += w = tau > 0.0 ? std::exp(-w / tau) : (w > 0.0 ? 0.0 : 1.0);
      for (double& w : row) w /= sum;
    }
    return d;
  }

  /// w_k ∝ 1 / (‖θ_k - θ̄‖₂ + ε), θ̄ the plain mean.
  std::vector<double> to_mean(const Values& values, std::size_t count) const {
    std::vector<double> out(count, 0.0);
    const std::vector<double> uniform(count, 1.0 / static_cast<double>(count));
    for (const auto& [name, theta] : values) {
      const std::vector<double> mean = weighted(theta, uniform);
      for (std::size_t k = 0; k < count; ++k) out[k] += square_distance(theta[k], mean);
    }
    double sum = 0.0;
    for (double& w : out) sum += w = 1.0 / (std::sqrt(w) + epsilon_);
    for (double& w : out) w /= sum;
    return out;
  }

  static void personalise(Arrays& next, const AggregatorInput& input, const Square& weights,
                          const Values& values, Json& notes) {
    notes["weights"] = weights;
    for (std::size_t k = 0; k < input.updates.size(); ++k)
      for (const auto& [name, theta] : values) {
        const Array& like = input.state.at(kModel + name);
        next[personal(input.updates[k].client(), name)] =
            array_of(like.dtype, like.shape, weighted(theta, weights[k]));
      }
  }

  static void mix(Arrays& next, const Values& values, const std::vector<double>& weights) {
    for (const auto& [name, theta] : values) {
      Array& array = next.at(kModel + name);
      array = array_of(array.dtype, array.shape, weighted(theta, weights));
    }
  }

  std::string mode_;
  std::vector<std::string> tensors_;
  std::vector<std::string> by_task_;  ///< beginnings of names; the task's name and a dot follow
  double epsilon_;
};

}  // namespace

std::unique_ptr<Aggregator> make_distance(const Config& settings) {
  return std::make_unique<Distance>(settings);
}

}  // namespace mcit::fed
