#pragma once
/// Where what is installed beside the executable lies.

#include <filesystem>

namespace mcit {

/// Folder with suites, built-in models and published tables: $MCIT_SHARE, or share/mcit beside the
/// executable's folder.
std::filesystem::path share_dir();

}  // namespace mcit
