#pragma once
/// What every update goes through before a rule sees it: finite numbers, and a norm within bounds.

#include <string>
#include <vector>

#include "fed/aggregator.hpp"

namespace mcit::fed {

/// Name of the first array with a NaN or an infinity; empty when there is none.
std::string first_not_finite(const Arrays& arrays);

/// Fills in the norms. @return why the update cannot be used, with the tensor's name; empty when it can
std::string screen(Contribution& update, const Layout& layout);

struct Clipping {
  double norm = 0.0;          ///< largest ‖value - base‖₂; 0 = none
  double ratio = 0.0;         ///< the same in medians of the round's norms that are not zero; 0 = none
  double control_norm = 0.0;  ///< of control variates; 0 = none
};

/// Sets the scales: min(1, bound / norm).
void clip(std::vector<Contribution>& updates, const Clipping& bounds);

}  // namespace mcit::fed
