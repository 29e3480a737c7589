#pragma once
/// A strategy out of a built plugin file, and a world for it to live in.

#include <dlfcn.h>

#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "mcit/params.hpp"
#include "mcit/plugin.hpp"
#include "unit/strategies/fake_backbone.hpp"

namespace mcit::fake {

using Settings = std::map<std::string, Params::Value>;
using StrategyPtr = std::unique_ptr<Strategy, void (*)(Strategy*)>;

/// @param file name of the plugin; @param name of the strategy in it. Unknown settings throw, as in the
/// engine.
inline StrategyPtr create(const std::string& file, const std::string& name, Host& host,
                          Settings values = {}) {
  void* library = ::dlopen((std::string(MCIT_BINARY_DIR) + "/lib/mcit/plugins/" + file + ".so").c_str(),
                           RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw std::runtime_error(::dlerror());
  const auto* plugin = static_cast<const mcit_plugin_descriptor*>(::dlsym(library, "mcit_plugin"));
  if (plugin == nullptr) throw std::runtime_error(::dlerror());
  for (std::uint32_t i = 0; i < plugin->strategy_count; ++i) {
    if (plugin->strategies[i].name != name) continue;
    const Params params(std::move(values));
    StrategyPtr strategy(plugin->strategies[i].create(params, host), plugin->strategies[i].destroy);
    params.finish();
    return strategy;
  }
  throw std::runtime_error("no strategy '" + name + "' in " + file);
}

/// A strategy on a backbone and a host of its own, at the beginning of a stream.
struct World {
  /// @param more wins over `settings`
  World(const std::string& file, const std::string& name, Settings settings, const Settings& more,
        std::int64_t tasks)
      : strategy(create(file, name, host, merged(std::move(settings), more))),
        run(*strategy, backbone, host, tasks) {}
  StateDict state() const { return strategy->state(); }

  FakeBackbone backbone;
  FakeHost host;
  StrategyPtr strategy;
  Run run;

 private:
  static Settings merged(Settings settings, const Settings& more) {
    for (const auto& [key, value] : more) settings[key] = value;
    return settings;
  }
};

inline bool same_bytes(const Tensor& a, const Tensor& b) {
  const Tensor x = a.detach().contiguous(), y = b.detach().contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         (x.nbytes() == 0 || std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0);
}

}  // namespace mcit::fake
