#pragma once
/// The one line that turns a translation unit into a plugin:
///
///     MCIT_PLUGIN("mcit-ewc", "0.1.0", mcit::strategy<Ewc>("ewc", "Elastic weight consolidation"))

#include "mcit/build_tag.hpp"
#include "mcit/descriptor.hpp"
#include "mcit/strategy.hpp"

namespace mcit {

template <class S>
constexpr mcit_strategy_entry strategy(const char* name, const char* summary) {
  return {name, summary, [](const Params& params, Host& host) -> Strategy* { return new S(params, host); },
          [](Strategy* made) { delete made; }};
}

}  // namespace mcit

/// @param plugin_name, plugin_version string literals; then one or more mcit::strategy<Class>(name, summary)
#define MCIT_PLUGIN(plugin_name, plugin_version, ...)                                                      \
  namespace {                                                                                              \
  const mcit_strategy_entry mcit_plugin_strategies[] = {__VA_ARGS__};                                      \
  /* Read from the file before it is opened: no code of a foreign library ever runs. The descriptor refers \
   * to  */                                                                                                \
  /* it, so that no linker drops the section. */                                                           \
  [[gnu::used, gnu::section(MCIT_PLUGIN_SECTION)]] const char mcit_plugin_mark[] = MCIT_BUILD_TAG;         \
  }                                                                                                        \
  extern "C" MCIT_EXPORT const mcit_plugin_descriptor mcit_plugin;                                         \
  extern "C" const mcit_plugin_descriptor mcit_plugin = {                                                  \
      sizeof(mcit_plugin_descriptor),                                                                      \
      MCIT_PLUGIN_EPOCH,                                                                                   \
      mcit_plugin_mark,                                                                                    \
      plugin_name,                                                                                         \
      plugin_version,                                                                                      \
      sizeof(mcit_plugin_strategies) / sizeof(mcit_plugin_strategies[0]),                                  \
      mcit_plugin_strategies};
