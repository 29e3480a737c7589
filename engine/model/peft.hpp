#pragma once
/// Adapter folders of the PEFT library: adapter_config.json and adapter_model.safetensors.

#include <filesystem>
#include <string>

#include "mcit/parts/peft.hpp"

namespace mcit {

/// Module path of a published name in LLaVA classes of transformers 4.52 and later.
std::string module_path(const std::string& name);

void write_peft(const std::filesystem::path& folder, const parts::PeftAdapter& adapter);

/// Adds the updates s·B·A of a LoRA folder to the weights that they belong to, and takes the tensors of its
/// modules_to_save in place of the model's own, as PEFT's merge_and_unload() does.
/// @param tensors of a model under canonical names; merged ones are replaced by copies
/// @throws CheckpointError naming file, key or tensor: a kind of adapter that is not plain LoRA, a tensor
/// without its counterpart or of another shape
void merge_peft(StateDict& tensors, const std::filesystem::path& folder);

}  // namespace mcit
