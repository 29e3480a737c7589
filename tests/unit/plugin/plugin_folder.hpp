#pragma once
/// A folder of plugins that a test puts together, removed at its end.

#include <filesystem>
#include <string>

#include "unit/core/temporary.hpp"

namespace mcit::test {

inline const std::filesystem::path kFixtures =
    std::filesystem::path(MCIT_BINARY_DIR) / "tests/fixtures/plugins";

inline std::filesystem::path fixture(const std::string& name) {
  return kFixtures / ("fixture_" + name + ".so");
}

class PluginFolder : public TemporaryFolder {
 public:
  /// Copies the built fixture of this name as <as>.so, <name>.so by default.
  std::filesystem::path take(const std::string& name, const std::string& as = {}) const {
    const std::filesystem::path to = path() / ((as.empty() ? name : as) + ".so");
    std::filesystem::copy_file(fixture(name), to);
    return to;
  }
};

}  // namespace mcit::test
