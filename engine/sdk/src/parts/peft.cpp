#include "mcit/parts/peft.hpp"

#include <charconv>
#include <set>

#include "mcit/errors.hpp"
#include "mcit/parts/lora.hpp"
#include "mcit/parts/state_reader.hpp"

namespace mcit::parts {
namespace {

std::string quoted(const std::string& text) {
  constexpr const char* kHex = "0123456789abcdef";
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      (out += '\\') += c;
    else if (byte < 0x20)
      ((out += "\\u00") += kHex[byte >> 4]) += kHex[byte & 15];
    else
      out += c;
  }
  return out + "\"";
}

std::string number(double value) {
  char buffer[32];
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr};
}

std::string list(const std::set<std::string>& names) {
  std::string out = "[";
  for (const std::string& name : names) out += (out.size() == 1 ? "\n    " : ",\n    ") + quoted(name);
  return out + (names.empty() ? "]" : "\n  ]");
}

const LoraOptions& common_options(const std::vector<Site*>& sites) {
  const LoraOptions* common = nullptr;
  for (const Site* site : sites) {
    if (site->active().empty()) continue;
    const auto* lora = dynamic_cast<const Lora*>(site->active().front().get());
    if (lora == nullptr || site->active().size() > 1)
      throw Error(site->name(), "its adapter is no LoRA, or not the only one", "PEFT has no form for it");
    const LoraOptions& o = lora->options();
    if (common != nullptr && (o.rank != common->rank || o.alpha != common->alpha ||
                              o.rs_lora != common->rs_lora || o.dropout != common->dropout))
      throw Error(site->name(), "its LoRA has other options than the rest",
                  "export sets of one rank and scale");
    common = &o;
  }
  if (common == nullptr) throw Error("export", "there is no LoRA to write");
  return *common;
}

}  // namespace

PeftAdapter export_peft(const std::vector<Site*>& sites, const Parameters& trained,
                        const std::string& base_model,
                        const std::function<std::string(const std::string&)>& module_path) {
  const LoraOptions& options = common_options(sites);
  const auto path = [&](const std::string& name) { return module_path ? module_path(name) : name; };
  const std::string prefix = "base_model.model.";
  PeftAdapter out;
  std::set<std::string> targets, saved;
  std::set<const void*> taken;
  for (const Site* site : sites) {
    if (site->active().empty()) continue;
    targets.insert(path(site->name()));
    for (const Parameter& p : site->active().front()->parameters()) {
      out.tensors[prefix + path(site->name()) + "." + p.name] = state_copy(p.value);
      taken.insert(p.value.const_data_ptr());
    }
  }
  for (const Parameter& p : trained) {
    if (taken.contains(p.value.const_data_ptr())) continue;
    const std::string name = path(p.name);
    if (!name.ends_with(".weight") && !name.ends_with(".bias"))
      throw Error(p.name, "was trained and is part of no module", "PEFT has no form for it");
    saved.insert(name.substr(0, name.rfind('.')));
    out.tensors[prefix + name] = state_copy(p.value);
  }
  // Whole module paths: a short name such as q_proj would also match the vision tower's layers.
  out.config =
      "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": null,\n  \"base_model_name_or_path\": " +
      quoted(base_model) + ",\n  \"inference_mode\": true,\n  \"r\": " + std::to_string(options.rank) +
      ",\n  \"lora_alpha\": " + number(options.alpha) + ",\n  \"lora_dropout\": " + number(options.dropout) +
      ",\n  \"use_rslora\": " + (options.rs_lora ? "true" : "false") +
      ",\n  \"use_dora\": false,\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n  "
      "\"init_lora_weights\": true,\n  \"target_modules\": " +
      list(targets) + ",\n  \"modules_to_save\": " + (saved.empty() ? std::string("null") : list(saved)) +
      "\n}\n";
  return out;
}

}  // namespace mcit::parts
