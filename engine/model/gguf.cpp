#include "model/gguf.hpp"

#include <charconv>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "core/json.hpp"
#include "core/progress.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "model/gguf_file.hpp"
#include "model/gguf_tokenizer.hpp"

namespace mcit {
namespace {

struct Shape {
  bool qwen = false;
  std::int64_t hidden = 0, inner = 0, layers = 0, heads = 0, kv_heads = 0, head = 0, context = 0, rows = 0;
  double eps = 0, theta = 0;
};

/// 1e-05 was stored as a float32: the shortest decimal that reads back equal, not its sixteen digits.
double decimal(double stored) {
  char text[32];
  *std::to_chars(text, text + sizeof text - 1, static_cast<float>(stored)).ptr = '\0';
  return std::strtod(text, nullptr);
}

Shape read_shape(const GgufFile& file) {
  const std::string family = file.text("general.architecture");
  if (family != "llama" && family != "qwen2")
    throw CheckpointError(file.where() + ": general.architecture",
                          "'" + printable(family) + "' is not supported", "known: llama, qwen2");
  const auto key = [&](const char* name) { return family + "." + name; };
  const auto size = [&](const char* name, std::optional<std::int64_t> otherwise = {}) {
    const std::int64_t value = file.integer(key(name), otherwise);
    if (value <= 0 || value > INT32_MAX)
      throw CheckpointError(file.where() + ": " + key(name), "is " + std::to_string(value),
                            "it must be a positive size");
    return value;
  };
  const auto refuse = [&](const std::string& name, const std::string& what) {
    throw CheckpointError(file.where() + ": " + name, what, "such models are not supported");
  };
  Shape s;
  s.qwen = family == "qwen2";
  s.hidden = size("embedding_length");
  s.inner = size("feed_forward_length");
  s.layers = size("block_count");
  s.heads = size("attention.head_count");
  s.kv_heads = size("attention.head_count_kv", s.heads);
  s.head = size("attention.key_length", std::max<std::int64_t>(s.hidden / s.heads, 1));
  s.context = size("context_length");
  s.eps = decimal(file.number(key("attention.layer_norm_rms_epsilon")));
  s.theta = decimal(file.number(key("rope.freq_base"), 10000.0));
  if (s.heads % s.kv_heads != 0) refuse(key("attention.head_count"), "is no multiple of head_count_kv");
  if (size("attention.value_length", s.head) != s.head)
    refuse(key("attention.value_length"), "differs from key_length");
  if (s.head % 2 != 0 || size("rope.dimension_count", s.head) != s.head)
    refuse(key("rope.dimension_count"), "is not the whole of an even head");
  if (file.text(key("rope.scaling.type"), "none") != "none" || !file.shape("rope_freqs.weight").empty())
    refuse(key("rope.scaling.type"), "rotary positions are scaled");
  if (file.integer(key("expert_count"), 0) != 0) refuse(key("expert_count"), "is a mixture of experts");
  const std::vector<std::int64_t> embedding = file.shape("token_embd.weight");
  if (embedding.size() != 2)
    throw CheckpointError(file.where() + ": token_embd.weight", "is missing or no matrix",
                          "the file may hold only a part of the model");
  s.rows = embedding[0];
  return s;
}

/// One tensor: its name in the file and in Hugging Face, its shape.
struct Slot {
  std::string gguf, name;
  std::vector<std::int64_t> shape;
  std::int64_t turned_heads = 0;  ///< rows that llama.cpp reordered within this many heads
};

std::vector<Slot> slots_of_block(const Shape& s, std::int64_t block) {
  const std::int64_t queries = s.heads * s.head, keys = s.kv_heads * s.head;
  const std::int64_t turned = s.qwen ? 0 : s.heads, turned_keys = s.qwen ? 0 : s.kv_heads;
  std::vector<Slot> slots = {
      {"attn_norm.weight", "input_layernorm.weight", {s.hidden}},
      {"attn_q.weight", "self_attn.q_proj.weight", {queries, s.hidden}, turned},
      {"attn_k.weight", "self_attn.k_proj.weight", {keys, s.hidden}, turned_keys},
      {"attn_v.weight", "self_attn.v_proj.weight", {keys, s.hidden}},
      {"attn_output.weight", "self_attn.o_proj.weight", {s.hidden, queries}},
      {"ffn_norm.weight", "post_attention_layernorm.weight", {s.hidden}},
      {"ffn_gate.weight", "mlp.gate_proj.weight", {s.inner, s.hidden}},
      {"ffn_up.weight", "mlp.up_proj.weight", {s.inner, s.hidden}},
      {"ffn_down.weight", "mlp.down_proj.weight", {s.hidden, s.inner}},
  };
  if (s.qwen) {
    slots.push_back({"attn_q.bias", "self_attn.q_proj.bias", {queries}});
    slots.push_back({"attn_k.bias", "self_attn.k_proj.bias", {keys}});
    slots.push_back({"attn_v.bias", "self_attn.v_proj.bias", {keys}});
  }
  for (Slot& slot : slots) {
    slot.gguf = "blk." + std::to_string(block) + "." + slot.gguf;
    slot.name = "model.layers." + std::to_string(block) + "." + slot.name;
  }
  return slots;
}

/// llama.cpp rotates neighbours (2i, 2i + 1), Hugging Face halves (i, i + d/2): the rows of queries and keys
/// were put in the other order.
Tensor turned_back(const Tensor& rows, std::int64_t heads) {
  const std::int64_t columns = rows.size(1), head = rows.size(0) / heads;
  return rows.view({heads, head / 2, 2, columns}).transpose(1, 2).reshape(rows.sizes());
}

Tensor read_slot(const GgufFile& file, const Slot& slot, std::optional<at::ScalarType> dtype) {
  const std::string where = file.where() + ": " + slot.gguf;
  const std::vector<std::int64_t> found = file.shape(slot.gguf);
  if (found.empty()) throw CheckpointError(where, "is missing", "the file may hold only a part of the model");
  if (found != slot.shape)
    throw CheckpointError(
        where, "has the shape " + Json(found).dump() + ", the metadata say " + Json(slot.shape).dump());
  Tensor tensor = file.tensor(slot.gguf);
  if (slot.turned_heads > 0) tensor = turned_back(tensor, slot.turned_heads);
  if (!dtype) return tensor;
  tensor = tensor.to(*dtype);
  if (*dtype == at::kHalf && !tensor.isfinite().all().item<bool>())
    throw CheckpointError(where, "has numbers that float16 does not hold", "ask for bfloat16 or float32");
  return tensor;
}

StateDict read_tensors(const GgufFile& file, const Shape& s, std::optional<at::ScalarType> dtype) {
  const std::vector<std::string> names = file.tensor_names();
  std::set<std::string> left(names.begin(), names.end());
  Progress bar(std::filesystem::path(file.where()).filename().string(),
               static_cast<std::int64_t>(names.size()), "tensors");
  StateDict out;
  const auto read = [&](const Slot& slot) {
    if (interrupted()) throw Interrupted();
    out[slot.name] = read_slot(file, slot, dtype);
    left.erase(slot.gguf);
    bar.advance();
  };
  read({"token_embd.weight", "model.embed_tokens.weight", {s.rows, s.hidden}});
  for (std::int64_t block = 0; block < s.layers; ++block)
    for (const Slot& slot : slots_of_block(s, block)) read(slot);
  read({"output_norm.weight", "model.norm.weight", {s.hidden}});
  if (left.contains("output.weight")) read({"output.weight", "lm_head.weight", {s.rows, s.hidden}});
  if (!left.empty())
    throw CheckpointError(file.where(), "tensor '" + printable(*left.begin()) + "' belongs to no such model",
                          "the model has parts that are not supported");
  return out;
}

std::string config_json(const GgufFile& file, const Shape& s) {
  const auto token = [&](const char* name) -> Json {
    const std::string key = "tokenizer.ggml." + std::string(name) + "_token_id";
    if (!file.has(key)) return nullptr;
    const std::int64_t id = file.integer(key);
    if (id < 0 || id >= s.rows)
      throw CheckpointError(file.where() + ": " + key,
                            "lies outside the vocabulary of " + std::to_string(s.rows));
    return id;
  };
  Json config = {{"architectures", {s.qwen ? "Qwen2ForCausalLM" : "LlamaForCausalLM"}},
                 {"model_type", s.qwen ? "qwen2" : "llama"},
                 {"hidden_act", "silu"},
                 {"hidden_size", s.hidden},
                 {"intermediate_size", s.inner},
                 {"num_hidden_layers", s.layers},
                 {"num_attention_heads", s.heads},
                 {"num_key_value_heads", s.kv_heads},
                 {"head_dim", s.head},
                 {"max_position_embeddings", s.context},
                 {"vocab_size", s.rows},
                 {"rms_norm_eps", s.eps},
                 {"rope_theta", s.theta},
                 {"tie_word_embeddings", file.shape("output.weight").empty()},
                 {"bos_token_id", token("bos")},
                 {"eos_token_id", token("eos")},
                 {"pad_token_id", token("padding")}};
  if (s.qwen) {
    config["use_sliding_window"] = false;
  } else {
    config["attention_bias"] = config["mlp_bias"] = false;
  }
  return dump_json(config, 2) + "\n";
}

}  // namespace

GgufModel read_gguf(const std::filesystem::path& path, std::optional<at::ScalarType> dtype) {
  const GgufFile file(path);
  const Shape shape = read_shape(file);
  GgufTokenizer tokenizer = read_gguf_tokenizer(file, shape.rows);
  GgufModel model;
  model.config_json = config_json(file, shape);
  model.tokenizer_json = std::move(tokenizer.json);
  model.tokenizer_config_json = std::move(tokenizer.config_json);
  model.tokenizer_missing = std::move(tokenizer.missing);
  model.tensors = read_tensors(file, shape, dtype);
  return model;
}

}  // namespace mcit
