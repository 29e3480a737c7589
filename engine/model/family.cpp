#include "model/family.hpp"

#include <array>
#include <utility>
#include <vector>

namespace mcit {
namespace {

using Renames = std::vector<std::pair<std::string, std::string>>;  // prefix -> prefix, first match wins

/// The LLaVA family: published files keep the module paths of transformers before 4.52.
/// The original LLaVA repository's names, those of a LLaMA with more in it, are told apart by what follows
/// "model.".
const Renames kLlavaPublished = {
    {"model.language_model.", "language_model.model."},
    {"model.embed_tokens.", "language_model.model.embed_tokens."},
    {"model.layers.", "language_model.model.layers."},
    {"model.norm.", "language_model.model.norm."},
    {"model.mm_projector.0.", "multi_modal_projector.linear_1."},
    {"model.mm_projector.2.", "multi_modal_projector.linear_2."},
    {"mm_projector.0.", "multi_modal_projector.linear_1."},
    {"mm_projector.2.", "multi_modal_projector.linear_2."},
    {"model.vision_tower.vision_tower.vision_model.", "vision_tower.vision_model."},
    {"model.vision_tower.vision_model.", "vision_tower.vision_model."},
    {"model.vision_tower.", "vision_tower.vision_model."},
    {"model.multi_modal_projector.", "multi_modal_projector."},
    {"model.image_newline", "image_newline"},
    {"lm_head.", "language_model.lm_head."},
    {"vision_tower.vision_model.", "vision_tower.vision_model."},
    {"vision_tower.", "vision_tower.vision_model."}};
const Renames kLlavaModules = {{"language_model.model.", "model.language_model."},
                               {"language_model.lm_head.", "lm_head."},
                               {"vision_tower.vision_model.", "model.vision_tower."},
                               {"multi_modal_projector.", "model.multi_modal_projector."},
                               {"image_newline", "model.image_newline"}};

std::string renamed(const Renames& renames, const std::string& name) {
  for (const auto& [from, to] : renames)
    if (name.starts_with(from)) return to + name.substr(from.size());
  return name;
}

bool llava_like(const MllmConfig& c) {
  return c.family == Family::llava || c.family == Family::llava_onevision;
}

/// DINOv2's class has no inner module around its tensors, as CLIP's and SigLIP's had.
bool bare_tower(const MllmConfig& c) { return llava_like(c) && c.vision.model_type == "dinov2"; }
/// Its attention is named anew in transformers 5; files keep the old names.
const std::array<std::pair<std::string, std::string>, 4> kDinoAttention = {
    {{"attention.q_proj", "attention.attention.query"},
     {"attention.k_proj", "attention.attention.key"},
     {"attention.v_proj", "attention.attention.value"},
     {"attention.o_proj", "attention.output.dense"}}};
std::string with_part(std::string name, const std::string& from, const std::string& to) {
  if (const auto at = name.find("." + from); at != std::string::npos) name.replace(at + 1, from.size(), to);
  return name;
}
constexpr const char *kWrapped = "vision_tower.vision_model.", *kBare = "vision_tower.";

}  // namespace

/// image_newline and query_tokens are tensors of no module, which PEFT's modules_to_save cannot name; they
/// are frozen unless a pattern asks for them.
const FamilyNames& family_names(const MllmConfig& config) {
  static const FamilyNames llava{"llava",
                                 "language_model.model.",
                                 "language_model.lm_head.weight",
                                 "vision_tower.vision_model.",
                                 {{"language_model."}, "vision_tower.", {"multi_modal_projector."}},
                                 false};
  static const FamilyNames llava_bare = [] {
    FamilyNames names = llava;
    names.vision = kBare;
    return names;
  }();
  static const FamilyNames onevision{"llava_onevision",
                                     "language_model.model.",
                                     "language_model.lm_head.weight",
                                     "vision_tower.vision_model.",
                                     {{"language_model."}, "vision_tower.", {"multi_modal_projector."}},
                                     false};
  static const FamilyNames idefics3{
      "idefics3",
      "model.text_model.",
      "lm_head.weight",
      "model.vision_model.",
      {{"model.text_model.", "lm_head."}, "model.vision_model.", {"model.connector."}},
      true};
  static const FamilyNames instructblip{
      "instructblip",
      "language_model.model.",
      "language_model.lm_head.weight",
      "vision_model.",
      {{"language_model."}, "vision_model.", {"qformer.", "language_projection."}},
      true};
  static const FamilyNames text{"text", "model.", "lm_head.weight", "", {{"model.", "lm_head."}, {}, {}},
                                false};
  switch (config.family) {
    case Family::llava:
      return bare_tower(config) ? llava_bare : llava;
    case Family::llava_onevision:
      return onevision;
    case Family::idefics3:
      return idefics3;
    case Family::instructblip:
      return instructblip;
    case Family::text:
      break;
  }
  return text;
}

std::string canonical_name(const MllmConfig& config, const std::string& name) {
  if (!llava_like(config)) return name;
  const std::string out = renamed(kLlavaPublished, name);
  if (!bare_tower(config)) return out;
  std::string bare = renamed({{kWrapped, kBare}}, out);
  if (bare.starts_with(kBare))
    for (const auto& [now, published] : kDinoAttention) bare = with_part(bare, now, published);
  return bare;
}

std::string module_path(const MllmConfig& config, const std::string& name) {
  if (!llava_like(config)) return name;
  const std::string out = renamed(kLlavaModules, name);
  if (!bare_tower(config) || !out.starts_with(kBare)) return out;
  std::string path = renamed({{kBare, "model.vision_tower."}}, out);
  for (const auto& [now, published] : kDinoAttention) path = with_part(path, published, now);
  return path;
}

const char* usual_template(const MllmConfig& config) {
  if (!config.prompt_template.empty()) return config.prompt_template.c_str();
  switch (config.family) {
    case Family::llava:
      return config.tower.empty() ? "llava" : "vicuna_v1";
    case Family::llava_onevision:
      return "chatml";
    case Family::idefics3:
      return "smolvlm";
    case Family::instructblip:
    case Family::text:
      break;
  }
  return "question";
}

}  // namespace mcit
