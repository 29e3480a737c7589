#pragma once
/// The only thing a plugin exports: plain data that an engine of any version can begin to read. Needs no
/// LibTorch.

#include <cstdint>

#include "mcit/abi.hpp"

namespace mcit {
class Host;
class Params;
class Strategy;
}  // namespace mcit

extern "C" {

/// One strategy of a plugin. Plain data; strings live as long as the library.
struct mcit_strategy_entry {
  const char* name;
  const char* summary;
  mcit::Strategy* (*create)(const mcit::Params&, mcit::Host&);
  void (*destroy)(mcit::Strategy*);
};

/// `size` and `epoch` stay first for ever, so that any engine can read them.
struct mcit_plugin_descriptor {
  std::uint32_t size;
  std::uint32_t epoch;
  const char* build_tag;
  const char* name;
  const char* version;
  std::uint32_t strategy_count;
  const mcit_strategy_entry* strategies;
};
}

/// ELF section that marks a plugin and holds its build tag.
#define MCIT_PLUGIN_SECTION "mcit.plugin." MCIT_STRINGIZE(MCIT_PLUGIN_EPOCH)
