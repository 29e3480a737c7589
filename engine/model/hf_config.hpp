#pragma once
/// Hugging Face config.json, with the class defaults that published files leave out.
/// Source of the defaults: the configuration classes of transformers 5.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mcit {

/// A vision transformer; `model_type` says which tensors it has and how they are named.
struct VisionConfig {
  std::string model_type = "clip_vision_model";
  std::int64_t hidden_size = 768;
  std::int64_t intermediate_size = 3072;
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 12;
  std::int64_t image_size = 224;  ///< pixels
  std::int64_t patch_size = 32;   ///< pixels
  double layer_norm_eps = 1e-5;
  std::string hidden_act = "quick_gelu";
  bool qkv_bias = true;

  std::int64_t side() const { return image_size / patch_size; }  ///< patches along an edge
  std::int64_t patches() const { return side() * side(); }
};

/// A text tower of CLIP or SigLIP.
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
  std::int64_t pad_token_id = 1;
};

/// A decoder of the LLaMA shape: "llama" (Vicuna, SmolLM2) and "qwen2", which differ in biases.
struct DecoderConfig {
  std::string model_type = "llama";
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
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  std::vector<std::int64_t> eos_token_ids = {2};
  std::int64_t bos_token_id = 1;
  std::int64_t pad_token_id = -1;
  bool tie_word_embeddings = false;
};

/// Whether a kind of tower puts a class token in front of the patches.
bool vision_has_class_token(const std::string& model_type);

/// InstructBLIP's Q-Former: a BERT over learnt queries and the instruction; the queries look at the picture.
struct QFormerConfig {
  std::int64_t vocab_size = 30522;
  std::int64_t hidden_size = 768;
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 12;
  std::int64_t intermediate_size = 3072;
  std::string hidden_act = "gelu";
  double layer_norm_eps = 1e-12;
  std::int64_t max_position_embeddings = 512;
  std::int64_t cross_attention_frequency = 2;
  std::int64_t encoder_hidden_size = 1408;
  std::int64_t num_query_tokens = 32;
};

enum class Family { llava, llava_onevision, idefics3, instructblip, text };

/// A decoder with what lets it see. Which members mean something depends on the family.
struct MllmConfig {
  Family family = Family::llava;
  VisionConfig vision;
  DecoderConfig text;
  std::int64_t image_token_id = 32000;            ///< -1: none
  std::int64_t vision_feature_layer = -2;         ///< hidden_states index that feeds the connector
  std::string vision_feature_select = "default";  ///< "default" drops the first row, "full" keeps all
  std::string projector_hidden_act = "gelu";
  bool projector_bias = true;
  std::int64_t most_tiles = 9;    ///< LLaVA-OneVision: N of vision_aspect_ratio "anyres_max_N"
  std::int64_t scale_factor = 2;  ///< Idefics3: patches along an edge that become one row
  QFormerConfig qformer;          ///< InstructBLIP
  std::string stored_dtype;       ///< "torch_dtype" or "dtype", such as "bfloat16"; empty: not said
  std::string prompt_template;    ///< our own key: empty means the family's usual one
  /// The original LLaVA repository's form: the tower lies in a folder of its own, and the tokenizer has no
  /// token for pictures.
  std::filesystem::path tower;
  bool pad_square = false;  ///< its image_aspect_ratio is "pad"
  std::string source;       ///< config.json as it was read; empty for a model made here

  bool sees() const { return family != Family::text; }
  /// hidden_states index, counted from 0 (the embeddings).
  std::int64_t feature_layer() const {
    return vision_feature_layer < 0 ? vision.num_hidden_layers + 1 + vision_feature_layer
                                    : vision_feature_layer;
  }
  /// Visual rows of one tile, before any packing.
  std::int64_t image_tokens() const;
};

struct ClipConfig {
  bool siglip = false;  ///< pooling by attention, texts read both ways, a bias on the scores
  VisionConfig vision;
  TextTowerConfig text;
  std::int64_t projection_dim = 512;
  double logit_scale_init = 2.6592;
  std::string source;  ///< config.json as it was read; empty for a model made here
};

/// The "model_type" of a folder's config.json. @throws CheckpointError when there is none.
std::string model_type(const std::filesystem::path& folder);

/// @throws CheckpointError naming file and key for a missing file, a wrong type or a value this engine cannot
/// run.
MllmConfig read_mllm_config(const std::filesystem::path& folder);
ClipConfig read_clip_config(const std::filesystem::path& folder);

/// The text of a config.json that transformers loads: the one that was read, with another dtype, or a
/// LLaVA's.
std::string mllm_config_json(const MllmConfig& config, const std::string& dtype);
std::string clip_config_json(const ClipConfig& config, const std::string& dtype);

}  // namespace mcit
