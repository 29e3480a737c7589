#include "model/peft.hpp"

#include <torch/types.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>

#include "core/files.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "model/family.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

constexpr const char *kConfig = "adapter_config.json", *kTensors = "adapter_model.safetensors";

/// A regular expression for the end of a module's path, from a dot on. The files come from outside: it runs
/// in a time of length times length, whatever it says.
class Pattern {
 public:
  Pattern(const std::string& text, const std::string& where) : length_(text.size()) {
    constexpr std::size_t kLongest = 256;
    // Counted repetitions and looking around multiply what stands in them.
    const bool bounded = text.size() <= kLongest && text.find('{') == std::string::npos &&
                         text.find("(?") == std::string::npos;
    try {
      // libstdc++'s machine that follows all ways at once instead of one after the other.
      using namespace std::regex_constants;
      if (bounded) expression_ = std::regex("(.*\\.)?(" + text + ")", ECMAScript | __polynomial);
    } catch (const std::regex_error&) {
    }
    if (!expression_)
      throw CheckpointError(where, "'" + text + "' is no regular expression that can be read");
  }

  std::size_t length() const { return length_; }
  bool matches(const std::string& module) const { return std::regex_match(module, *expression_); }

 private:
  std::size_t length_;
  std::optional<std::regex> expression_;
};

/// What adapter_config.json says about r and s of each module.
struct LoraSettings {
  std::string where;
  std::int64_t rank = 0;
  double alpha = 0.0;
  bool rs_lora = false;
  std::vector<std::pair<Pattern, std::int64_t>> ranks;
  std::vector<std::pair<Pattern, double>> alphas;
  std::size_t effort = 0;  ///< letters of patterns times letters of modules so far

  template <class T>
  T value_for(const std::vector<std::pair<Pattern, T>>& patterns, const std::string& module, T usual) {
    constexpr std::size_t kMost = 100'000'000;
    for (const auto& [pattern, value] : patterns) {
      effort += pattern.length() * module.size();
      if (effort > kMost)
        throw CheckpointError(where, "has more patterns than can be tried on that many modules");
      if (pattern.matches(module)) return value;
    }
    return usual;
  }
};

LoraSettings read_settings(const std::filesystem::path& file) {
  constexpr std::uint64_t kLargest = 256 << 10;
  const Json config = read_json(file, {.max_bytes = kLargest});
  LoraSettings out;
  out.where = file.string();
  const std::string& where = out.where;
  if (json_text(config, "peft_type", where) != "LORA")
    throw CheckpointError(where + ": peft_type", "is not LORA", "no other kind of adapter can be read");
  const auto plain = [&](const char* key, const Json& usual) {
    const auto found = config.find(key);
    if (found != config.end() && !found->is_null() && *found != usual)
      throw CheckpointError(where + ": " + key, "asks for more than plain LoRA");
  };
  for (const char* key : {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora"})
    plain(key, false);
  plain("bias", "none");
  out.rank = json_integer(config, "r", where);
  if (out.rank < 1) throw CheckpointError(where + ": r", "must be at least 1");
  out.alpha = json_number(config, "lora_alpha", where);
  if (const auto found = config.find("use_rslora"); found != config.end() && !found->is_null()) {
    if (!found->is_boolean()) throw CheckpointError(where + ": use_rslora", "is neither true nor false");
    out.rs_lora = found->get<bool>();
  }
  const auto patterns = [&](const char* key, const auto& add) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null()) return;
    if (!found->is_object()) throw CheckpointError(where + ": " + key, "is not an object");
    for (const auto& [pattern, value] : found->items()) {
      if (!value.is_number()) throw CheckpointError(where + ": " + key + ": " + pattern, "is no number");
      add(Pattern(pattern, where + ": " + key), value);
    }
  };
  patterns("rank_pattern", [&](Pattern pattern, const Json& value) {
    if (!value.is_number_integer() || value < 1)
      throw CheckpointError(where + ": rank_pattern", "needs ranks of at least 1");
    out.ranks.emplace_back(std::move(pattern), value.get<std::int64_t>());
  });
  patterns("alpha_pattern", [&](Pattern pattern, const Json& value) {
    out.alphas.emplace_back(std::move(pattern), value.get<double>());
  });
  return out;
}

void remove_all(std::string& text, const std::string& part) {
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part))
    text.erase(at, part.size());
}

}  // namespace

