#pragma once
/// How each family of models names its tensors, in the files that people have and in transformers' modules.

#include <string>

#include "model/hf_config.hpp"
#include "model/model.hpp"

namespace mcit {

struct FamilyNames {
  const char* name;     ///< as BackboneInfo has it
  const char* decoder;  ///< prefix of the decoder's tensors
  const char* head;     ///< the output head
  const char* vision;   ///< prefix of the tower's tensors
  NameGroups groups;    ///< for Backbone's patterns
  bool vision_normed;   ///< the connector reads the tower behind its last norm
};

const FamilyNames& family_names(const MllmConfig& config);

/// Published tensor name of any of the dialects that transformers versions write.
std::string canonical_name(const MllmConfig& config, const std::string& name);

/// Module path of a published name in the classes of transformers 5, as PEFT files have it.
std::string module_path(const MllmConfig& config, const std::string& name);

/// The prompt template that a model was tuned with: its config.json's own, or that of its family's published
/// ones.
const char* usual_template(const MllmConfig& config);

}  // namespace mcit
