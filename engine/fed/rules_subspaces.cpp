#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fed/rules.hpp"
#include "fed/subspaces.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

std::string prototype(std::size_t subspace) { return "prototype." + std::to_string(subspace); }
std::string count(std::size_t subspace) { return "count." + std::to_string(subspace); }

double norm_of(std::span<const double> x) {
  double sum = 0.0;
  for (const double number : x) sum += number * number;
  return std::sqrt(sum);
}

double cosine(std::span<const double> a, std::span<const double> b) {
  double dot = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) dot += a[i] * b[i];
  const double length = norm_of(a) * norm_of(b);
  return length > 0.0 ? dot / length : 0.0;
}

std::size_t nearest(const std::vector<double>& similarities) {
  return static_cast<std::size_t>(
      std::distance(similarities.begin(), std::max_element(similarities.begin(), similarities.end())));
}

/// Clients of a round by subspace: numbers below `known` were there before.
struct Assignment {
  std::size_t known = 0;
  std::vector<std::vector<double>> prototypes;  ///< of new ones: their first member
  std::vector<std::vector<std::size_t>> members;
};

class Subspaces final : public Aggregator {
 public:
  explicit Subspaces(const Config& settings)
      : threshold_(settings.number("threshold", 0.9, -1.0, 1.0)),
        smallest_(settings.number("smallest_share", 0.001, 0.0, 1.0)),
        slots_(settings.integer("slots", 8, 1)),
        size_(settings.integer("identity_size", 0, 0)),
        shared_(settings.texts("shared", {})) {}
  std::string name() const override { return "subspaces"; }

  Arrays initial(const Arrays& model) const override {
    Arrays state;
    for (const auto& [name, array] : model)
      if (name != kIdentity) state[shared(name) ? kModel + name : subspace_tensor(-1, name)] = array;
    state[kIdentity] = zeros(Dtype::f32, {identity_size(model)});
    state[kOrganisation] =
        array_of(Dtype::f64, {2}, std::vector<double>{threshold_, static_cast<double>(slots_)});
    return state;
  }

  Layout layout(const Arrays& state) const override {
    Layout out = Aggregator::layout(state);
    for (const auto& [name, array] : templates(state)) out[name] = {array->dtype, array->shape, Group::model};
    out[kIdentity] = {Dtype::f32, state.at(kIdentity).shape, Group::statistic};
    return out;
  }

  /// The shared tensors by their names, and subspaces, prototypes, the template and how they are organised as
  /// the state has them.
  Arrays download(const Arrays& state, const std::string&) const override {
    Arrays out;
    for (const auto& [key, array] : state) {
      if (key == kIdentity) continue;
      const std::string name = model_name(key);
      out[name.empty() ? key : name] = array;
    }
    return out;
  }

  std::map<std::string, const Array*> bases(const Arrays& state, const Update& update) const override {
    auto out = Aggregator::bases(state, update);
    const std::int64_t subspace = matching_subspace(state, identity(state, update));
    for (const auto& [name, array] : templates(state)) out[name] = &state.at(subspace_tensor(subspace, name));
    return out;
  }

  std::string objection(const Arrays& state, const Contribution& update) const override {
    return norm_of(identity(state, *update.update)) > 0.0 ? "" : "its identity token is zero";
  }

  Arrays aggregate(const AggregatorInput& input, Json& notes) const override {
    Arrays next = input.state;
    move_model(next, input, input.weights());
    const Assignment assigned = assign(input);
    notes["subspaces"] = Json::object();
    for (std::size_t c = 0; c < assigned.members.size(); ++c) {
      if (assigned.members[c].empty()) continue;
      average(next, input, assigned, c);
      Json& clients = notes["subspaces"][std::to_string(c)] = Json::array();
      for (const std::size_t k : assigned.members[c]) clients.push_back(input.updates[k].client());
    }
    return next;
  }

 private:
  bool shared(const std::string& name) const {
    return std::any_of(shared_.begin(), shared_.end(),
                       [&](const std::string& prefix) { return name.starts_with(prefix); });
  }

  static std::map<std::string, const Array*> templates(const Arrays& state) {
    const std::string prefix = subspace_tensor(-1, "");
    std::map<std::string, const Array*> out;
    for (const auto& [key, array] : state)
      if (key.starts_with(prefix)) out[key.substr(prefix.size())] = &array;
    return out;
  }

  /// As the strategy's model has it, or the setting.
  std::int64_t identity_size(const Arrays& model) const {
    const auto own = model.find(kIdentity);
    if (own == model.end() && size_ < 1)
      throw ConfigError("aggregate.rule", "'subspaces' wants an identity token of each client",
                        "take a strategy that has one, such as disco, or set aggregate.identity_size");
    if (own == model.end()) return size_;
    const auto size = static_cast<std::int64_t>(own->second.size());
    if (own->second.shape.size() != 1 || size < 1 || (size_ > 0 && size != size_))
      throw ConfigError("aggregate.identity_size", "is not that of the strategy's identity token");
    return size;
  }

  static std::vector<double> identity(const Arrays& state, const Update& update) {
    std::vector<double> out(state.at(kIdentity).size());
    update.delta(update.source(kIdentity), nullptr, 0, out);
    return out;
  }

