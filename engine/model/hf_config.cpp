#include "model/hf_config.hpp"

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostSize = 1 << 24, kMostLayers = 512, kLargestPicture = 1 << 12, kMostScale = 64;

bool is_integer(const json& value) {
  return value.is_number_integer() &&
         !(value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX});
}

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
        if (!is_integer(*found)) throw CheckpointError(where_ + "." + key, "expected an integer");
      }
      target = found->get<T>();
    } catch (const json::exception&) {
      throw CheckpointError(where_ + "." + key,
                            "has the wrong type (" + std::string(found->type_name()) + ")");
    }
  }

  bool has(const char* key) const { return value_.contains(key) && !value_[key].is_null(); }
  /// Empty where there is none.
  Section child(const char* key) const {
    if (!has(key)) return {json::object(), where_ + "." + key};
    if (!value_[key].is_object()) throw CheckpointError(where_ + "." + key, "is not a JSON object");
    return {value_[key], where_ + "." + key};
  }
  const json& value() const { return value_; }

  /// @param most so that no product of sizes overflows, and no loop takes forever
  void positive(const char* key, std::int64_t value, std::int64_t most = kMostSize) const {
    if (value <= 0 || value > most)
      throw CheckpointError(where_ + "." + key, "is " + std::to_string(value),
                            "it must be a size from 1 to " + std::to_string(most));
  }
  /// A number that may stand in a sum or a power of float32.
  void positive(const char* key, double value) const {
    constexpr double kLeast = 1e-30, kMost = 1e30;
    if (!(value >= kLeast && value <= kMost))
      throw CheckpointError(where_ + "." + key, "must be a positive number");
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

Section open_json(const std::filesystem::path& file) {
  constexpr std::uint64_t kLargest = 16ULL << 20;
  constexpr int kDeepest = 64;  // whoever copies or writes it calls itself that often
  json value;
  try {
    value = json::parse(read_file(file, kLargest), [&](int depth, json::parse_event_t, const json&) {
      if (depth > kDeepest) throw CheckpointError(file.string(), "is nested too deeply");
      return true;
    });
  } catch (const json::exception& e) {
    throw CheckpointError(file.string(), std::string("is not JSON: ") + e.what());
  }
  if (!value.is_object()) throw CheckpointError(file.string(), "is not a JSON object");
  return {value, file.string()};
}

Section open_config(const std::filesystem::path& folder) {
  const auto file = folder / "config.json";
  std::error_code ignored;  // what cannot be looked at is not there
  if (!std::filesystem::exists(file, ignored))
    throw CheckpointError(folder.string(), "holds no config.json", "give the folder of a Hugging Face model");
  return open_json(file);
}

/// One id or a list.
void read_ends(const Section& s, DecoderConfig& c) {
  if (!s.has("eos_token_id")) return;
  const json& value = s.value()["eos_token_id"];
  std::vector<std::int64_t> ends;
  for (const json& id : value.is_array() ? value : json::array({value})) {
    if (!is_integer(id)) throw CheckpointError(s.where() + ".eos_token_id", "expected integers");
    ends.push_back(id.get<std::int64_t>());
    if (ends.back() < 0 || ends.back() >= c.vocab_size)
      throw CheckpointError(
          s.where() + ".eos_token_id",
          std::to_string(ends.back()) + " lies outside the vocabulary of " + std::to_string(c.vocab_size));
  }
  if (!ends.empty()) c.eos_token_ids = ends;
}

/// The shape that towers and Q-Former describe by the same keys. @tparam C a config with members of those
/// names
template <class C>
void read_transformer(const Section& s, C& c) {
  s.read("hidden_size", c.hidden_size);
  s.read("intermediate_size", c.intermediate_size);
  s.read("num_hidden_layers", c.num_hidden_layers);
  s.read("num_attention_heads", c.num_attention_heads);
  s.read("layer_norm_eps", c.layer_norm_eps);
  s.read("hidden_act", c.hidden_act);
  s.positive("hidden_size", c.hidden_size);
  s.positive("intermediate_size", c.intermediate_size);
  s.positive("num_hidden_layers", c.num_hidden_layers, kMostLayers);
  s.positive("num_attention_heads", c.num_attention_heads);
  s.positive("layer_norm_eps", c.layer_norm_eps);
  s.known("hidden_act", c.hidden_act, kActivations);
  if (c.hidden_size % c.num_attention_heads != 0)
    throw CheckpointError(s.where(), "hidden_size is no multiple of num_attention_heads");
}

/// Class defaults of the vision towers.
const std::vector<VisionConfig>& vision_defaults() {
  static const std::vector<VisionConfig> known = {
      {"clip_vision_model", 768, 3072, 12, 12, 224, 32, 1e-5, "quick_gelu", true},
      {"siglip_vision_model", 768, 3072, 12, 12, 224, 16, 1e-6, "gelu_pytorch_tanh", true},
      {"idefics3", 1152, 3072, 12, 16, 224, 32, 1e-6, "gelu_pytorch_tanh", true},
      {"instructblip_vision_model", 1408, 6144, 39, 16, 224, 14, 1e-6, "gelu", true},
      {"dinov2", 768, 3072, 12, 12, 224, 14, 1e-6, "gelu", true}};
  return known;
}

/// @param usual the type that a file means when it names none
VisionConfig read_vision(const Section& s, const std::string& usual) {
  std::string type = usual;
  s.read("model_type", type);
  // Idefics3's towers go by several names.
  if (type == "idefics3_vision" || type == "smolvlm" || type == "smolvlm_vision") type = "idefics3";
  std::vector<std::string> types;
  VisionConfig c;
  for (const VisionConfig& known : vision_defaults()) {
    types.push_back(known.model_type);
    if (known.model_type == type) c = known;
  }
  s.known("model_type", type, types);
  if (type == "dinov2") {
    std::int64_t ratio = c.intermediate_size / c.hidden_size;
    bool swiglu = false;
    s.read("mlp_ratio", ratio);
    s.read("hidden_size", c.hidden_size);
    s.positive("mlp_ratio", ratio);
    s.positive("hidden_size", c.hidden_size);
    c.intermediate_size = ratio * c.hidden_size;
    s.read("use_swiglu_ffn", swiglu);
    if (swiglu) throw CheckpointError(s.where() + ".use_swiglu_ffn", "true is not supported");
  }
  s.read("qkv_bias", c.qkv_bias);
  s.read("image_size", c.image_size);
  s.read("patch_size", c.patch_size);
  read_transformer(s, c);
  s.positive("image_size", c.image_size, kLargestPicture);
  s.positive("patch_size", c.patch_size, c.image_size);
  return c;
}

/// @param usual the type that a file means when it names none @param named whether "model_type" is a
/// decoder's
DecoderConfig read_decoder(const Section& s, const std::string& usual, bool named = true) {
  DecoderConfig c;
  std::string act = "silu";
  c.model_type = usual;
  if (named) s.read("model_type", c.model_type);
  s.known("model_type", c.model_type, {"llama", "qwen2"});
  if (c.model_type == "qwen2") {
    c.intermediate_size = 22016;
    c.max_position_embeddings = 32768;
    c.vocab_size = 151936;
    c.qkv_bias = true;
    bool window = false;
    s.read("use_sliding_window", window);
    if (window) throw CheckpointError(s.where() + ".use_sliding_window", "true is not supported");
  } else {
    bool interleaved = false;
    s.read("attention_bias", c.qkv_bias);
    c.o_bias = c.qkv_bias;
    s.read("mlp_bias", c.mlp_bias);
    s.read("rope_interleaved", interleaved);
    if (interleaved) throw CheckpointError(s.where() + ".rope_interleaved", "true is not supported");
  }
  s.read("hidden_act", act);
  s.known("hidden_act", act, {"silu"});
  s.read("hidden_size", c.hidden_size);
  s.read("intermediate_size", c.intermediate_size);
  s.read("num_hidden_layers", c.num_hidden_layers);
  s.read("num_attention_heads", c.num_attention_heads);
  if (c.model_type == "llama") c.num_key_value_heads = c.num_attention_heads;
  s.read("num_key_value_heads", c.num_key_value_heads);
  s.positive("num_attention_heads", c.num_attention_heads);
  s.positive("num_key_value_heads", c.num_key_value_heads);
  s.positive("hidden_size", c.hidden_size);
  s.positive("intermediate_size", c.intermediate_size);
  s.positive("num_hidden_layers", c.num_hidden_layers, kMostLayers);
  c.head_dim = c.hidden_size / c.num_attention_heads;
  s.read("head_dim", c.head_dim);
  s.positive("head_dim", c.head_dim, kMostSize / c.num_attention_heads);
  s.read("max_position_embeddings", c.max_position_embeddings);
  s.positive("max_position_embeddings", c.max_position_embeddings);
  s.read("vocab_size", c.vocab_size);
  s.positive("vocab_size", c.vocab_size);
  s.read("rms_norm_eps", c.rms_norm_eps);
  s.read("rope_theta", c.rope_theta);
  // transformers 5 writes rope_parameters; up to 4.57 rope_theta and rope_scaling.
  const Section rope = s.has("rope_parameters") ? s.child("rope_parameters") : s.child("rope_scaling");
  rope.read("rope_theta", c.rope_theta);
  s.positive("rms_norm_eps", c.rms_norm_eps);
  s.positive("rope_theta", c.rope_theta);
  std::string rope_type = "default";
  rope.read("type", rope_type);
  rope.read("rope_type", rope_type);
  rope.known("rope_type", rope_type, {"default"});
  s.read("bos_token_id", c.bos_token_id);
  s.read("pad_token_id", c.pad_token_id);
  read_ends(s, c);
  s.read("tie_word_embeddings", c.tie_word_embeddings);
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    throw CheckpointError(s.where(), "num_attention_heads is no multiple of num_key_value_heads");
  if (c.head_dim % 2 != 0)
    throw CheckpointError(s.where() + ".head_dim", "must be even for rotary positions");
  return c;
}

void read_text_tower(const Section& s, TextTowerConfig& c) {
  read_transformer(s, c);
  s.read("max_position_embeddings", c.max_position_embeddings);
  s.read("vocab_size", c.vocab_size);
  s.read("bos_token_id", c.bos_token_id);
  s.read("eos_token_id", c.eos_token_id);
  s.read("pad_token_id", c.pad_token_id);
  s.positive("vocab_size", c.vocab_size);
  s.positive("max_position_embeddings", c.max_position_embeddings);
}

QFormerConfig read_qformer(const Section& s) {
  QFormerConfig c;
  read_transformer(s, c);
  s.read("vocab_size", c.vocab_size);
  s.read("max_position_embeddings", c.max_position_embeddings);
  s.read("cross_attention_frequency", c.cross_attention_frequency);
  s.read("encoder_hidden_size", c.encoder_hidden_size);
  s.positive("vocab_size", c.vocab_size);
  s.positive("max_position_embeddings", c.max_position_embeddings);
  s.positive("cross_attention_frequency", c.cross_attention_frequency);
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

namespace {

/// What a section's keys may be called: the same under either name.
void read_image_token(const Section& s, std::int64_t& id) {
  s.read("image_token_index", id);
  s.read("image_token_id", id);
}

void read_llava(const Section& s, MllmConfig& c) {
  // CLIP-L/14-336 is LlavaConfig's default tower, used when a file has no vision_config at all.
  c.vision = s.has("vision_config")
                 ? read_vision(s.child("vision_config"), "clip_vision_model")
                 : VisionConfig{"clip_vision_model", 1024, 4096, 24, 16, 336, 14, 1e-5, "quick_gelu", true};
  c.text = read_decoder(s.child("text_config"), "llama");
}

/// Where the original LLaVA's vision tower lies: its name in config.json is often one on a model hub.
std::filesystem::path find_tower(const std::filesystem::path& folder, const std::string& name) {
  const std::filesystem::path named = name;
  const std::filesystem::path places[] = {folder / named, folder / "vision_tower",
                                          std::filesystem::absolute(folder).parent_path() / named.filename()};
  std::string looked;
  std::error_code ignored;
  for (const auto& place : places) {
    if (std::filesystem::exists(place / "config.json", ignored)) return place;
    looked += (looked.empty() ? "" : ", ") + place.string();
  }
  throw CheckpointError((folder / "config.json").string() + ".mm_vision_tower",
                        "'" + name + "' was found in none of " + looked,
                        "put the tower's folder, or a link to it, at one of these places");
}

/// The form of the original LLaVA repository: a LLaMA's configuration with mm_* keys.
void read_original_llava(const Section& s, const std::filesystem::path& folder, MllmConfig& c) {
  std::string projector = "mlp2x_gelu", feature = "patch", ratio, tower;
  s.read("mm_projector_type", projector);
  s.known("mm_projector_type", projector, {"mlp2x_gelu"});
  s.read("mm_vision_select_feature", feature);
  s.known("mm_vision_select_feature", feature, {"patch", "cls_patch"});
  s.read("mm_vision_select_layer", c.vision_feature_layer);
  s.read("image_aspect_ratio", ratio);
  s.read("mm_vision_tower", tower);
  c.vision_feature_select = feature == "patch" ? "default" : "full";
  c.pad_square = ratio == "pad";
  c.image_token_id = -1;
  c.text = read_decoder(s, "llama", false);
  c.tower = find_tower(folder, tower);
  const Section own = open_config(c.tower);
  c.vision = read_vision(own.has("vision_config") ? own.child("vision_config") : own, "clip_vision_model");
}

void read_onevision(const Section& s, MllmConfig& c) {
  c.image_token_id = 151646;
  c.vision_feature_layer = -1;
  c.vision_feature_select = "full";
  c.vision = s.has("vision_config") ? read_vision(s.child("vision_config"), "siglip_vision_model")
                                    : VisionConfig{"siglip_vision_model", 1152, 4304, 26, 16, 384, 14, 1e-6,
                                                   "gelu_pytorch_tanh",   true};
  c.text = read_decoder(s.child("text_config"), "qwen2");
  std::string ratio = "anyres_max_9";
  s.read("vision_aspect_ratio", ratio);
  constexpr std::string_view kPrefix = "anyres_max_";
  const std::string number = ratio.starts_with(kPrefix) ? ratio.substr(kPrefix.size()) : "";
  if (number.empty() || number.size() > 3 || number.find_first_not_of("0123456789") != std::string::npos)
    throw CheckpointError(s.where() + ".vision_aspect_ratio", "'" + ratio + "' is not supported",
                          "known: anyres_max_N");
  c.most_tiles = std::stol(number);
  s.positive("vision_aspect_ratio", c.most_tiles);
}

void read_idefics3(const Section& s, MllmConfig& c) {
  c.image_token_id = 128257;
  c.vision_feature_layer = -1;
  c.vision_feature_select = "full";
  c.vision = read_vision(s.child("vision_config"), "idefics3");
  c.text = read_decoder(s.child("text_config"), "llama");
  if (!s.has("text_config")) c.text.rms_norm_eps = 1e-5;
  s.read("scale_factor", c.scale_factor);
  s.positive("scale_factor", c.scale_factor, kMostScale);
  if (c.vision.side() % c.scale_factor != 0)
    throw CheckpointError(s.where() + ".scale_factor",
                          "does not divide the tower's " + std::to_string(c.vision.side()) + " patches");
}

void read_instructblip(const Section& s, MllmConfig& c) {
  c.image_token_id = -1;
  c.vision_feature_layer = -1;
  c.vision_feature_select = "full";
  c.vision = read_vision(s.child("vision_config"), "instructblip_vision_model");
  bool decoder_only = true;
  s.read("use_decoder_only_language_model", decoder_only);
  if (!decoder_only)
    throw CheckpointError(s.where() + ".use_decoder_only_language_model",
                          "false is not supported (an encoder-decoder such as FlanT5)",
                          "InstructBLIP with Vicuna is");
  c.text = read_decoder(s.child("text_config"), "llama");
  c.qformer = read_qformer(s.child("qformer_config"));
  s.read("num_query_tokens", c.qformer.num_query_tokens);
  s.positive("num_query_tokens", c.qformer.num_query_tokens);
  if (c.qformer.encoder_hidden_size != c.vision.hidden_size)
    throw CheckpointError(s.where() + ".qformer_config.encoder_hidden_size",
                          "is not the tower's hidden_size " + std::to_string(c.vision.hidden_size));
}

struct FamilyReader {
  const char* model_type;
  Family family;
  void (*read)(const Section&, MllmConfig&);
};

constexpr FamilyReader kReaders[] = {
    {"llava", Family::llava, read_llava},
    {"llava_onevision", Family::llava_onevision, read_onevision},
    {"idefics3", Family::idefics3, read_idefics3},
    {"smolvlm", Family::idefics3, read_idefics3},
    {"instructblip", Family::instructblip, read_instructblip},
    {"llama", Family::text, nullptr},
    {"qwen2", Family::text, nullptr},
};

/// Both versions' names: "torch_dtype" up to 4.57, "dtype" in 5; in every section that has one.
void set_dtype(json& section, const std::string& dtype) {
  for (const char* key : {"torch_dtype", "dtype"})
    if (section.contains(key)) section[key] = dtype;
  for (auto& [key, value] : section.items())
    if (value.is_object()) set_dtype(value, dtype);
}

json with_dtype(const std::string& source, const std::string& dtype) {
  json out = json::parse(source);
  if (!out.contains("dtype")) out["torch_dtype"] = dtype;
  set_dtype(out, dtype);
  return out;
}

}  // namespace

std::int64_t MllmConfig::image_tokens() const {
  switch (family) {
    case Family::idefics3:
      return vision.patches() / (scale_factor * scale_factor);
    case Family::instructblip:
      return qformer.num_query_tokens;
    case Family::text:
      return 0;
    case Family::llava:
    case Family::llava_onevision:
      break;
  }
  const std::int64_t first = vision_has_class_token(vision.model_type) ? 1 : 0;
  return vision.patches() + first - (vision_feature_select == "full" ? 0 : 1);
}

bool vision_has_class_token(const std::string& model_type) {
  return model_type != "siglip_vision_model" && model_type != "idefics3";
}

MllmConfig read_mllm_config(const std::filesystem::path& folder) {
  const Section s = open_config(folder);
  MllmConfig c;
  c.source = s.value().dump(2) + "\n";
  std::string type;
  s.read("model_type", type);
  const bool original = s.has("mm_vision_tower");
  if (original) type = "llava";
  std::vector<std::string> types;
  const FamilyReader* reader = nullptr;
  for (const FamilyReader& known : kReaders) {
    types.emplace_back(known.model_type);
    if (known.model_type == type) reader = &known;
  }
  s.known("model_type", type, types);
  c.family = reader->family;
  s.read("prompt_template", c.prompt_template);
  s.read("torch_dtype", c.stored_dtype);
  s.read("dtype", c.stored_dtype);
  if (c.family == Family::text) {
    c.image_token_id = -1;
    c.text = read_decoder(s, type);
  } else if (original) {
    read_original_llava(s, folder, c);
  } else {
    reader->read(s, c);
    read_image_token(s, c.image_token_id);
    bool tied = false;  // either level ties
    s.read("tie_word_embeddings", tied);
    c.text.tie_word_embeddings = c.text.tie_word_embeddings || tied;
    const bool none = c.family == Family::instructblip && c.image_token_id < 0;
    if (!none && (c.image_token_id < 0 || c.image_token_id >= c.text.vocab_size))
      throw CheckpointError(s.where() + ".image_token_index",
                            "lies outside the vocabulary of " + std::to_string(c.text.vocab_size));
  }
  if (!original && (c.family == Family::llava || c.family == Family::llava_onevision)) {
    s.read("vision_feature_layer", c.vision_feature_layer);
    s.read("vision_feature_select_strategy", c.vision_feature_select);
    s.known("vision_feature_select_strategy", c.vision_feature_select, {"default", "full"});
    s.read("projector_hidden_act", c.projector_hidden_act);
    s.known("projector_hidden_act", c.projector_hidden_act, kActivations);
    s.read("multimodal_projector_bias", c.projector_bias);
  }
  if (c.family == Family::llava || c.family == Family::llava_onevision) {
    const std::int64_t states = c.vision.num_hidden_layers + 1;
    if (c.vision_feature_layer < -states || c.vision_feature_layer >= states)
      throw CheckpointError(s.where() + ".vision_feature_layer",
                            "the tower has no layer " + std::to_string(c.vision_feature_layer));
  }
  // What ends an answer is often said in generation_config.json alone.
  if (std::error_code ignored; std::filesystem::exists(folder / "generation_config.json", ignored))
    read_ends(open_json(folder / "generation_config.json"), c.text);
  return c;
}

ClipConfig read_clip_config(const std::filesystem::path& folder) {
  const Section s = open_config(folder);
  std::string type = "clip";
  s.read("model_type", type);
  s.known("model_type", type, {"clip", "siglip"});
  ClipConfig c;
  c.siglip = type == "siglip";
  c.source = s.value().dump(2) + "\n";
  if (c.siglip) {
    c.vision = read_vision(s.child("vision_config"), "siglip_vision_model");
    bool head = true;
    s.child("vision_config").read("vision_use_head", head);
    if (!head)
      throw CheckpointError(s.where() + ".vision_config.vision_use_head",
                            "false leaves no picture embedding");
    c.text = {.hidden_size = 768,
              .intermediate_size = 3072,
              .num_hidden_layers = 12,
              .num_attention_heads = 12,
              .max_position_embeddings = 64,
              .vocab_size = 32000,
              .layer_norm_eps = 1e-6,
              .hidden_act = "gelu_pytorch_tanh"};
    read_text_tower(s.child("text_config"), c.text);
    if (c.text.pad_token_id < 0 || c.text.pad_token_id >= c.text.vocab_size)
      throw CheckpointError(s.where() + ".text_config.pad_token_id", "lies outside the vocabulary");
    c.projection_dim = c.text.hidden_size;
    s.child("text_config").read("projection_size", c.projection_dim);
    s.positive("text_config.projection_size", c.projection_dim);
    return c;
  }
  // Old files carry *_config_dict beside *_config; the former win, as in transformers.
  c.vision =
      read_vision(s.has("vision_config_dict") ? s.child("vision_config_dict") : s.child("vision_config"),
                  "clip_vision_model");
  read_text_tower(s.has("text_config_dict") ? s.child("text_config_dict") : s.child("text_config"), c.text);
  s.read("projection_dim", c.projection_dim);
  s.positive("projection_dim", c.projection_dim);
  s.read("logit_scale_init_value", c.logit_scale_init);
  return c;
}

std::string mllm_config_json(const MllmConfig& c, const std::string& dtype) {
  if (!c.source.empty()) {
    json out = with_dtype(c.source, dtype);
    if (!c.prompt_template.empty()) out["prompt_template"] = c.prompt_template;
    return out.dump(2) + "\n";
  }
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
  json out = {{"architectures", {"LlavaForConditionalGeneration"}},
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
  if (!c.prompt_template.empty()) out["prompt_template"] = c.prompt_template;
  return out.dump(2) + "\n";
}

std::string clip_config_json(const ClipConfig& c, const std::string& dtype) {
  if (!c.source.empty()) return with_dtype(c.source, dtype).dump(2) + "\n";
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
