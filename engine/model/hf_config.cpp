#include "model/hf_config.hpp"

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

using nlohmann::json;

/// One JSON object with the file and key path that errors name.
class Section {
 public:
  Section(json value, std::string where) : value_(std::move(value)), where_(std::move(where)) {}

  template <class T>
  void read(const char* key, T& target) const {
    const auto found = value_.find(key);
    if (found == value_.end() || found->is_null()) return;
    try {
      if constexpr (std::is_same_v<T, std::int64_t>) {
        if (!found->is_number_integer()) throw CheckpointError(where_ + "." + key, "expected an integer");
      }
      target = found->get<T>();
    } catch (const json::exception&) {
      throw CheckpointError(where_ + "." + key,
                            "has the wrong type (" + std::string(found->type_name()) + ")");
    }
  }

  bool has(const char* key) const { return value_.contains(key) && !value_[key].is_null(); }
  Section child(const char* key) const {
    return {value_.contains(key) && value_[key].is_object() ? value_[key] : json::object(),
            where_ + "." + key};
  }
  const json& value() const { return value_; }

  void positive(const char* key, std::int64_t value) const {
    if (value <= 0 || value > (1LL << 31))
      throw CheckpointError(where_ + "." + key, "is " + std::to_string(value), "it must be a positive size");
  }
  void known(const char* key, const std::string& value, const std::vector<std::string>& allowed) const {
    for (const std::string& name : allowed)
      if (name == value) return;
    throw CheckpointError(where_ + "." + key, "'" + value + "' is not supported", suggestion(value, allowed));
  }
  const std::string& where() const { return where_; }

 private:
  json value_;
  std::string where_;
};

const std::vector<std::string> kActivations = {"quick_gelu", "gelu", "gelu_pytorch_tanh", "silu"};

Section open_config(const std::filesystem::path& folder) {
  const auto file = folder / "config.json";
  if (!std::filesystem::exists(file))
    throw CheckpointError(folder.string(), "holds no config.json", "give the folder of a Hugging Face model");
  json value;
  try {
    value = json::parse(read_file(file));
  } catch (const json::exception& e) {
    throw CheckpointError(file.string(), std::string("is not JSON: ") + e.what());
  }
  if (!value.is_object()) throw CheckpointError(file.string(), "is not a JSON object");
  return {value, file.string()};
}

VisionConfig read_vision(const Section& s) {
  VisionConfig c;
  std::string type = "clip_vision_model";
  s.read("model_type", type);
  s.known("model_type", type, {"clip_vision_model"});
  s.read("hidden_size", c.hidden_size);
  s.read("intermediate_size", c.intermediate_size);
  s.read("num_hidden_layers", c.num_hidden_layers);
  s.read("num_attention_heads", c.num_attention_heads);
  s.read("image_size", c.image_size);
  s.read("patch_size", c.patch_size);
  s.read("layer_norm_eps", c.layer_norm_eps);
  s.read("hidden_act", c.hidden_act);
  s.known("hidden_act", c.hidden_act, kActivations);
  s.positive("hidden_size", c.hidden_size);
  s.positive("intermediate_size", c.intermediate_size);
  s.positive("num_hidden_layers", c.num_hidden_layers);
  s.positive("num_attention_heads", c.num_attention_heads);
  s.positive("patch_size", c.patch_size);
  if (c.image_size < c.patch_size || c.image_size > 1 << 14)
    throw CheckpointError(s.where() + ".image_size", "does not fit patch_size");
  if (c.hidden_size % c.num_attention_heads != 0)
    throw CheckpointError(s.where(), "hidden_size is no multiple of num_attention_heads");
  return c;
}

