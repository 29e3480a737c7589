// What becomes of LoRA's two factors: the mean of A and the mean of B is not the mean of BA.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fed/low_rank.hpp"
#include "fed/rules.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

class LoraRule final : public Aggregator {
 public:
  explicit LoraRule(const Config& settings)
      : average_(settings.choice("average", "product_svd", {"factors", "product_svd", "stack", "freeze_A"})),
        a_(settings.text("a_suffix", "lora_A.weight")),
        b_(settings.text("b_suffix", "lora_B.weight")) {
    if (a_.empty() || b_.empty() || a_ == b_)
      throw ConfigError(settings.where("a_suffix"), "and b_suffix must be two different endings of names");
  }
  std::string name() const override { return "lora/" + average_; }

  Arrays initial(const Arrays& model) const override {
    Arrays state = Aggregator::initial(model);
    const std::vector<std::string> sites = sites_of(state);
    if (sites.empty())
      throw ConfigError("aggregate.rule", "no pair of matrices ends with " + a_ + " and " + b_,
                        "set a_suffix and b_suffix");
    if (average_ != "stack") return state;
    for (const std::string& site : sites) {
      const Array &a = model.at(site + a_), &b = model.at(site + b_);
      for (const double number : values_of(b))
        if (number != 0.0)
          throw ConfigError(site + b_, "does not start at zero",
                            "average = \"stack\" starts every round there");
      state[kStack + site + a_] = zeros(a.dtype, {0, a.shape[1]});
      state[kStack + site + b_] = zeros(b.dtype, {b.shape[0], 0});
    }
    return state;
  }

  /// With "stack": also "stack/<name>", factors that a client adds to its own, frozen.
  Arrays download(const Arrays& state, const std::string& client) const override {
    Arrays out = Aggregator::download(state, client);
    for (const auto& [key, array] : state)
      if (key.starts_with(kStack)) out[key] = array;
    return out;
  }

  std::string objection(const Arrays& state, const Contribution& update) const override {
    if (average_ != "freeze_A") return {};
    for (const std::string& site : sites_of(state)) {
      std::vector<double> delta(state.at(kModel + site + a_).size());
      update.part(site + a_).delta(0, delta);
      for (const double number : delta)
        if (number != 0.0) return site + a_ + " was trained, which average = freeze_A forbids";
    }
    return {};
  }

  Arrays aggregate(const AggregatorInput& input, Json& notes) const override {
    Arrays next = input.state;
    const std::vector<double> weights = input.weights();
    const std::vector<std::string> sites =
        average_ == "factors" ? std::vector<std::string>{} : sites_of(input.state);
    notes["average"] = average_;
    double lost = 0.0;
    std::int64_t rank = 0;
    for (const std::string& site : sites) {
      if (average_ == "freeze_A") continue;  // the mean of B times the common A is the mean of the products
      const Factors sum = stacked(input, weights, site);
      if (average_ == "stack") {
        rank = std::max(rank, stack(next, site, sum));
      } else {
        const std::int64_t own = next.at(kModel + site + a_).shape[0];
        const LowRank best = low_rank(sum, own);
        put(next, kModel + site, best.factors);
        lost = std::max(lost, best.lost);
      }
    }
    for (auto& [key, array] : next) {
      const std::string name = model_name(key);
      if (name.empty() || (average_ != "freeze_A" && of_site(sites, name))) continue;
      array = moved(array, mean_delta(input.updates, weights, name, Group::model, array.size()));
    }
    if (average_ == "product_svd") notes["largest_relative_loss"] = lost;
    if (average_ == "stack") notes["rank"] = rank;
    return next;
  }

 private:
  static constexpr const char* kStack = "stack/";

  /// What stands before the suffix in the names of all pairs that fit together.
  std::vector<std::string> sites_of(const Arrays& state) const {
    std::vector<std::string> out;
    for (const auto& [key, a] : state) {
      const std::string name = model_name(key);
      if (!name.ends_with(a_)) continue;
      const std::string site = name.substr(0, name.size() - a_.size());
      const auto b = state.find(kModel + site + b_);
      if (b != state.end() && a.shape.size() == 2 && b->second.shape.size() == 2 &&
          a.shape[0] == b->second.shape[1])
        out.push_back(site);
    }
    return out;
  }

  bool of_site(const std::vector<std::string>& sites, const std::string& name) const {
    return std::any_of(sites.begin(), sites.end(),
                       [&](const std::string& site) { return name == site + a_ || name == site + b_; });
  }

  /// Σ_k w_k B_k A_k as one product: [√w_1 B_1 | √w_2 B_2 | ...] and the same of A, below one another.
  Factors stacked(const AggregatorInput& input, const std::vector<double>& weights,
                  const std::string& site) const {
    const Array &a = input.state.at(kModel + site + a_), &b = input.state.at(kModel + site + b_);
    Factors out{b.shape[0], 0, a.shape[1], {}, {}};
    for (std::size_t k = 0; k < input.updates.size(); ++k) {
      Factors one{b.shape[0], a.shape[0], a.shape[1], input.updates[k].part(site + b_).value(),
                  input.updates[k].part(site + a_).value()};
      for (std::vector<double>* side : {&one.left, &one.right})
        for (double& number : *side) number *= std::sqrt(weights[k]);
      append(out, one);
    }
    return out;
  }

  /// left right + more.left more.right as one product.
  static void append(Factors& out, const Factors& more) {
    std::vector<double> left;
    left.reserve(out.left.size() + more.left.size());
    for (std::int64_t row = 0; row < out.rows; ++row)
      for (const Factors* part : {static_cast<const Factors*>(&out), &more})
        left.insert(left.end(), part->left.begin() + row * part->inner,
                    part->left.begin() + (row + 1) * part->inner);
    out.left = std::move(left);
    out.right.insert(out.right.end(), more.right.begin(), more.right.end());
    out.inner += more.inner;
  }

  /// Writes both factors, in the types that they have there.
  void put(Arrays& state, const std::string& stem, const Factors& factors) const {
    Array &a = state.at(stem + a_), &b = state.at(stem + b_);
    a = array_of(a.dtype, {factors.inner, factors.columns}, factors.right);
    b = array_of(b.dtype, {factors.rows, factors.inner}, factors.left);
  }

  /// Puts this round's product behind those before it (FLoRA, Wang et al. 2024); at full rank they are
  /// written with as few columns as there are dimensions. @return the rank now
  std::int64_t stack(Arrays& next, const std::string& site, const Factors& round) const {
    const Array &a = next.at(kStack + site + a_), &b = next.at(kStack + site + b_);
    Factors all{b.shape[0], a.shape[0], a.shape[1], values_of(b), values_of(a)};
    append(all, round);
    const std::int64_t full = std::min(all.rows, all.columns);
    if (all.inner > full) all = low_rank(all, full).factors;
    put(next, kStack + site, all);
    return all.inner;
  }

  std::string average_, a_, b_;
};

}  // namespace

std::unique_ptr<Aggregator> make_lora(const Config& settings) { return std::make_unique<LoraRule>(settings); }

}  // namespace mcit::fed
