#pragma once
/// A facet of strategies whose stages do not depend on what comes later in the stream.

#include "mcit/types.hpp"

namespace mcit {

/// A strategy that also derives from this one promises: state, predictions, records and tables after stage i
/// are a function of the seed, the settings, the number of tasks and the tasks of stages 1 .. i. Names,
/// answer sets and order of later tasks change nothing before they are trained. Streams that begin with the
/// same tasks may then share those stages (`mcit bench`), with the same bytes as without. The conformance
/// suite tries it with another future.
class MCIT_EXPORT Causal {
 public:
  Causal() = default;
  Causal(const Causal&) = delete;
  Causal& operator=(const Causal&) = delete;
  virtual ~Causal();
};

}  // namespace mcit