DecoderConfig read_decoder(const Section& s) {
  DecoderConfig c;
  std::string type = "llama", act = "silu";
  s.read("model_type", type);
  s.known("model_type", type, {"llama"});
  s.read("hidden_act", act);
  s.known("hidden_act", act, {"silu"});
  s.read("hidden_size", c.hidden_size);
  s.read("intermediate_size", c.intermediate_size);
  s.read("num_hidden_layers", c.num_hidden_layers);
  s.read("num_attention_heads", c.num_attention_heads);
  c.num_key_value_heads = c.num_attention_heads;
  s.read("num_key_value_heads", c.num_key_value_heads);
  s.positive("num_attention_heads", c.num_attention_heads);
  s.positive("num_key_value_heads", c.num_key_value_heads);
  s.positive("hidden_size", c.hidden_size);
  s.positive("intermediate_size", c.intermediate_size);
  s.positive("num_hidden_layers", c.num_hidden_layers);
  c.head_dim = c.hidden_size / c.num_attention_heads;
  s.read("head_dim", c.head_dim);
  s.positive("head_dim", c.head_dim);
  s.read("max_position_embeddings", c.max_position_embeddings);
  s.read("vocab_size", c.vocab_size);
  s.positive("vocab_size", c.vocab_size);
  s.read("rms_norm_eps", c.rms_norm_eps);
  s.read("rope_theta", c.rope_theta);
  // transformers 5 writes rope_parameters; up to 4.57 rope_theta and rope_scaling.
  const Section rope = s.has("rope_parameters") ? s.child("rope_parameters") : s.child("rope_scaling");
  rope.read("rope_theta", c.rope_theta);
  std::string rope_type = "default";
  rope.read("type", rope_type);
  rope.read("rope_type", rope_type);
  rope.known("rope_type", rope_type, {"default"});
  bool bias = false;
  s.read("attention_bias", bias);
  if (bias) throw CheckpointError(s.where() + ".attention_bias", "true is not supported");
  s.read("mlp_bias", bias);
  if (bias) throw CheckpointError(s.where() + ".mlp_bias", "true is not supported");
  s.read("bos_token_id", c.bos_token_id);
  s.read("pad_token_id", c.pad_token_id);
  if (s.has("eos_token_id")) {
    if (s.value()["eos_token_id"].is_array()) {
      s.read("eos_token_id", c.eos_token_ids);
    } else {
      std::int64_t one = 2;
      s.read("eos_token_id", one);
      c.eos_token_ids = {one};
    }
  }
  s.read("tie_word_embeddings", c.tie_word_embeddings);
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    throw CheckpointError(s.where(), "num_attention_heads is no multiple of num_key_value_heads");
  if (c.head_dim % 2 != 0)
    throw CheckpointError(s.where() + ".head_dim", "must be even for rotary positions");
  return c;
}

TextTowerConfig read_text_tower(const Section& s) {
  TextTowerConfig c;
  s.read("hidden_size", c.hidden_size);
  s.read("intermediate_size", c.intermediate_size);
  s.read("num_hidden_layers", c.num_hidden_layers);
  s.read("num_attention_heads", c.num_attention_heads);
  s.read("max_position_embeddings", c.max_position_embeddings);
  s.read("vocab_size", c.vocab_size);
  s.read("layer_norm_eps", c.layer_norm_eps);
  s.read("hidden_act", c.hidden_act);
  s.read("bos_token_id", c.bos_token_id);
  s.read("eos_token_id", c.eos_token_id);
  s.known("hidden_act", c.hidden_act, kActivations);
  s.positive("hidden_size", c.hidden_size);
  s.positive("num_attention_heads", c.num_attention_heads);
  s.positive("num_hidden_layers", c.num_hidden_layers);
  s.positive("max_position_embeddings", c.max_position_embeddings);
  if (c.hidden_size % c.num_attention_heads != 0)
    throw CheckpointError(s.where(), "hidden_size is no multiple of num_attention_heads");
  return c;
}

json vision_json(const VisionConfig& c) {
  return {{"model_type", "clip_vision_model"},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.num_hidden_layers},
          {"num_attention_heads", c.num_attention_heads},
          {"image_size", c.image_size},
          {"patch_size", c.patch_size},
          {"layer_norm_eps", c.layer_norm_eps},
          {"hidden_act", c.hidden_act},
          {"projection_dim", c.hidden_size}};
}

}  // namespace

std::string model_type(const std::filesystem::path& folder) {
  const Section s = open_config(folder);
  std::string type;
  s.read("model_type", type);
  if (type.empty()) throw CheckpointError(s.where() + ".model_type", "is missing");
  return type;
}

LlavaConfig read_llava_config(const std::filesystem::path& folder) {
  const Section s = open_config(folder);
  LlavaConfig c;
  std::string type = "llava";
  s.read("model_type", type);
  s.known("model_type", type, {"llava"});
  // CLIP-L/14-336 is LlavaConfig's default tower, used when a file has no vision_config at all.
  if (!s.has("vision_config"))
    c.vision = {1024, 4096, 24, 16, 336, 14, 1e-5, "quick_gelu"};
  else
    c.vision = read_vision(s.child("vision_config"));
  c.text = read_decoder(s.child("text_config"));
  s.read("image_token_index", c.image_token_id);
  s.read("image_token_id", c.image_token_id);
  s.read("vision_feature_layer", c.vision_feature_layer);
  s.read("vision_feature_select_strategy", c.vision_feature_select);
  s.known("vision_feature_select_strategy", c.vision_feature_select, {"default", "full"});
  s.read("projector_hidden_act", c.projector_hidden_act);
  s.known("projector_hidden_act", c.projector_hidden_act, kActivations);
  s.read("multimodal_projector_bias", c.projector_bias);
  s.read("tie_word_embeddings", c.text.tie_word_embeddings);  // either level ties
  if (s.child("text_config").has("tie_word_embeddings"))
    s.child("text_config").read("tie_word_embeddings", c.text.tie_word_embeddings);
  const std::int64_t states = c.vision.num_hidden_layers + 1;
  if (c.vision_feature_layer < -states || c.vision_feature_layer >= states)
    throw CheckpointError(s.where() + ".vision_feature_layer",
                          "the tower has no layer " + std::to_string(c.vision_feature_layer));
  if (c.image_token_id < 0 || c.image_token_id >= c.text.vocab_size)
    throw CheckpointError(s.where() + ".image_token_index",
                          "lies outside the vocabulary of " + std::to_string(c.text.vocab_size));
  return c;
}