  /// Each client joins the most similar subspace, or founds one where none reaches the threshold. A new
  /// subspace of one client with a tiny share of the round's data, and one beyond the slots, is given up.
  Assignment assign(const AggregatorInput& input) const {
    Assignment out;
    for (; input.state.contains(prototype(out.known)); ++out.known)
      out.prototypes.push_back(values_of(input.state.at(prototype(out.known))));
    out.members.resize(out.known);
    for (std::size_t k = 0; k < input.updates.size(); ++k) {
      const std::vector<double> x = identity(input.state, *input.updates[k].update);
      std::vector<double> similar;
      for (const std::vector<double>& p : out.prototypes) similar.push_back(cosine(x, p));
      const std::size_t best = similar.empty() ? 0 : nearest(similar);
      const bool full = out.prototypes.size() >= static_cast<std::size_t>(slots_);
      if (!similar.empty() && (similar[best] >= threshold_ || full)) {
        out.members[best].push_back(k);
      } else {
        out.prototypes.push_back(x);
        out.members.push_back({k});
      }
    }
    dissolve_tiny(input, out);
    return out;
  }

  void dissolve_tiny(const AggregatorInput& input, Assignment& out) const {
    double all = 0.0;
    for (const Contribution& update : input.updates) all += update.examples();
    for (std::size_t c = out.members.size(); c-- > out.known;) {
      const bool tiny =
          out.members[c].size() == 1 && input.updates[out.members[c][0]].examples() < smallest_ * all;
      if (!tiny || out.members.size() == 1) continue;
      std::vector<double> similar;
      for (std::size_t other = 0; other < out.prototypes.size(); ++other)
        similar.push_back(other == c ? -2.0 : cosine(out.prototypes[c], out.prototypes[other]));
      out.members[nearest(similar)].push_back(out.members[c][0]);
      out.members.erase(out.members.begin() + static_cast<std::ptrdiff_t>(c));
      out.prototypes.erase(out.prototypes.begin() + static_cast<std::ptrdiff_t>(c));
    }
    for (std::vector<std::size_t>& members : out.members) std::sort(members.begin(), members.end());
  }

  /// θ_c ← Σ n_k θ_k / Σ n_k over its clients; the prototype is the running mean of unit identities, each
  /// weighted by its examples.
  void average(Arrays& next, const AggregatorInput& input, const Assignment& assigned, std::size_t c) const {
    const std::vector<std::size_t>& members = assigned.members[c];
    double sum = 0.0;
    for (const std::size_t k : members) sum += weight(input, k);
    for (const auto& [name, like] : templates(input.state)) {
      std::vector<double> mean(like->size(), 0.0);
      for (const std::size_t k : members) {
        const std::vector<double> theta = input.updates[k].part(name).value();
        for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += weight(input, k) / sum * theta[i];
      }
      next[subspace_tensor(static_cast<std::int64_t>(c), name)] = array_of(like->dtype, like->shape, mean);
    }
    const auto before = input.state.find(count(c));
    double seen = before == input.state.end() ? 0.0 : values_of(before->second).front();
    std::vector<double> p = seen > 0.0 ? values_of(input.state.at(prototype(c)))
                                       : std::vector<double>(input.state.at(kIdentity).size(), 0.0);
    for (const std::size_t k : members) {
      const std::vector<double> x = identity(input.state, *input.updates[k].update);
      const double length = norm_of(x), n = weight(input, k);
      for (std::size_t i = 0; i < p.size(); ++i) p[i] = (seen * p[i] + n * x[i] / length) / (seen + n);
      seen += n;
    }
    next[prototype(c)] = array_of(Dtype::f64, input.state.at(kIdentity).shape, p);
    next[count(c)] = array_of(Dtype::f64, {1}, std::vector<double>{seen});
  }

  static double weight(const AggregatorInput& input, std::size_t k) {
    return input.weighting == Weighting::uniform ? 1.0 : std::max(1.0, input.updates[k].examples());
  }

  double threshold_, smallest_;
  std::int64_t slots_, size_;
  std::vector<std::string> shared_;
};

}  // namespace

std::vector<double> subspace_similarities(const Arrays& arrays, std::span<const double> identity) {
  std::vector<double> out;
  for (std::size_t c = 0; arrays.contains(prototype(c)); ++c) {
    const std::vector<double> p = values_of(arrays.at(prototype(c)));
    if (p.size() != identity.size())
      throw Error(kIdentity, "has " + std::to_string(identity.size()) + " numbers, the prototypes have " +
                                 std::to_string(p.size()));
    out.push_back(cosine(identity, p));
  }
  return out;
}

std::int64_t matching_subspace(const Arrays& arrays, std::span<const double> identity) {
  const std::vector<double> similar = subspace_similarities(arrays, identity);
  if (similar.empty()) return -1;
  const std::vector<double> organisation = values_of(arrays.at(kOrganisation));
  const std::size_t best = nearest(similar);
  const bool full = static_cast<double>(similar.size()) >= organisation.at(1);
  return similar[best] >= organisation.at(0) || full ? static_cast<std::int64_t>(best) : -1;
}

std::vector<double> activation(std::span<const double> similarities, double temperature) {
  std::vector<double> out(similarities.begin(), similarities.end());
  if (out.empty()) return out;
  const double most = *std::max_element(out.begin(), out.end());
  double sum = 0.0;
  for (double& w : out) sum += w = std::exp((w - most) / temperature);
  for (double& w : out) w /= sum;
  return out;
}

std::string subspace_tensor(std::int64_t subspace, const std::string& name) {
  return (subspace < 0 ? "template/" : "subspace." + std::to_string(subspace) + "/") + name;
}

std::unique_ptr<Aggregator> make_subspaces(const Config& settings) {
  return std::make_unique<Subspaces>(settings);
}

}  // namespace mcit::fed
