#pragma once
/// A random CLIP model of a few thousand numbers in float64, small enough that its towers can be written out
/// by hand beside it; class texts of three tasks, and pictures that are functions of their names.

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/clip_model.hpp"

namespace mcit::tiny {

constexpr std::int64_t kTextWidth = 8, kTextLayers = 3, kVisionWidth = 12, kVisionLayers = 2, kHeadWidth = 4,
                       kProjection = 6, kSide = 16, kPatch = 8, kVocabulary = 20, kPositions = 24;
constexpr std::int64_t kBegin = 18, kEnd = 19;  // words are the ids below

/// N(0, deviation²), a function of the name.
inline Tensor drawn(const std::string& name, at::IntArrayRef shape, double deviation = 1.0) {
  const at::Generator random = at::make_generator<at::CPUGeneratorImpl>(std::hash<std::string>{}(name));
  return at::randn(shape, random, at::TensorOptions(at::kDouble)) * deviation;
}

inline ClipConfig config() {
  ClipConfig c;
  c.vision = {.hidden_size = kVisionWidth,
              .intermediate_size = 2 * kVisionWidth,
              .num_hidden_layers = kVisionLayers,
              .num_attention_heads = kVisionWidth / kHeadWidth,
              .image_size = kSide,
              .patch_size = kPatch};
  c.text = {.hidden_size = kTextWidth,
            .intermediate_size = 2 * kTextWidth,
            .num_hidden_layers = kTextLayers,
            .num_attention_heads = kTextWidth / kHeadWidth,
            .max_position_embeddings = kPositions,
            .vocab_size = kVocabulary,
            .bos_token_id = kBegin,
            .eos_token_id = kEnd};
  c.projection_dim = kProjection;
  return c;
}

/// The same bytes at every call.
inline StateDict weights() {
  StateDict out;
  const auto add = [&](const std::string& name, at::IntArrayRef shape, double deviation) {
    out[name] = drawn(name, shape, deviation);
  };
  const auto linear = [&](const std::string& name, std::int64_t rows, std::int64_t columns) {
    add(name + ".weight", {rows, columns}, 1.0 / std::sqrt(static_cast<double>(columns)));
    add(name + ".bias", {rows}, 0.2);
  };
  const auto norm = [&](const std::string& name, std::int64_t width) {
    out[name + ".weight"] = 1.0 + drawn(name + ".weight", {width}, 0.2);
    add(name + ".bias", {width}, 0.2);
  };
  const auto blocks = [&](const std::string& tower, std::int64_t layers, std::int64_t width) {
    for (std::int64_t i = 0; i < layers; ++i) {
      const std::string name = tower + "encoder.layers." + std::to_string(i) + ".";
      for (const char* part : {"q_proj", "k_proj", "v_proj", "out_proj"})
        linear(name + "self_attn." + part, width, width);
      norm(name + "layer_norm1", width);
      norm(name + "layer_norm2", width);
      linear(name + "mlp.fc1", 2 * width, width);
      linear(name + "mlp.fc2", width, 2 * width);
    }
  };
  add("vision_model.embeddings.class_embedding", {kVisionWidth}, 1.0);
  add("vision_model.embeddings.patch_embedding.weight", {kVisionWidth, 3, kPatch, kPatch}, 0.1);
  add("vision_model.embeddings.position_embedding.weight",
      {(kSide / kPatch) * (kSide / kPatch) + 1, kVisionWidth}, 0.5);
  norm("vision_model.pre_layrnorm", kVisionWidth);  // spelled as in the published files
  blocks("vision_model.", kVisionLayers, kVisionWidth);
  norm("vision_model.post_layernorm", kVisionWidth);
  add("text_model.embeddings.token_embedding.weight", {kVocabulary, kTextWidth}, 1.0);
  add("text_model.embeddings.position_embedding.weight", {kPositions, kTextWidth}, 0.5);
  blocks("text_model.", kTextLayers, kTextWidth);
  norm("text_model.final_layer_norm", kTextWidth);
  add("visual_projection.weight", {kProjection, kVisionWidth}, 0.3);
  add("text_projection.weight", {kProjection, kTextWidth}, 0.3);
  out["logit_scale"] = at::scalar_tensor(std::log(5.0), at::kDouble);
  return out;
}

inline std::shared_ptr<Clip> clip() {
  Weights taken(weights());
  return std::make_shared<Clip>(config(), taken);
}

/// Tasks 0 and 2 choose among the same three classes, task 1 among two others.
inline std::vector<ClassTexts> class_texts() {
  const auto texts = [](const std::vector<std::vector<std::int64_t>>& names) {
    ClassTexts out;
    for (const std::vector<std::int64_t>& name : names) {
      std::vector<std::int64_t> full = {kBegin, 1, 2}, bare = {kBegin};  // "a picture of"
      for (std::vector<std::int64_t>* text : {&full, &bare}) {
        text->insert(text->end(), name.begin(), name.end());
        text->push_back(kEnd);
      }
      out.full.push_back(full);
      out.bare.push_back(bare);
    }
    return out;
  };
  const ClassTexts three = texts({{5}, {6, 7}, {8}});
  return {three, texts({{9, 10}, {11}}), three};
}

/// [3, S, S], a function of the picture's name.
inline Tensor pixels(const std::string& image) { return drawn("picture " + image, {3, kSide, kSide}); }

inline ExamplePtr example(std::int64_t task, const std::string& image, std::int64_t label) {
  auto out = std::make_shared<Example>();
  out->task = task;
  out->id = image;
  out->image = image;
  out->labels = {label};
  return out;
}

/// `count` examples of a task.
inline Batch examples(std::int64_t task, std::int64_t count) {
  const auto classes =
      static_cast<std::int64_t>(class_texts().at(static_cast<std::size_t>(task)).full.size());
  Batch out;
  for (std::int64_t i = 0; i < count; ++i)
    out.examples.push_back(
        example(task, std::to_string(task) + "/" + std::to_string(i), (i * 7 + task) % classes));
  return out;
}

/// The model with its pictures. Stored features are those of the tower as it was when nothing had been
/// trained.
struct TinyClip {
  TinyClip() : model(clip()) {
    model.set_classes(class_texts());
    model.set_images({[this](const std::string& image) {
                        ++features_read;
                        const at::NoGradGuard no_grad;
                        return untouched->embed_images(pixels(image).unsqueeze(0))[0];
                      },
                      [this](const std::string& image) {
                        ++pixels_read;
                        return pixels(image);
                      }});
  }
  TinyClip(const TinyClip&) = delete;
  TinyClip& operator=(const TinyClip&) = delete;

  std::shared_ptr<Clip> untouched = clip();
  ClipModel model;
  std::int64_t features_read = 0, pixels_read = 0;
};

}  // namespace mcit::tiny
