#pragma once
/// Adapter folders of the PEFT library: adapter_config.json and adapter_model.safetensors.

#include <filesystem>
#include <string>
#include <vector>

#include "mcit/parts/peft.hpp"
#include "model/hf_config.hpp"

namespace mcit {

/// A LoRA folder, with names as published files have them.
struct PeftFolder {
  struct Lora {
    std::string module;            ///< name of the linear layer
    Tensor down, up;               ///< A [r, in], B [out, r]
    double scale = 1.0;            ///< lora_alpha / r, or / sqrt(r) for rsLoRA
    std::string down_key, up_key;  ///< in the file
  };
  struct Saved {
    std::string name;  ///< of the tensor
    Tensor value;
    std::string key;
  };
  std::vector<Lora> loras;
  std::vector<Saved> saved;  ///< of modules_to_save
};

/// Reads LoRA, rsLoRA, rank_pattern, alpha_pattern and modules_to_save, in every spelling of keys that
/// transformers and PEFT versions write.
/// @throws CheckpointError naming file and key: a kind of adapter that is not plain LoRA, half a pair, a rank
/// that is not what the settings say
PeftFolder read_peft(const std::filesystem::path& folder, const MllmConfig& config);

void write_peft(const std::filesystem::path& folder, const parts::PeftAdapter& adapter);

/// Adds the updates s·B·A to the weights that they belong to, and takes the tensors of modules_to_save in
/// place of the model's own, as PEFT's merge_and_unload() does.
/// @param tensors of a model under canonical names; merged ones are replaced by copies
/// @throws CheckpointError also for a tensor without its counterpart in the model or of another shape
void merge_peft(StateDict& tensors, const MllmConfig& config, const std::filesystem::path& folder);

}  // namespace mcit
