#pragma once
/// Dynamic knowledge organisation (DISCO, arXiv 2503.12897): the server keeps a set of adapters
/// ("subspaces"), each with the mean identity token of the data it was trained on, and updates are averaged
/// only with those whose identity is near. What the client's side needs of it.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fed/arrays.hpp"

namespace mcit::fed {

/// The name of the statistic that holds a client's identity: the mean feature of its data, [d].
inline constexpr const char* kIdentity = "identity";
/// Of a state and a download: the threshold and the number of slots, [2].
inline constexpr const char* kOrganisation = "organisation";

/// cos(identity, prototype_c) for each subspace of a state or a download, in the order of their numbers.
std::vector<double> subspace_similarities(const Arrays& arrays, std::span<const double> identity);

/// The subspace that this identity belongs to: the most similar one if it reaches the threshold or all slots
/// are taken; else -1, and the client starts from the template. Server and client decide alike.
std::int64_t matching_subspace(const Arrays& arrays, std::span<const double> identity);

/// Subspace selective activation: softmax(similarities / temperature), [subspaces].
std::vector<double> activation(std::span<const double> similarities, double temperature = 0.05);

/// "subspace.<c>/<name>", or "template/<name>" for -1
std::string subspace_tensor(std::int64_t subspace, const std::string& name);

}  // namespace mcit::fed
