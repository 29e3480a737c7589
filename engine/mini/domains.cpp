#include "mini/domains.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "core/config.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "core/random.hpp"
#include "mcit/errors.hpp"
#include "mini/canvas.hpp"
#include "mini/folders.hpp"
#include "mini/styles.hpp"

namespace mcit::mini {
namespace {

namespace fs = std::filesystem;

/// Raised when the same options give other bytes than before: old caches are then not taken for new ones.
constexpr int kFormat = 1;

/// A drawing somewhere on what the canvas holds.
void draw(Canvas& canvas, Rng& rng, const Texture& drawing, double jitter) {
  Place where = somewhere(rng, 34, 60);
  where.angle = between(rng, -0.25, 0.25) * static_cast<float>(jitter);
  canvas.draw(drawing, where, random_paint(rng, jitter), 1);
}

Raster coloured(Rng& rng, const Texture& drawing, double jitter) {
  Canvas canvas;
  canvas.background(rng);
  draw(canvas, rng, drawing, jitter);
  canvas.finish(rng, 0.3 * jitter);
  return canvas.picture();
}

Raster sketched(Rng& rng, const Texture& drawing, double jitter) {
  Canvas canvas;
  canvas.fill({255, 0, 255});  // hardly any drawing has it: the outline shows all around
  draw(canvas, rng, drawing, jitter);
  const float paper = between(rng, 225, 255), ink = between(rng, 0, 70);
  return line_drawing(canvas.picture(), {paper, paper, paper}, {ink, ink, ink});
}

Raster inverted(Rng& rng, const Texture& drawing, double jitter) {
  Canvas canvas;
  const float light = between(rng, 150, 215);
  canvas.fill({light, light, light});
  draw(canvas, rng, drawing, jitter);
  canvas.finish(rng, 0.3 * jitter);
  return negative(canvas.picture());
}

Json settings_json(const Pack& pack, const DomainOptions& options) {
  return {{"format", kFormat},          {"pack", pack.digest()},        {"seed", options.seed},
          {"classes", options.classes}, {"pictures", options.pictures}, {"jitter", options.jitter}};
}

void write_domain(const Pack& pack, const DomainOptions& options, std::string_view domain,
                  const fs::path& folder) {
  for (const Thing* thing : domain_concepts(pack, options.classes)) {
    fs::create_directories(folder / thing->name);
    for (int i = 0; i < options.pictures; ++i)
      write_bytes(folder / thing->name / (number(i, 3) + ".png"),
                  encode_png(domain_picture(options, domain, *thing, i)));
  }
  Json meta = settings_json(pack, options);
  meta["domain"] = std::string(domain);
  write_json(folder / "meta.json", meta);
}

}  // namespace

DomainOptions read_domain_options(const Config& table) {
  DomainOptions options;
  options.seed = static_cast<std::uint64_t>(table.integer("seed", 1, 0));
  options.classes = static_cast<int>(table.integer("classes", options.classes, 2, 1000));
  options.pictures = static_cast<int>(table.integer("pictures", options.pictures, 2, 1000));
  options.jitter = table.number("jitter", options.jitter, 0, 1);
  return options;
}

const std::vector<std::string_view>& domain_names() {
  static const std::vector<std::string_view> names{"Twemoji", "Noto", "Sketch", "Negative"};
  return names;
}

std::vector<const Thing*> domain_concepts(const Pack& pack, int count) {
  if (count > std::ssize(pack.concepts))
    throw ConfigError(
        "mini.classes",
        "the pack has " + std::to_string(pack.concepts.size()) + " concepts, not " + std::to_string(count),
        "ask for fewer");
  std::map<std::string, int> ranks;  // how many of a group stand before
  std::vector<std::pair<int, const Thing*>> ranked;
  for (const Thing& thing : pack.concepts) ranked.emplace_back(ranks[thing.group]++, &thing);
  std::ranges::stable_sort(ranked, {}, [](const auto& entry) { return entry.first; });
  std::vector<const Thing*> chosen;
  for (int i = 0; i < count; ++i) chosen.push_back(ranked[static_cast<std::size_t>(i)].second);
  return chosen;
}

Raster domain_picture(const DomainOptions& options, std::string_view domain, const Thing& thing, int index) {
  Rng rng(derive(options.seed, {"domains", domain, std::string_view(thing.name), index}));
  if (domain == "Twemoji") return coloured(rng, thing.by(Vendor::kTwemoji), options.jitter);
  if (domain == "Noto") return coloured(rng, thing.by(Vendor::kNoto), options.jitter);
  if (domain == "Sketch") return sketched(rng, thing.by(Vendor::kTwemoji), options.jitter);
  if (domain == "Negative") return inverted(rng, thing.by(Vendor::kTwemoji), options.jitter);
  throw ConfigError("domain", "there is no domain '" + std::string(domain) + "'",
                    suggestion(domain, {domain_names().begin(), domain_names().end()}));
}

fs::path materialise_domains(const Pack& pack, const DomainOptions& options, const fs::path& cache_root,
                             const MiniProgress& progress) {
  const fs::path folder =
      cache_root / ("domains-" + hash_text(dump_json(settings_json(pack, options))).substr(0, 16));
  const auto& names = domain_names();
  for (std::size_t i = 0; i < names.size(); ++i) {
    const fs::path target = folder / names[i];
    if (is_cached(target)) continue;
    if (progress) progress(names[i], i, names.size());
    write_cached_folder(target,
                        [&](const fs::path& temporary) { write_domain(pack, options, names[i], temporary); });
  }
  return folder;
}

}  // namespace mcit::mini
