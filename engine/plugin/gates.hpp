#pragma once
/// The gates that a file passes before any of its strategies is made. Private to this library.

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "mcit/descriptor.hpp"
#include "plugin/catalogue.hpp"

namespace mcit {

struct GatedPlugin {
  PluginReport report;                              ///< strategies are listed, none is shadowed yet
  std::span<const mcit_strategy_entry> strategies;  ///< empty unless the report says loaded
};

/// Takes a file through the gates: its section and build tag as bytes, then opening, then the descriptor.
/// Never throws for what is wrong with the file. A library that was opened stays open for the life of the
/// process, refused or not.
GatedPlugin pass_gates(const std::filesystem::path& file);

/// "built with torch=2.10.0, gcc=11; this engine has torch=2.11.0, gcc=12": every field that differs.
std::string tag_difference(std::string_view plugin, std::string_view engine);

}  // namespace mcit