PeftFolder read_peft(const std::filesystem::path& folder, const MllmConfig& config) {
  LoraSettings settings = read_settings(folder / kConfig);
  const std::filesystem::path file = folder / kTensors;
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored) &&
      std::filesystem::exists(folder / "adapter_model.bin", ignored))
    throw CheckpointError((folder / "adapter_model.bin").string(), "is a pickle, which could run code",
                          "save the adapter as safetensors");
  const StateDict tensors = read_safetensors(file).tensors;
  const std::string prefix = "base_model.model.", a_end = ".lora_A.weight", b_end = ".lora_B.weight";
  // Keys without what PEFT puts in for its own modules.
  std::map<std::string, std::string> keys;  // plain name -> key
  for (const auto& [key, tensor] : tensors) {
    if (!key.starts_with(prefix))
      throw CheckpointError(file.string() + ": " + key, "does not begin with '" + prefix + "'");
    if (key.find(".original_module.") != std::string::npos) continue;
    std::string plain = key.substr(prefix.size());
    for (const char* infix : {".modules_to_save.default", ".modules_to_save"}) remove_all(plain, infix);
    for (const char* half : {".lora_A", ".lora_B"})
      if (const auto at = plain.find(half + std::string(".default.")); at != std::string::npos)
        plain.erase(at + std::char_traits<char>::length(half), std::char_traits<char>::length(".default"));
    if (const auto [other, fresh] = keys.emplace(plain, key); !fresh)
      throw CheckpointError(file.string() + ": " + key, "is the same tensor as '" + other->second + "'");
    if (!tensor.is_floating_point())
      throw CheckpointError(file.string() + ": " + key,
                            std::string("has dtype ") + at::toString(tensor.scalar_type()),
                            "weights are floating point");
  }
  PeftFolder out;
  for (const auto& [plain, key] : keys) {
    const std::string where = file.string() + ": " + key;
    if (plain.ends_with(b_end)) {
      const std::string other = plain.substr(0, plain.size() - b_end.size()) + a_end;
      if (!keys.contains(other)) throw CheckpointError(where, "has no '" + other + "'");
      continue;
    }
    if (plain.find(".lora_") != std::string::npos && !plain.ends_with(a_end))
      throw CheckpointError(where, "is no part of plain LoRA on linear layers");
    if (!plain.ends_with(a_end)) {
      out.saved.push_back({canonical_name(config, plain), tensors.at(key), key});
      continue;
    }
    const std::string module = plain.substr(0, plain.size() - a_end.size());
    const auto up = keys.find(module + b_end);
    if (up == keys.end()) throw CheckpointError(where, "has no '" + module + b_end + "'");
    const Tensor &a = tensors.at(key), &b = tensors.at(up->second);
    const std::int64_t rank = settings.value_for(settings.ranks, module, settings.rank);
    if (a.dim() != 2 || b.dim() != 2 || a.size(0) != rank || b.size(1) != rank)
      throw CheckpointError(where, "is not of rank " + std::to_string(rank), settings.where + " says so");
    const double alpha = settings.value_for(settings.alphas, module, settings.alpha),
                 r = static_cast<double>(rank);
    const std::string name = canonical_name(config, module + ".weight");
    out.loras.push_back({name.substr(0, name.size() - std::char_traits<char>::length(".weight")), a, b,
                         alpha / (settings.rs_lora ? std::sqrt(r) : r), key, up->second});
  }
  return out;
}

void write_peft(const std::filesystem::path& folder, const parts::PeftAdapter& adapter) {
  std::filesystem::create_directories(folder);
  write_atomic(folder / kConfig, adapter.config);
  write_safetensors(folder / kTensors, adapter.tensors);
}

void merge_peft(StateDict& tensors, const MllmConfig& config, const std::filesystem::path& folder) {
  const PeftFolder adapter = read_peft(folder, config);
  const std::string file = (folder / kTensors).string();
  const auto target = [&](const std::string& name, const std::string& key) -> Tensor& {
    const auto found = tensors.find(name);
    if (found == tensors.end())
      throw CheckpointError(file + ": " + key, "belongs to '" + name + "', which the model has not",
                            "the adapter is of another model");
    return found->second;
  };
  for (const PeftFolder::Saved& one : adapter.saved) {
    Tensor& own = target(one.name, one.key);
    if (own.sizes() != one.value.sizes())
      throw CheckpointError(file + ": " + one.key, "has another shape than the model's tensor");
    own = one.value;
  }
  for (const PeftFolder::Lora& one : adapter.loras) {
    Tensor& weight = target(one.module + ".weight", one.down_key);
    if (weight.dim() != 2 || one.down.size(1) != weight.size(1) || one.up.size(0) != weight.size(0))
      throw CheckpointError(file + ": " + one.down_key, "does not fit the model's weight");
    const Tensor update = at::mm(one.up.to(at::kFloat), one.down.to(at::kFloat)) * one.scale;
    weight = weight.to(at::kFloat) + update;  // not rounded to the type that the file stores weights in
  }
}

}  // namespace mcit
