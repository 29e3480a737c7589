#pragma once
/// Strict, all-or-nothing reading of a strategy's state.

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "mcit/types.hpp"

namespace mcit::parts {

/// Parts ask for their tensors, then commit() copies. Nothing changes when a tensor is missing, unexpected or
/// misshapen.
class MCIT_EXPORT StateReader {
 public:
  explicit StateReader(const StateDict& state) : state_(state) {}

  bool has(const std::string& name) const { return state_.contains(name); }
  /// Plans a copy into `target`, in place.
  /// @throws CheckpointError when `name` is missing, has another shape, or an integer stands for a real
  /// number.
  void copy(const std::string& name, const Tensor& target);
  /// A tensor whose shape the part checks itself. @throws CheckpointError when it is missing or of another
  /// type.
  Tensor take(const std::string& name, at::ScalarType type);
  /// Plans any other change that must wait until the whole state has been found right.
  void then(std::function<void()> change) { changes_.push_back(std::move(change)); }

  /// @throws CheckpointError naming what no part asked for; otherwise makes every planned change.
  void commit();

 private:
  const Tensor& find(const std::string& name);

  const StateDict& state_;
  std::set<std::string> asked_;
  std::vector<std::function<void()>> changes_;
};

/// Copies of what parameters hold, by their names.
MCIT_EXPORT StateDict state_of(const Parameters& parameters);
/// Plans a copy into each of them.
MCIT_EXPORT void load_parameters(const Parameters& parameters, StateReader& reader);

/// An independent copy: what a state holds does not change when training goes on. The bytes are shared until
/// then, so that a state that is only read or dropped costs nothing.
MCIT_EXPORT Tensor state_copy(const Tensor& tensor);

}  // namespace mcit::parts
