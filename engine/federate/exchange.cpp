// What a client is given and what of its strategy leaves it.
#include <torch/torch.h>

#include <algorithm>

#include "fed/client_terms.hpp"
#include "federate/clients.hpp"
#include "federate/tensors.hpp"
#include "mcit/errors.hpp"

namespace mcit {

/// A trial with the rule's first model: the strategy takes what the rule gives, and the other way round.
fed::Layout FederatedClients::check(const fed::Aggregator& rule) {
  const fed::Arrays state = rule.initial(shared());
  const fed::Layout layout = rule.layout(state);
  for (const auto& [name, spec] : layout) {
    if (spec.group != fed::Group::statistic) continue;
    if (!travels_.contains(name))
      throw ConfigError("aggregate.rule", "'" + rule.name() + "' wants '" + name + "' of each client",
                        "'" + hooks_->name() + "' has no such thing");
    if (options_.privacy_clip > 0.0)
      throw ConfigError("privacy.clip", "does not cover '" + name + "', which clients send as it is",
                        "leave [privacy] out, or take another rule than '" + rule.name() + "'");
    statistics_.insert(name);
  }
  const fed::Arrays model = rule.download(state, ids_[0]);
  const bool stacked = std::any_of(model.begin(), model.end(), [](const auto& entry) {
    return entry.first.starts_with(StackedFactors::kPrefix);
  });
  if (stacked && terms_->federated() == nullptr) {
    stack_ = std::make_unique<StackedFactors>(parts_.model);
    if (const std::string why = stack_->objection(model); !why.empty())
      throw ConfigError("aggregate.average", "'stack' with strategy '" + hooks_->name() + "': " + why);
  }
  for (const auto& [name, array] : model) {
    const bool taken = layout.contains(name) || terms_->federated() != nullptr ||
                       (stack_ && name.starts_with(StackedFactors::kPrefix));
    if (!taken)
      throw ConfigError("aggregate.rule", "'" + rule.name() + "' sends clients '" + name + "'",
                        "strategy '" + hooks_->name() + "' has no use for it");
  }
  try {
    load_shared(model);
  } catch (const Error& error) {
    throw ConfigError("aggregate.rule", "'" + rule.name() + "' does not go with strategy '" + hooks_->name() +
                                            "': " + error.what());
  }
  hooks_->load_state(blank_);
  return layout;
}

/// Whether this is the model that the strategy trains.
void FederatedClients::check(const fed::RoundRequest& request) const {
  const auto wrong = [](const std::string& name, const std::string& what) {
    return DataError("model", "'" + name + "' " + what, "do server and node have the same settings?");
  };
  if (terms_->federated() != nullptr && starts_elsewhere(request)) return;  // download() looks at all of it
  for (const std::string& name : travels_)
    if (!request.model.contains(name)) throw wrong(name, "is missing, and this client trains it");
  for (const auto& [name, array] : request.model) {
    if (stack_ && name.starts_with(StackedFactors::kPrefix)) continue;  // looked at where it is loaded
    const std::string own =
        name.starts_with(fed::kControl) ? name.substr(std::string(fed::kControl).size()) : name;
    const auto at = request.model.find(own);
    if (!travels_.contains(own) || at == request.model.end())
      throw wrong(name, "is not what this client trains");
    if (at->second.shape != array.shape || !fed::is_float(array.dtype))
      throw wrong(name, "has another shape or type");
  }
}

/// Whether the rule keeps what this client trains under other names: which of them it begins at is then up to
/// the strategy.
bool FederatedClients::starts_elsewhere(const fed::RoundRequest& request) const {
  return std::any_of(request.layout.begin(), request.layout.end(), [&](const auto& entry) {
    return entry.second.group == fed::Group::model && !request.model.contains(entry.first);
  });
}

/// What would leave the client that is loaded, on the CPU; parameters are not copied.
StateDict FederatedClients::shared_tensors() const {
  const auto here = [](const Tensor& tensor) { return tensor.detach().to(at::kCPU).contiguous(); };
  StateDict out;
  if (Federated* facet = terms_->federated()) {
    StateDict uploaded;
    try {
      uploaded = facet->upload();
    } catch (const std::exception& e) {
      throw StrategyError("'" + hooks_->name() + "' in upload", cause_of(e));
    }
    for (const auto& [name, tensor] : uploaded) {
      if (!travels_.contains(name))
        throw Error("strategy '" + hooks_->name() + "'",
                    "uploads '" + name + "', which it did not name before its first task");
      out[name] = here(tensor);
    }
    return out;
  }
  for (const Parameter& p : hooks_->parameters()) {
    if (travels_.contains(p.name))
      out[p.name] = here(p.value);
    else if (p.value.requires_grad())
      throw Error(
          "strategy '" + hooks_->name() + "'",
          "trains '" + p.name + "', which was not there before its first task and would stay with one client",
          "only a strategy that says what leaves a client can grow: one with the facet Federated");
  }
  if (out.size() != travels_.size())
    throw Error("strategy '" + hooks_->name() + "'", "has lost a parameter that travels",
                "it cannot be federated");
  return out;
}

fed::Arrays FederatedClients::shared() const {
  fed::Arrays out;
  for (const auto& [name, tensor] : shared_tensors()) out[name] = array_of_tensor(tensor);
  return out;
}

void FederatedClients::load(const fed::Arrays& model, std::int64_t k) {
  host_.client.clear();
  load_strategy(k < 0 ? ClientState{} : states_[ids_[static_cast<std::size_t>(k)]], model);
  load_shared(model);
}

/// What describes the client's data to the server changes no answer.
bool FederatedClients::keeps_tensors(std::int64_t k) const {
  const auto state = states_.find(ids_[static_cast<std::size_t>(k)]);
  return terms_->federated() != nullptr && state != states_.end() &&
         std::any_of(state->second.strategy.begin(), state->second.strategy.end(),
                     [&](const auto& entry) { return !statistics_.contains(entry.first); });
}

std::int64_t FederatedClients::stored_parameters() {
  return hooks_->stored_parameters() + (stack_ ? stack_->size() : 0);
}

void FederatedClients::load_shared(const fed::Arrays& arrays) {
  if (terms_->federated() != nullptr) {
    StateDict update;
    for (const auto& [name, array] : arrays) {
      const auto own = blank_.find(name);
      if (own != blank_.end())
        copy_into(array, update[name] = at::empty_like(own->second));
      else if (!name.starts_with(fed::kControl))
        update[name] = tensor_of_array(array);
    }
    try {
      terms_->federated()->download(update);
    } catch (const std::exception& e) {
      throw StrategyError("'" + hooks_->name() + "' in download", cause_of(e));
    }
    return;
  }
  if (stack_) stack_->load(arrays);
  for (const Parameter& p : hooks_->parameters())
    if (const auto found = arrays.find(p.name); found != arrays.end()) copy_into(found->second, p.value);
}

/// @param model what is loaded next: of it, and of what travels, a client keeps nothing
void FederatedClients::load_strategy(const ClientState& client, const fed::Arrays& model) {
  const auto given = [&](const std::string& name) { return travels_.contains(name) || model.contains(name); };
  StateDict state = client.strategy;
  bool rest = !plain_;
  for (const auto& [name, tensor] : blank_) {
    rest = rest || !given(name);
    if (client.strategy.empty() || given(name)) state.emplace(name, tensor);
  }
  if (rest) hooks_->load_state(state);  // else every tensor of the state is about to be loaded
  const std::vector<std::string>& names = client.trainable.empty() ? blank_trainable_ : client.trainable;
  const std::set<std::string> trainable(names.begin(), names.end());
  for (const Parameter& p : hooks_->parameters())
    if (p.value.requires_grad() != trainable.contains(p.name))
      Tensor(p.value).set_requires_grad(trainable.contains(p.name));
}

}  // namespace mcit
