#pragma once
/// LoRA adapters in the format of the PEFT library.

#include <functional>
#include <string>

#include "mcit/parts/adapter_set.hpp"
#include "mcit/parts/base_tensors.hpp"

namespace mcit::parts {

struct PeftAdapter {
  StateDict tensors;   ///< for adapter_model.safetensors
  std::string config;  ///< text of adapter_config.json
};

/// @param adapters LoRAs of one rank, scale and dropout
/// @param base tensors trained in full, PEFT's modules_to_save; may be empty
/// @param base_model value of base_model_name_or_path
/// @param module_path from a published tensor or site name to the module path in the reader's transformers
/// version;
///   empty keeps the names
/// @throws Error when an adapter is no LoRA or the LoRAs differ in their options
MCIT_EXPORT PeftAdapter export_peft(const AdapterSet& adapters, const BaseTensors& base,
                                    const std::string& base_model,
                                    const std::function<std::string(const std::string&)>& module_path = {});

}  // namespace mcit::parts
