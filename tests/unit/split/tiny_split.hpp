#pragma once
/// A split model of a few thousand numbers in float64 over the tower of tiny_clip.hpp, and clients with drawn
/// rows.

#include "core/random.hpp"
#include "split/client.hpp"
#include "split/server.hpp"
#include "unit/tiny_clip.hpp"

namespace mcit::split::tiny {

constexpr std::int64_t kClasses = 5, kVocabulary = 11;

inline Base base(Fusion fusion, std::vector<Modality> modalities = {Modality::image, Modality::text}) {
  Shape shape;
  shape.text_tokens = 3;
  shape.audio_frames = 4;
  shape.audio_values = 3;
  shape.frames_per_token = 2;
  shape.classes = kClasses;
  shape.fusion = fusion;
  shape.modalities = std::move(modalities);
  StateDict tower;
  for (const auto& [name, tensor] : mcit::tiny::weights())
    if (const std::string start = "vision_model."; name.starts_with(start))
      tower[name.substr(start.size())] = tensor;
  Base out =
      make_base(shape, mcit::tiny::config().vision, tower, mcit::tiny::drawn("words", {kVocabulary, 6}), 7);
  out.weights["tail.fc2.weight"] =
      mcit::tiny::drawn("fc2", {kClasses, out.shape.width});  // zero hides the body
  return out;
}

/// A function of its arguments; pictures hold noise.
inline Row row(const Shape& shape, std::uint64_t seed) {
  Rng rng(seed);
  Row out;
  Image picture{static_cast<int>(mcit::tiny::kSide), static_cast<int>(mcit::tiny::kSide), {}};
  for (std::int64_t i = 0; i < 3 * mcit::tiny::kSide * mcit::tiny::kSide; ++i)
    picture.rgb.push_back(static_cast<std::uint8_t>(rng.below(256)));
  const auto has = [&](Modality modality) {
    return std::find(shape.modalities.begin(), shape.modalities.end(), modality) != shape.modalities.end();
  };
  if (has(Modality::image)) out.picture = std::make_shared<const Image>(std::move(picture));
  for (std::int64_t i = 0; i < shape.text_tokens; ++i)
    out.text.push_back(static_cast<std::int64_t>(rng.below(kVocabulary)));
  if (has(Modality::audio))
    for (std::int64_t i = 0; i < shape.audio_frames * shape.audio_values; ++i)
      out.frames.push_back(static_cast<float>(rng.normal()));
  out.label = static_cast<std::int64_t>(rng.below(kClasses));
  return out;
}

inline Tensor pixels(const Image& image) {
  const auto side = mcit::tiny::kSide;
  return at::tensor(at::ArrayRef<std::uint8_t>(image.rgb), at::kByte)
      .view({1, side, side, 3})
      .permute({0, 3, 1, 2})
      .to(at::kDouble)
      .div(255.0);
}

inline ClientParts parts(const Base& base, const std::string& id, std::size_t train, std::size_t test = 0,
                         std::size_t tasks = 1) {
  ClientParts out{id, {}, pixels, {}};
  for (std::size_t t = 0; t < tasks; ++t) {
    TaskRows& rows = out.tasks.emplace_back();
    for (std::size_t i = 0; i < train; ++i)
      rows.train.push_back(row(base.shape, derive(1, {std::string_view(id), "train", t, i})));
    for (std::size_t i = 0; i < test; ++i)
      rows.test.push_back(row(base.shape, derive(1, {std::string_view(id), "test", t, i})));
  }
  return out;
}

inline Inputs inputs(const Base& base, const std::vector<Row>& rows) {
  Inputs out;
  std::vector<Tensor> pictures, frames;
  std::vector<std::int64_t> text;
  for (const Row& row : rows) {
    if (row.picture) pictures.push_back(pixels(*row.picture));
    text.insert(text.end(), row.text.begin(), row.text.end());
    if (!row.frames.empty())
      frames.push_back(at::tensor(row.frames, at::kFloat)
                           .view({1, base.shape.audio_frames, base.shape.audio_values})
                           .to(at::kDouble));
  }
  if (!pictures.empty()) out.pixels = at::cat(pictures);
  out.text =
      at::tensor(text, at::kLong).view({static_cast<std::int64_t>(rows.size()), base.shape.text_tokens});
  if (!frames.empty()) out.frames = at::cat(frames);
  return out;
}

}  // namespace mcit::split::tiny
