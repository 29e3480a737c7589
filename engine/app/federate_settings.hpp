#pragma once
/// The settings of a federation, as `mcit federate` and `mcit node` read them from one file.

#include <memory>
#include <string>

#include "app/run_setup.hpp"
#include "federate/loop.hpp"

namespace mcit {

struct FederateSettings : RunSettings {
  std::string rule_settings;  ///< [aggregate], resolved
  FederatedOptions loop;
  fed::FederationSettings federation;  ///< without `rounds`, `seed` and `clients`
  std::unique_ptr<fed::Aggregator> rule;
};

/// @throws ConfigError, also for a key that nothing reads
FederateSettings read_federate_settings(Config& config);

}  // namespace mcit
