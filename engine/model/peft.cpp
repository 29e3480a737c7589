#include "model/peft.hpp"

#include <torch/types.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "model/mllm.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

constexpr const char *kConfig = "adapter_config.json", *kTensors = "adapter_model.safetensors";

/// r and s of a LoRA folder that this engine can merge.
struct LoraScale {
  std::int64_t rank;
  double scale;
};

LoraScale read_scale(const std::filesystem::path& file) {
  const Json config = read_json(file);
  const std::string where = file.string();
  if (json_text(config, "peft_type", where) != "LORA")
    throw CheckpointError(where + ": peft_type", "is not LORA", "no other kind of adapter can be merged");
  const auto plain = [&](const char* key, const Json& usual) {
    const auto found = config.find(key);
    if (found != config.end() && !found->is_null() && *found != usual)
      throw CheckpointError(where + ": " + key, "asks for more than plain LoRA");
  };
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora"})
    plain(key, false);
  plain("bias", "none");
  plain("rank_pattern", Json::object());
  plain("alpha_pattern", Json::object());
  const std::int64_t rank = json_integer(config, "r", where);
  if (rank < 1) throw CheckpointError(where + ": r", "must be at least 1");
  const double alpha = json_number(config, "lora_alpha", where), r = static_cast<double>(rank);
  return {rank, alpha / (config.value("use_rslora", false) ? std::sqrt(r) : r)};
}

}  // namespace

std::string module_path(const std::string& name) {
  for (const auto& [from, to] : {std::pair{"language_model.model.", "model.language_model."},
                                 std::pair{"language_model.lm_head", "lm_head"},
                                 std::pair{"multi_modal_projector.", "model.multi_modal_projector."},
                                 std::pair{"vision_tower.vision_model.", "model.vision_tower.vision_model."}})
    if (name.starts_with(from)) return to + name.substr(std::char_traits<char>::length(from));
  return name;
}

void write_peft(const std::filesystem::path& folder, const parts::PeftAdapter& adapter) {
  std::filesystem::create_directories(folder);
  write_atomic(folder / kConfig, adapter.config);
  write_safetensors(folder / kTensors, adapter.tensors);
}

void merge_peft(StateDict& tensors, const std::filesystem::path& folder) {
  const LoraScale lora = read_scale(folder / kConfig);
  const std::filesystem::path file = folder / kTensors;
  const StateDict saved = read_safetensors(file).tensors;
  const std::string prefix = "base_model.model.", a_end = ".lora_A.weight", b_end = ".lora_B.weight";
  const auto target = [&](const std::string& name, const std::string& key) -> Tensor& {
    const auto found = tensors.find(name);
    if (found == tensors.end())
      throw CheckpointError(file.string() + ": " + key, "belongs to '" + name + "', which the model has not",
                            "the adapter is of another model");
    return found->second;
  };
  for (const auto& [key, tensor] : saved) {
    if (!key.starts_with(prefix))
      throw CheckpointError(file.string() + ": " + key, "does not begin with '" + prefix + "'");
    const std::string name = canonical_name(key.substr(prefix.size()));
    if (name.ends_with(b_end)) {
      const std::string other = key.substr(0, key.size() - b_end.size()) + a_end;
      if (!saved.contains(other)) throw CheckpointError(file.string() + ": " + key, "has no '" + other + "'");
      continue;
    }
    if (!name.ends_with(a_end)) {  // of modules_to_save
      Tensor& own = target(name, key);
      if (own.sizes() != tensor.sizes())
        throw CheckpointError(file.string() + ": " + key, "has another shape than the model's tensor");
      own = tensor;
      continue;
    }
    const std::string other = key.substr(0, key.size() - a_end.size()) + b_end;
    const auto up = saved.find(other);
    if (up == saved.end()) throw CheckpointError(file.string() + ": " + key, "has no '" + other + "'");
    Tensor& weight = target(name.substr(0, name.size() - a_end.size()) + ".weight", key);
    if (weight.dim() != 2 || tensor.sizes() != at::IntArrayRef({lora.rank, weight.size(1)}) ||
        up->second.sizes() != at::IntArrayRef({weight.size(0), lora.rank}))
      throw CheckpointError(file.string() + ": " + key,
                            "does not fit the model's weight at rank " + std::to_string(lora.rank));
    const Tensor update = at::mm(up->second.to(at::kFloat), tensor.to(at::kFloat)) * lora.scale;
    weight = weight.to(at::kFloat) + update;  // not rounded to the type that the file stores weights in
  }
}

}  // namespace mcit
