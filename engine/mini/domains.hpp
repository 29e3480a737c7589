#pragma once
/// MCIT-mini's domains: the pack's concepts in four styles, a stand-in for Office-Home and in its layout.
///
///     <folder>/<Domain>/<concept>/NNN.png    64 x 64 RGB
///     <folder>/<Domain>/meta.json            settings, pack hash
///
///     Twemoji   the drawing as the built-in base saw it: any ground, jittered colours
///     Noto      the same of the other vendor's drawing
///     Sketch    the lines of the drawing, dark on light paper
///     Negative  a photographic negative

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "mini/stream.hpp"

namespace mcit::mini {

struct DomainOptions {
  std::uint64_t seed = 1;
  int classes = 54;     ///< concepts, spread evenly over the pack's groups
  int pictures = 20;    ///< of each class in each domain
  double jitter = 0.4;  ///< strength 0..1 of the change of style
};

/// The options as a suite's table gives them, every key optional: seed, classes, pictures, jitter. Throws
/// ConfigError for a value out of range. The caller finishes the table.
DomainOptions read_domain_options(const Config& table);

/// Twemoji, Noto, Sketch, Negative.
const std::vector<std::string_view>& domain_names();

/// `count` concepts: the first of each of the pack's groups, then the second of each, and so on. Throws
/// ConfigError when the pack has fewer.
std::vector<const Thing*> domain_concepts(const Pack& pack, int count);

/// Picture `index` of a concept, 64 x 64 RGB: a function of seed, jitter, domain, concept and index alone.
/// Throws ConfigError for an unknown domain.
Raster domain_picture(const DomainOptions& options, std::string_view domain, const Thing& thing, int index);

/// The folder of all domains below `cache_root`, named after the hash of pack and options; domains that are
/// not there yet are written.
std::filesystem::path materialise_domains(const Pack& pack, const DomainOptions& options,
                                          const std::filesystem::path& cache_root,
                                          const MiniProgress& progress = {});

}  // namespace mcit::mini
