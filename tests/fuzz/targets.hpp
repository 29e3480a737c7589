#pragma once
/// The readers that are fed with damaged files.

#include <filesystem>
#include <string>
#include <vector>

#include "core/random.hpp"

namespace mcit::fuzz {

struct Target {
  const char* name;
  std::vector<std::string> inputs;  ///< of the fixtures
  std::string (*damage)(const std::vector<std::string>& inputs, Rng& rng);
  /// Lays the input into an empty folder where it belongs, and reads it. @throws Error when it is refused
  void (*feed)(const std::string& input, const std::filesystem::path& folder);
};

/// safetensors, gguf, tokenizer, png, jpeg, config, preprocessor, adapter
std::vector<Target> all_targets();

}  // namespace mcit::fuzz
