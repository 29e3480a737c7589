#pragma once
/// Small damage to inputs that were well.

#include <string>
#include <string_view>
#include <vector>

#include "core/random.hpp"

namespace mcit::fuzz {

/// One of the inputs with a few changes: bits, bytes, integers of either byte order, digits, words in quotes,
/// pieces cut, doubled or taken from another input.
std::string mutated(const std::vector<std::string>& inputs, Rng& rng);

/// `input` itself with a few changes, and pieces of `other`.
std::string mutated(std::string input, std::string_view other, Rng& rng);

/// Writes the checksums of a PNG's chunks anew, or no reader looks behind the first changed byte.
void mend_checksums(std::string& png);

}  // namespace mcit::fuzz
