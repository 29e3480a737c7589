#pragma once
/// Hugging Face config.json, with the class defaults that published files leave out.
/// Source of the defaults: transformers' CLIPVisionConfig, CLIPTextConfig, LlamaConfig and LlavaConfig.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mcit {

/// A CLIP vision tower ("clip_vision_model").
struct VisionConfig {
  std::int64_t hidden_size = 768;
  std::int64_t intermediate_size = 3072;
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 12;
  std::int64_t image_size = 224;  ///< pixels
  std::int64_t patch_size = 32;   ///< pixels
  double layer_norm_eps = 1e-5;
  std::string hidden_act = "quick_gelu";

  std::int64_t patches() const { return (image_size / patch_size) * (image_size / patch_size); }
};

/// A CLIP text tower ("clip_text_model").
struct TextTowerConfig {
  std::int64_t hidden_size = 512;
  std::int64_t intermediate_size = 2048;
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 8;
  std::int64_t max_position_embeddings = 77;
  std::int64_t vocab_size = 49408;
  double layer_norm_eps = 1e-5;
  std::string hidden_act = "quick_gelu";
  std::int64_t bos_token_id = 49406;
  std::int64_t eos_token_id = 49407;
};

/// A LLaMA-shaped decoder ("llama").
struct DecoderConfig {
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 11008;
  std::int64_t num_hidden_layers = 32;
  std::int64_t num_attention_heads = 32;
  std::int64_t num_key_value_heads = 32;
  std::int64_t head_dim = 128;
  std::int64_t max_position_embeddings = 2048;
  std::int64_t vocab_size = 32000;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  std::vector<std::int64_t> eos_token_ids = {2};
  std::int64_t bos_token_id = 1;
  std::int64_t pad_token_id = -1;
  bool tie_word_embeddings = false;
};

struct LlavaConfig {
  VisionConfig vision;
  DecoderConfig text;
  std::int64_t image_token_id = 32000;
  std::int64_t vision_feature_layer = -2;
  std::string vision_feature_select = "default";  ///< "default" drops the class token, "full" keeps it
  std::string projector_hidden_act = "gelu";
  bool projector_bias = true;

  /// Visual tokens of one picture.
  std::int64_t image_tokens() const { return vision.patches() + (vision_feature_select == "full" ? 1 : 0); }
};

struct ClipConfig {
  VisionConfig vision;
  TextTowerConfig text;
  std::int64_t projection_dim = 512;
  double logit_scale_init = 2.6592;
};

/// The "model_type" of a folder's config.json. @throws CheckpointError when there is none.
std::string model_type(const std::filesystem::path& folder);

/// @throws CheckpointError naming file and key for a missing file, a wrong type or a value this engine cannot
/// run.
LlavaConfig read_llava_config(const std::filesystem::path& folder);
ClipConfig read_clip_config(const std::filesystem::path& folder);

/// The text of a config.json that transformers loads.
std::string llava_config_json(const LlavaConfig& config, const std::string& dtype);
std::string clip_config_json(const ClipConfig& config, const std::string& dtype);

}  // namespace mcit
