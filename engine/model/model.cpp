#include "model/model.hpp"

#include <torch/types.h>

#include <algorithm>
#include <regex>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

/// Counts the changes made to a tensor in place, through any alias of it.
std::uint32_t version_of(const Tensor& tensor) { return static_cast<std::uint32_t>(tensor._version()); }

bool begins_with_one_of(const std::string& name, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const std::string& prefix) { return name.starts_with(prefix); });
}

}  // namespace

void Watch::add(const Tensor& weight) {
  weights_.push_back(weight);
  versions_.push_back(version_of(weight));
}

void Watch::add(Site& site) {
  sites_.push_back(&site);
  add(site.weight());
  if (site.bias().defined()) add(site.bias());
}

bool Watch::changed() const {
  for (std::size_t i = 0; i < weights_.size(); ++i)
    if (weights_[i].requires_grad() || version_of(weights_[i]) != versions_[i]) return true;
  return std::any_of(sites_.begin(), sites_.end(), [](const Site* site) { return !site->active().empty(); });
}

void hash_tensors(Hasher& hasher, const StateDict& tensors,
                  const std::function<bool(const std::string&)>& wanted) {
  for (const auto& [name, tensor] : tensors) {
    if (!wanted(name)) continue;
    const Tensor bytes = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
    hasher.update(name);
    hasher.update(std::string_view(static_cast<const char*>(bytes.const_data_ptr()),
                                   static_cast<std::size_t>(bytes.numel()) * 4));
  }
}

bool in_connector(const std::string& name, const NameGroups& groups) {
  return begins_with_one_of(name, groups.connector);
}

std::function<bool(const std::string&)> name_filter(std::string_view pattern, const NameGroups& groups) {
  if (pattern.size() > 2 && pattern.front() == '/' && pattern.back() == '/') {
    try {
      return [expression = std::regex(std::string(pattern.substr(1, pattern.size() - 2)))](
                 const std::string& name) { return std::regex_search(name, expression); };
    } catch (const std::regex_error&) {
      throw ConfigError(std::string(pattern), "is no regular expression");
    }
  }
  if (pattern == "all") return [](const std::string&) { return true; };
  if (pattern == "connector") return [groups](const std::string& name) { return in_connector(name, groups); };
  if (pattern == "decoder")
    return
        [prefixes = groups.decoder](const std::string& name) { return begins_with_one_of(name, prefixes); };
  if (pattern == "vision")
    return [prefix = groups.vision](const std::string& name) {
      return !prefix.empty() && name.starts_with(prefix);
    };
  std::vector<std::string> suffixes;
  for (std::size_t begin = 0; begin <= pattern.size();) {
    const std::size_t end = std::min(pattern.find(',', begin), pattern.size());
    if (end > begin) suffixes.emplace_back("." + std::string(pattern.substr(begin, end - begin)));
    begin = end + 1;
  }
  return [suffixes, prefixes = groups.decoder](const std::string& name) {
    return begins_with_one_of(name, prefixes) &&
           std::any_of(suffixes.begin(), suffixes.end(),
                       [&](const std::string& s) { return name.size() > s.size() && name.ends_with(s); });
  };
}

void check_prompts(const Prompts& prompts, std::size_t sequences, std::int64_t width, std::int64_t blocks,
                   const char* where) {
  if (prompts.length() == 0) return;
  const std::string name = std::string("route.") + where;
  const std::int64_t entries = prompts.layers.front().size(0);
  if (static_cast<std::int64_t>(prompts.layers.size()) > blocks)
    throw Error(name, "has prompts for " + std::to_string(prompts.layers.size()) + " blocks",
                "there are " + std::to_string(blocks));
  for (const Tensor& layer : prompts.layers)
    if (layer.defined() && layer.sizes() != at::IntArrayRef({entries, prompts.length(), width}))
      throw Error(name, "holds prompts of another shape than [" + std::to_string(entries) + ", " +
                            std::to_string(prompts.length()) + ", " + std::to_string(width) + "]");
  const auto wrong = [&](std::int64_t e) { return e < 0 || e >= entries; };
  if (prompts.entry.empty() ? entries != static_cast<std::int64_t>(sequences)
                            : prompts.entry.size() != sequences ||
                                  std::any_of(prompts.entry.begin(), prompts.entry.end(), wrong))
    throw Error(name,
                "has " + std::to_string(entries) + " entries that do not fit " + std::to_string(sequences) +
                    " sequences",
                "give one entry a sequence, or say in `entry` which one each of them reads");
}

}  // namespace mcit
