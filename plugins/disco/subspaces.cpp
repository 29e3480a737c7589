#include "subspaces.hpp"

#include <torch/types.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "mcit/errors.hpp"

namespace mcit::disco {
namespace {

constexpr const char* kOrganisation = "organisation";

std::string numbered(const char* what, std::size_t c) { return what + std::to_string(c); }

std::size_t best_of(const std::vector<double>& similarities) {
  return static_cast<std::size_t>(
      std::distance(similarities.begin(), std::max_element(similarities.begin(), similarities.end())));
}

/// Σ n_k θ_k / Σ n_k in float64, in the type that the tensors have.
StateDict mean_of(const std::vector<const Member*>& members) {
  double all = 0.0;
  for (const Member* member : members) all += member->examples;
  StateDict out;
  for (const auto& [name, like] : members.front()->tensors) {
    Tensor sum = at::zeros_like(like, like.options().dtype(at::kDouble));
    for (const Member* member : members)
      sum += member->tensors.at(name).to(at::kDouble) * (member->examples / all);
    out[name] = sum.to(like.scalar_type());
  }
  return out;
}

}  // namespace

double cosine(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  const double length = x.norm().item<double>() * y.norm().item<double>();
  return length > 0.0 ? x.dot(y).item<double>() / length : 0.0;
}

Tensor selective_activation(const Tensor& similarities, double temperature) {
  return at::softmax(similarities / temperature, -1);
}

std::int64_t Subspaces::matching(const Tensor& identity) const {
  if (all_.empty()) return -1;
  std::vector<double> similar;
  for (const Subspace& subspace : all_) similar.push_back(cosine(identity, subspace.prototype));
  const std::size_t best = best_of(similar);
  const bool full = std::cmp_greater_equal(all_.size(), slots_);
  return similar[best] >= threshold_ || full ? static_cast<std::int64_t>(best) : -1;
}

void Subspaces::organise(std::span<const Member> members) {
  std::vector<Tensor> prototypes;
  for (const Subspace& subspace : all_) prototypes.push_back(subspace.prototype);
  std::map<std::size_t, std::vector<const Member*>> joined;
  for (const Member& member : members) {
    std::vector<double> similar;
    for (const Tensor& prototype : prototypes) similar.push_back(cosine(member.identity, prototype));
    const bool full = std::cmp_greater_equal(prototypes.size(), slots_);
    std::size_t c = prototypes.size();
    if (!similar.empty() && (full || similar[best_of(similar)] >= threshold_)) c = best_of(similar);
    if (c == prototypes.size()) prototypes.push_back(member.identity);
    joined[c].push_back(&member);
  }
  for (const auto& [c, group] : joined) {
    if (c == all_.size()) all_.push_back({at::zeros_like(prototypes[c], at::kDouble), 0.0, {}});
    Subspace& subspace = all_[c];
    subspace.tensors = mean_of(group);
    for (const Member* member : group) {
      const Tensor x = member->identity.to(at::kDouble);
      const Tensor unit = x / x.norm().clamp_min(1e-300);
      const double after = subspace.count + member->examples;
      subspace.prototype = (subspace.prototype * subspace.count + unit * member->examples) / after;
      subspace.count = after;
    }
  }
}

Tensor Subspaces::prototypes() const {
  if (all_.empty()) return {};
  std::vector<Tensor> rows;
  for (const Subspace& subspace : all_)
    rows.push_back(subspace.prototype / subspace.prototype.norm().clamp_min(1e-300));
  return at::stack(rows);
}

void Subspaces::save(StateDict& state) const {
  const auto options = at::TensorOptions(at::kDouble);
  state[kOrganisation] = at::tensor({threshold_, static_cast<double>(slots_)}, options);
  for (std::size_t c = 0; c < all_.size(); ++c) {
    state[numbered("prototype.", c)] = all_[c].prototype.clone();
    state[numbered("count.", c)] = at::full({1}, all_[c].count, options);
    for (const auto& [name, tensor] : all_[c].tensors)
      state[numbered("subspace.", c) + "/" + name] = tensor.clone();
  }
}

void Subspaces::load(parts::StateReader& reader, const StateDict& shapes, std::int64_t width) {
  const Tensor organisation = reader.take(kOrganisation, at::kDouble);
  if (organisation.numel() != 2)
    throw CheckpointError(kOrganisation, "is not a threshold and a number of slots");
  const double threshold = organisation[0].item<double>(), slots = organisation[1].item<double>();
  if (slots != static_cast<double>(slots_))
    throw CheckpointError("slots",
                          "are " + std::to_string(static_cast<std::int64_t>(slots)) + " there and " +
                              std::to_string(slots_) + " here",
                          "set strategy.slots and aggregate.slots to the same number");
  std::vector<Subspace> all;
  for (std::size_t c = 0; reader.has(numbered("prototype.", c)); ++c) {
    Subspace one{reader.take(numbered("prototype.", c), at::kDouble).clone(), 0.0, {}};
    const Tensor count = reader.take(numbered("count.", c), at::kDouble);
    if (one.prototype.dim() != 1 || one.prototype.size(0) != width || count.numel() != 1)
      throw CheckpointError(numbered("prototype.", c), "is not of the size of an identity here",
                            "is it of another model, or of other identity features?");
    one.count = count.item<double>();
    for (const auto& [name, like] : shapes) {
      one.tensors[name] = at::empty_like(like);
      reader.copy(numbered("subspace.", c) + "/" + name, one.tensors[name]);
    }
    all.push_back(std::move(one));
  }
  reader.then([this, threshold, all = std::move(all)] {
    threshold_ = threshold;
    all_ = all;
  });
}

}  // namespace mcit::disco
