#pragma once
/// LoRA adapters in the format of the PEFT library.

#include <functional>
#include <string>
#include <vector>

#include "mcit/backbone.hpp"

namespace mcit::parts {

struct PeftAdapter {
  StateDict tensors;   ///< for adapter_model.safetensors
  std::string config;  ///< text of adapter_config.json
};

/// @param sites whose active adapters are taken: one LoRA each at most, all of one rank, scale and dropout
/// @param trained what a strategy trains; those that are no LoRA's are PEFT's modules_to_save
/// @param base_model value of base_model_name_or_path
/// @param module_path from a published tensor or site name to the module path in the reader's transformers
/// version; empty keeps the names
/// @throws Error when an adapter is no LoRA, the LoRAs differ in their options, or there is none
MCIT_EXPORT PeftAdapter export_peft(const std::vector<Site*>& sites, const Parameters& trained,
                                    const std::string& base_model,
                                    const std::function<std::string(const std::string&)>& module_path = {});

}  // namespace mcit::parts