ClipConfig read_clip_config(const std::filesystem::path& folder) {
  const Section s = open_config(folder);
  std::string type = "clip";
  s.read("model_type", type);
  s.known("model_type", type, {"clip"});
  ClipConfig c;
  // Old files carry *_config_dict beside *_config; the former win, as in transformers.
  c.vision =
      read_vision(s.has("vision_config_dict") ? s.child("vision_config_dict") : s.child("vision_config"));
  c.text = read_text_tower(s.has("text_config_dict") ? s.child("text_config_dict") : s.child("text_config"));
  s.read("projection_dim", c.projection_dim);
  s.read("logit_scale_init_value", c.logit_scale_init);
  return c;
}

std::string llava_config_json(const LlavaConfig& c, const std::string& dtype) {
  const DecoderConfig& t = c.text;
  json eos = t.eos_token_ids.size() == 1 ? json(t.eos_token_ids[0]) : json(t.eos_token_ids);
  json text = {{"model_type", "llama"},
               {"hidden_size", t.hidden_size},
               {"intermediate_size", t.intermediate_size},
               {"num_hidden_layers", t.num_hidden_layers},
               {"num_attention_heads", t.num_attention_heads},
               {"num_key_value_heads", t.num_key_value_heads},
               {"head_dim", t.head_dim},
               {"max_position_embeddings", t.max_position_embeddings},
               {"vocab_size", t.vocab_size},
               {"rms_norm_eps", t.rms_norm_eps},
               {"rope_theta", t.rope_theta},
               {"bos_token_id", t.bos_token_id},
               {"eos_token_id", eos},
               {"tie_word_embeddings", t.tie_word_embeddings}};
  if (t.pad_token_id >= 0) text["pad_token_id"] = t.pad_token_id;
  const json out = {{"architectures", {"LlavaForConditionalGeneration"}},
                    {"model_type", "llava"},
                    {"torch_dtype", dtype},
                    {"image_token_index", c.image_token_id},
                    {"image_seq_length", c.image_tokens()},
                    {"vision_feature_layer", c.vision_feature_layer},
                    {"vision_feature_select_strategy", c.vision_feature_select},
                    {"projector_hidden_act", c.projector_hidden_act},
                    {"multimodal_projector_bias", c.projector_bias},
                    {"tie_word_embeddings", t.tie_word_embeddings},
                    {"vision_config", vision_json(c.vision)},
                    {"text_config", text}};
  return out.dump(2) + "\n";
}

std::string clip_config_json(const ClipConfig& c, const std::string& dtype) {
  const TextTowerConfig& t = c.text;
  json vision = vision_json(c.vision);
  vision["projection_dim"] = c.projection_dim;
  const json text = {{"model_type", "clip_text_model"},
                     {"hidden_size", t.hidden_size},
                     {"intermediate_size", t.intermediate_size},
                     {"num_hidden_layers", t.num_hidden_layers},
                     {"num_attention_heads", t.num_attention_heads},
                     {"max_position_embeddings", t.max_position_embeddings},
                     {"vocab_size", t.vocab_size},
                     {"layer_norm_eps", t.layer_norm_eps},
                     {"hidden_act", t.hidden_act},
                     {"bos_token_id", t.bos_token_id},
                     {"eos_token_id", t.eos_token_id},
                     {"projection_dim", c.projection_dim}};
  const json out = {{"architectures", {"CLIPModel"}},
                    {"model_type", "clip"},
                    {"torch_dtype", dtype},
                    {"projection_dim", c.projection_dim},
                    {"logit_scale_init_value", c.logit_scale_init},
                    {"vision_config", vision},
                    {"text_config", text}};
  return out.dump(2) + "\n";
}

}  // namespace mcit
