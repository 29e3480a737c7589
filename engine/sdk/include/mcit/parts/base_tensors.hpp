#pragma once
/// Tensors of the backbone itself that a strategy trains, such as the connector.

#include <string_view>

#include "mcit/backbone.hpp"
#include "mcit/parts/state_reader.hpp"

namespace mcit::parts {

class MCIT_EXPORT BaseTensors {
 public:
  /// Thaws the base tensors of `pattern`; a tensor that is held already is not added twice.
  /// @throws ConfigError when the pattern matches nothing
  void attach(Backbone& backbone, std::string_view pattern);

  void set_trainable(bool trainable);

  /// Under their published names, in the groups that the backbone gives.
  const Parameters& parameters() const { return parameters_; }
  StateDict state() const;
  void load(StateReader& reader) const;

 private:
  Parameters parameters_;
};

}  // namespace mcit::parts
