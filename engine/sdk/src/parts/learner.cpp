// Sets of adapters, base tensors, their state, and the learner made of both.
#include "mcit/parts/learner.hpp"

#include <c10/core/impl/COW.h>

#include <algorithm>

#include "mcit/errors.hpp"
#include "mcit/parts/lora.hpp"

namespace mcit::parts {
namespace {

constexpr const char* kForeign = "the state belongs to another strategy, backbone or other settings";

std::string shape_text(at::IntArrayRef sizes) {
  std::string text = "[";
  for (std::size_t i = 0; i < sizes.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(sizes[i]);
  return text + "]";
}

}  // namespace

StateDict state_of(const Parameters& parameters) {
  StateDict state;
  for (const Parameter& p : parameters) state[p.name] = state_copy(p.value);
  return state;
}

void load_parameters(const Parameters& parameters, StateReader& reader) {
  for (const Parameter& p : parameters) reader.copy(p.name, p.value);
}

Tensor state_copy(const Tensor& tensor) {
  const Tensor value = tensor.detach();
  const c10::StorageImpl& storage = *value.storage().unsafeGetStorageImpl();
  const bool whole =
      value.is_cpu() && value.is_contiguous() && storage.nbytes() == value.nbytes() && value.nbytes() > 0;
  if (whole &&
      (c10::impl::cow::has_simple_data_ptr(storage) || c10::impl::cow::is_cow_data_ptr(storage.data_ptr())))
    return at::_lazy_clone(value);  // who writes first copies, if the other is still there
  return value.clone(at::MemoryFormat::Contiguous);
}

const Tensor& StateReader::find(const std::string& name) {
  const auto found = state_.find(name);
  if (found == state_.end() || !found->second.defined())
    throw CheckpointError(name, "is missing from the strategy's state", kForeign);
  asked_.insert(name);
  return found->second;
}

void StateReader::copy(const std::string& name, const Tensor& target) {
  const Tensor source = find(name);
  if (source.sizes() != target.sizes())
    throw CheckpointError(
        name,
        "has shape " + shape_text(source.sizes()) + " in the state, " + shape_text(target.sizes()) + " here",
        kForeign);
  if (source.is_floating_point() != target.is_floating_point())
    throw CheckpointError(name,
                          std::string("is of type ") + c10::toString(source.scalar_type()) +
                              " in the state, " + c10::toString(target.scalar_type()) + " here",
                          kForeign);
  then([source, target] { target.detach().copy_(source); });
}

Tensor StateReader::take(const std::string& name, at::ScalarType type) {
  const Tensor& source = find(name);
  if (source.scalar_type() != type)
    throw CheckpointError(name,
                          std::string("is of type ") + c10::toString(source.scalar_type()) +
                              " in the state, not " + c10::toString(type),
                          kForeign);
  return source.detach().to(at::kCPU).contiguous();
}

void StateReader::commit() {
  constexpr std::size_t kShown = 5;
  std::string names;
  std::size_t count = 0;
  for (const auto& [name, tensor] : state_) {
    if (asked_.contains(name)) continue;
    if (count++ < kShown) names += (names.empty() ? "" : ", ") + name;
  }
  if (count > kShown) names += " and " + std::to_string(count - kShown) + " more";
  if (count != 0) throw CheckpointError(names, "in the state, but nothing here takes it", kForeign);
  const at::NoGradGuard no_grad;
  for (const auto& change : changes_) change();
}

void AdapterSet::attach(Backbone& backbone, std::string_view pattern, const std::string& adapter_name,
                        const Factory& factory) {
  for (Site* site : backbone.sites(pattern)) {
    const auto same = [site](const Entry& entry) { return entry.site == site; };
    if (std::any_of(entries_.begin(), entries_.end(), same))
      throw Error(site->name(), "has an adapter of this set already", "give each set one adapter a site");
    AdapterPtr adapter = factory(*site);
    site->attach(adapter_name, adapter);
    entries_.push_back({site, adapter_name, std::move(adapter)});
  }
}

void AdapterSet::set_trainable(bool trainable) {
  for (const Entry& entry : entries_)
    for (const Parameter& p : entry.adapter->parameters()) p.value.set_requires_grad(trainable);
}

void AdapterSet::set_active(bool active) {
  for (const Entry& entry : entries_) entry.site->set_active(entry.adapter_name, active);
}

Parameters AdapterSet::parameters() const {
  Parameters out;
  for (const Entry& entry : entries_)
    for (const Parameter& p : entry.adapter->parameters())
      out.push_back({entry.site->name() + "." + p.name, p.value, p.group});
  return out;
}

StateDict AdapterSet::state() const { return state_of(parameters()); }

void AdapterSet::load(StateReader& reader) const { load_parameters(parameters(), reader); }

void BaseTensors::attach(Backbone& backbone, std::string_view pattern) {
  for (Parameter& p : backbone.parameters(pattern)) {
    const auto same = [&p](const Parameter& held) { return held.name == p.name; };
    if (std::any_of(parameters_.begin(), parameters_.end(), same)) continue;
    p.value.set_requires_grad(true);
    parameters_.push_back(std::move(p));
  }
}

void BaseTensors::set_trainable(bool trainable) {
  for (const Parameter& p : parameters_) p.value.set_requires_grad(trainable);
}

StateDict BaseTensors::state() const { return state_of(parameters_); }

void BaseTensors::load(StateReader& reader) const { load_parameters(parameters_, reader); }

Learner::Learner(const Params& params, std::string adapter_name, Factory factory)
    : targets_(params.text("targets", "decoder")),
      adapter_name_(std::move(adapter_name)),
      factory_(std::move(factory)) {
  if (params.flag("train_connector", true)) base_patterns_.emplace_back("connector");
}

Learner Learner::lora(const Params& params) {
  if (params.flag("full", false)) {  // the keys of LoRA are unknown then
    Learner learner;
    learner.base_patterns_.push_back(params.text("targets", "decoder"));
    if (params.flag("train_connector", true)) learner.base_patterns_.emplace_back("connector");
    return learner;
  }
  const LoraOptions options = LoraOptions::read(params);
  return Learner(params, "lora", [options](const Site& site, const at::Generator& generator) -> AdapterPtr {
    return std::make_shared<Lora>(site, options, generator);
  });
}

void Learner::attach(Backbone& backbone, const at::Generator& generator) {
  if (factory_)
    adapters_.attach(backbone, targets_, adapter_name_,
                     [&](const Site& site) { return factory_(site, generator); });
  for (const std::string& pattern : base_patterns_)
    if (pattern != "connector" || backbone.info().family != "text")  // which has none
      base_.attach(backbone, pattern);
}

Parameters Learner::parameters() const {
  Parameters out = adapters_.parameters();
  out.insert(out.end(), base_.parameters().begin(), base_.parameters().end());
  return out;
}

StateDict Learner::state() const {
  StateDict state = adapters_.state();
  state.merge(base_.state());
  return state;
}

void Learner::load(StateReader& reader) const {
  adapters_.load(reader);
  base_.load(reader);
}

void Learner::load_state(const StateDict& state) const {
  StateReader reader(state);
  load(reader);
  reader.commit();
}

std::int64_t Learner::size() const {
  std::int64_t total = 0;
  for (const Parameter& p : parameters()) total += p.value.numel();
  return total;
}

LearnerStrategy::LearnerStrategy(Host& host, Learner learner) : host_(host), learner_(std::move(learner)) {}
LearnerStrategy::~LearnerStrategy() = default;

void LearnerStrategy::attach(Backbone& backbone) { learner_.attach(backbone, host_.generator()); }
Parameters LearnerStrategy::parameters() const { return learner_.parameters(); }
std::int64_t LearnerStrategy::stored_parameters() const { return learner_.size(); }
void LearnerStrategy::save(StateDict&) const {}
void LearnerStrategy::load(StateReader&) {}

StateDict LearnerStrategy::state() const {
  StateDict state = learner_.state();
  save(state);
  return state;
}

void LearnerStrategy::load_state(const StateDict& state) {
  StateReader reader(state);
  learner_.load(reader);
  load(reader);
  reader.commit();
}

}  // namespace mcit::parts
