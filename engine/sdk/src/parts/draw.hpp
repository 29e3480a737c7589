#pragma once
/// What adapters start from, and checks of their settings. Private to the parts.

#include <string>

#include "mcit/backbone.hpp"

namespace mcit::parts {

/// [rows, in] of U(±1/sqrt(in)), a linear layer's default; requires a gradient. Drawn in float32 on the CPU
/// whatever the device, so that a seed means the same numbers everywhere.
Tensor drawn_rows(std::int64_t in, std::int64_t rows, const at::TensorOptions& options,
                  const at::Generator& generator);

/// B of a fresh adapter at a site, [out, width]; requires a gradient.
Tensor zero_up(const Site& site, std::int64_t width);

/// Rows at unit length; a row of zeros stays one.
Tensor unit_rows(const Tensor& x);

/// @throws ConfigError for the setting `key` unless `holds`
void require(bool holds, const char* key, const std::string& what, const std::string& hint = {});

}  // namespace mcit::parts
