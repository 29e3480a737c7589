#pragma once
/// A strategy out of a built plugin file.

#include <dlfcn.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "mcit/params.hpp"
#include "mcit/plugin.hpp"

namespace mcit::fake {

using StrategyPtr = std::unique_ptr<Strategy, void (*)(Strategy*)>;

/// @param file name of the plugin; @param name of the strategy in it. Unknown settings throw, as in the
/// engine.
inline StrategyPtr create(const std::string& file, const std::string& name, Host& host,
                          std::map<std::string, Params::Value> values = {}) {
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

}  // namespace mcit::fake
