#include "split/shape.hpp"

#include <algorithm>

#include "mcit/errors.hpp"

namespace mcit::split {

const char* name_of(Modality modality) {
  constexpr const char* kNames[] = {"image", "text", "audio"};
  return kNames[static_cast<std::size_t>(modality)];
}

Modality modality_of(const std::string& name) {
  std::vector<std::string> known;
  for (const Modality modality : kModalities) {
    if (name == name_of(modality)) return modality;
    known.emplace_back(name_of(modality));
  }
  throw ConfigError("model.modalities", "'" + name + "' is not known", suggestion(name, known));
}

std::int64_t Shape::tokens(Modality modality) const {
  switch (modality) {
    case Modality::image:
      return patches + (class_token ? 1 : 0);
    case Modality::text:
      return text_tokens;
    case Modality::audio:
      return audio_frames / frames_per_token;
  }
  return 0;
}

std::vector<std::int64_t> Shape::sequences(const std::vector<Modality>& present) const {
  std::vector<std::int64_t> lengths;
  std::int64_t together = 0;
  for (const Modality modality : present) {
    lengths.push_back(tokens(modality));
    together += lengths.back();
  }
  return fusion == Fusion::late ? lengths : std::vector<std::int64_t>{together};
}

std::int64_t Shape::tail_width() const {
  return fusion == Fusion::late ? width * static_cast<std::int64_t>(modalities.size()) : width;
}

Flops flops_of(const Shape& shape, const std::vector<Modality>& present, const Trained& trained,
               bool training) {
  const auto d = static_cast<double>(shape.width), inner = static_cast<double>(shape.inner);
  const auto has = [&](Modality modality) {
    return std::find(present.begin(), present.end(), modality) != present.end();
  };
  Flops out;
  double words = 0.0;
  if (has(Modality::image))
    out.heads_forward += 2.0 * static_cast<double>(shape.patches * shape.patch_values) * d;
  if (has(Modality::text)) words = 2.0 * static_cast<double>(shape.text_tokens * shape.text_width) * d;
  out.heads_forward += words;
  if (has(Modality::audio))
    out.heads_forward += 2.0 * static_cast<double>(shape.audio_frames * shape.audio_values) * d;
  if (training && trained.heads) out.heads_backward = out.heads_forward + words;  // to the embedding as well

  double linears = 0.0, attention = 0.0;
  for (const std::int64_t length : shape.sequences(present)) {
    const auto l = static_cast<double>(length);
    linears += l * (8.0 * d * d + 4.0 * d * inner);
    attention += 4.0 * l * l * d;
  }
  const auto blocks = static_cast<double>(shape.blocks),
             learning = static_cast<double>(std::min(shape.blocks, trained.blocks));
  const double tail =
      2.0 * static_cast<double>(shape.tail_width()) * d + 2.0 * d * static_cast<double>(shape.classes);
  out.body_forward = blocks * (linears + attention) + tail;
  if (!training) return out;
  const double crossed = trained.heads ? blocks : learning;  // blocks that a gradient goes through
  out.body_backward = crossed * (linears + 2.0 * attention) + learning * linears + 2.0 * tail;
  return out;
}

}  // namespace mcit::split
