#pragma once
/// Dynamic knowledge organisation on the strategy's side: subspaces by the identity of the data that they
/// were trained on. A server's rule "subspaces" does the same to clients' updates; here it is what a download
/// holds, and what one learner on its own makes of its tasks.

#include <cstdint>
#include <span>
#include <vector>

#include "mcit/parts/state_reader.hpp"

namespace mcit::disco {

/// cos of two vectors in float64; 0 where one of them is zero.
double cosine(const Tensor& a, const Tensor& b);

/// softmax(similarities / temperature) over the last dimension.
Tensor selective_activation(const Tensor& similarities, double temperature);

struct Subspace {
  Tensor prototype;    ///< [d] float64: running mean of unit identities, weighted by examples
  double count = 0.0;  ///< examples behind it
  StateDict tensors;   ///< of one slot, by the adapters' names
};

/// What a member brings to its subspace.
struct Member {
  Tensor identity;  ///< [d]
  double examples = 0.0;
  StateDict tensors;
};

class Subspaces {
 public:
  Subspaces(double threshold, std::int64_t slots) : threshold_(threshold), slots_(slots) {}

  const std::vector<Subspace>& all() const { return all_; }
  double threshold() const { return threshold_; }
  std::int64_t slots() const { return slots_; }

  /// The most similar subspace if its cosine reaches the threshold or all slots are taken; else -1.
  std::int64_t matching(const Tensor& identity) const;

  /// Each member joins its match, or founds a subspace: in their order, prototypes as they were before. Then
  /// θ_c ← Σ n_k θ_k / Σ n_k over a subspace's members.
  void organise(std::span<const Member> members);

  /// [C, d] float64, rows of unit length; undefined without a subspace.
  Tensor prototypes() const;

  /// "prototype.<c>" [d], "count.<c>" [1], "subspace.<c>/<name>", and "organisation" [2], the threshold and
  /// the slots: the names that the rule has in its state.
  void save(StateDict& state) const;
  /// Plans to become what is there, subspaces with tensors like `shapes`. @param width d
  /// @throws CheckpointError when the slots or a shape are not those here
  void load(parts::StateReader& reader, const StateDict& shapes, std::int64_t width);

 private:
  double threshold_;
  std::int64_t slots_;
  std::vector<Subspace> all_;
};

}  // namespace mcit::disco
