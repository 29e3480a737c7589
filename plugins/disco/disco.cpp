// DISCO (Guo et al. 2025): a client trains one small LoRA, the server keeps such subspaces by the identity of
// the data behind them, and all of them answer, weighted by how near the question is. README.md has the
// equations.
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "mcit/parts/learner.hpp"
#include "mcit/plugin.hpp"
#include "slot_adapter.hpp"
#include "subspaces.hpp"

namespace {

using namespace mcit;
using disco::Activation;
using disco::Member;
using disco::SlotAdapter;
using disco::Subspaces;

constexpr const char* kIdentity = "identity";   ///< the statistic's name in the rule
constexpr const char* kTemplate = "template/";  ///< and that of a slot nobody has trained
constexpr std::int64_t kFeatureBatch = 32;

void require(bool holds, const char* key, const char* what) {
  if (!holds) throw ConfigError(std::string("strategy.") + key, what);
}

struct Settings {
  explicit Settings(const Params& params)
      : lora(parts::LoraOptions::read(params)),
        slots(params.integer("slots", 8)),
        identity(params.choice("identity", "text", {"text", "image", "both"})),
        by_text(params.choice("activation", "text", {"text", "identity"}) == "text"),
        temperature(params.number("temperature", 0.05)),
        threshold(params.number("threshold", 0.9)),
        key_examples(params.integer("key_examples", 256)) {
    require(slots >= 1, "slots", "must be at least 1");
    require(lora.rank % slots == 0, "slots", "must divide the rank");
    require(temperature > 0.0, "temperature", "must be positive");
    require(threshold >= -1.0 && threshold <= 1.0, "threshold", "is a cosine, from -1 to 1");
    require(key_examples >= 1, "key_examples", "must be at least 1");
    require(!by_text || identity != "image", "activation",
            "cannot go by the text: the identity is the picture's");
  }

  parts::LoraOptions lora;
  std::int64_t slots;
  std::string identity;
  bool by_text;
  double temperature, threshold;
  std::int64_t key_examples;
};

class Disco final : public parts::LearnerStrategy, public Federated {
 public:
  Disco(const Params& params, Host& host)
      : Disco(params, host, Settings(params), std::make_shared<Activation>()) {}

  void attach(Backbone& backbone) override {
    features_ = backbone.info().feature_dim;
    if (features_ == 0)
      throw UnsupportedBackbone("disco",
                                "needs a model folder with CLIP towers: identities are their features");
    LearnerStrategy::attach(backbone);
    for (const auto& entry : learner().adapters().entries())
      adapters_.emplace_back(entry.site->name(), std::dynamic_pointer_cast<SlotAdapter>(entry.adapter));
    template_ = learner().adapters().state();
    identity_ = at::zeros({width()}, at::kFloat);
  }

  /// The client's identity, and the subspace that it belongs to.
  void before_task(const Task&, Batches& batches, Backbone& backbone) override {
    const at::NoGradGuard no_grad;
    Tensor sum = at::zeros({width()}, at::kDouble);
    const std::int64_t count = parts::visit_spread(
        batches, settings_.key_examples, kFeatureBatch,
        [&](const Batch& batch) { sum += identities(batch, backbone).to(at::kDouble).sum(0); });
    identity_.copy_(sum / static_cast<double>(std::max<std::int64_t>(count, 1)));
    start();
  }

  void before_forward(Step&) override { activation_->weights = Tensor(); }

  /// A learner on its own is its own server.
  void after_task(const Task&, Batches& batches, Backbone&) override {
    const at::NoGradGuard no_grad;
    const Member own{identity_, static_cast<double>(std::max<std::int64_t>(batches.examples(), 1)),
                     learner().adapters().state()};
    subspaces_.organise({&own, 1});
    spread_ = false;
  }

  Selection select(const Batch& batch, Backbone& backbone) override {
    activation_->weights = Tensor();
    if (subspaces_.all().empty()) return {};  // the pair answers, which is zero before it is trained
    spread();
    activation_->weights = weights(batch, backbone);
    return {};
  }

  std::int64_t stored_parameters() const override {
    std::int64_t total = 0;
    for (const Parameter& p : learner().base().parameters()) total += p.value.numel();
    for (const disco::Subspace& subspace : subspaces_.all()) {
      total += subspace.prototype.numel();
      for (const auto& [name, tensor] : subspace.tensors) total += tensor.numel();
    }
    return total;
  }

  Federated* federated() noexcept override { return this; }

  /// The slot, what all clients share, and the identity.
  StateDict upload() override {
    StateDict out = learner().state();
    out[kIdentity] = parts::state_copy(identity_);
    return out;
  }

  /// As the rule does, but for subspaces of a tiny share; this object's own are the server's.
  StateDict aggregate(std::span<const Upload> round, std::string_view) override {
    const at::NoGradGuard no_grad;
    std::vector<Member> members;
    double all = 0.0;
    for (const Upload& upload : round) {
      Member member{upload.state.at(kIdentity), static_cast<double>(upload.examples), {}};
      if (member.examples <= 0.0) throw Error("disco", "client '" + upload.client + "' has no example");
      for (const auto& [name, tensor] : template_) member.tensors[name] = upload.state.at(name);
      all += member.examples;
      members.push_back(std::move(member));
    }
    subspaces_.organise(members);
    spread_ = false;
    StateDict out;
    for (const Parameter& p : learner().base().parameters()) {
      Tensor sum = at::zeros_like(p.value, p.value.options().dtype(at::kDouble).requires_grad(false));
      for (const Upload& upload : round)
        sum += upload.state.at(p.name).to(at::kDouble) * (static_cast<double>(upload.examples) / all);
      out[p.name] = sum.to(p.value.scalar_type());
    }
    save_server(out);
    return out;
  }

  /// All subspaces, of which this client trains the one that its data belongs to.
  void download(const StateDict& update) override {
    if (update.contains(kIdentity))
      throw ConfigError("aggregate.rule", "averages what tells clients' data apart",
                        "disco needs rule = \"subspaces\"");
    parts::StateReader reader(update);
    for (const Parameter& p : learner().base().parameters())
      if (reader.has(p.name)) reader.copy(p.name, p.value);
    load_server(reader);
    reader.then([this] { start(); });
    reader.commit();
  }

 private:
  Disco(const Params& params, Host& host, const Settings& settings, std::shared_ptr<Activation> activation)
      : LearnerStrategy(host, learner_of(params, settings, activation)),
        settings_(settings),
        activation_(std::move(activation)),
        subspaces_(settings.threshold, settings.slots) {}

  static parts::Learner learner_of(const Params& params, const Settings& settings,
                                   const std::shared_ptr<Activation>& activation) {
    parts::LoraOptions slot = settings.lora;
    slot.rank /= settings.slots;
    return parts::Learner(params, "disco",
                          [slot, scale = settings.lora.scale(), activation](
                              const Site& site, const at::Generator& generator) -> AdapterPtr {
                            return std::make_shared<SlotAdapter>(site, slot, scale, activation, generator);
                          });
  }

  std::int64_t width() const { return settings_.identity == "both" ? 2 * features_ : features_; }

  /// [B, d]: unit features, those of the picture first.
  Tensor identities(const Batch& batch, Backbone& backbone) const {
    std::vector<Tensor> parts;
    if (settings_.identity != "text") parts.push_back(backbone.image_features(batch));
    if (settings_.identity != "image") parts.push_back(backbone.text_features(batch));
    return at::cat(parts, 1).to(at::kCPU, at::kFloat);
  }

  /// [B, C]: w_c = softmax(cos(feature, prototype_c) / temperature)
  Tensor weights(const Batch& batch, Backbone& backbone) const {
    Tensor feature, prototypes = subspaces_.prototypes();
    if (settings_.by_text) {
      feature = backbone.text_features(batch).to(at::kCPU);
      prototypes = prototypes.narrow(1, width() - features_, features_);
    } else {
      feature = identities(batch, backbone);
    }
    const auto unit = [](const Tensor& rows) {
      const Tensor wide = rows.to(at::kDouble);
      return wide / wide.norm(2, 1, true).clamp_min(1e-12);
    };
    const Tensor w =
        disco::selective_activation(at::mm(unit(feature), unit(prototypes).t()), settings_.temperature);
    return w.to(backbone.device(), backbone.dtype() == at::kDouble ? at::kDouble : at::kFloat);
  }

  /// The slot becomes the subspace of this identity, or the template.
  void start() {
    const std::int64_t c = subspaces_.matching(identity_);
    const StateDict& from = c < 0 ? template_ : subspaces_.all()[static_cast<std::size_t>(c)].tensors;
    const at::NoGradGuard no_grad;
    for (const Parameter& p : learner().adapters().parameters()) p.value.detach().copy_(from.at(p.name));
    spread_ = false;
  }

  /// Puts the subspaces into the adapters, where they are not there yet.
  void spread() {
    if (spread_) return;
    for (const auto& [site, adapter] : adapters_) {
      std::vector<Tensor> downs, ups;
      for (const disco::Subspace& subspace : subspaces_.all()) {
        downs.push_back(subspace.tensors.at(site + ".lora_A.weight"));
        ups.push_back(subspace.tensors.at(site + ".lora_B.weight"));
      }
      adapter->set_subspaces(downs, ups);
    }
    spread_ = true;
  }

  /// What a server holds besides what all clients share.
  void save_server(StateDict& state) const {
    for (const auto& [name, tensor] : template_) state[kTemplate + name] = tensor.clone();
    subspaces_.save(state);
  }
  void load_server(parts::StateReader& reader) {
    for (const auto& [name, tensor] : template_) reader.copy(kTemplate + name, tensor);
    subspaces_.load(reader, template_, width());
    reader.then([this] { spread_ = false; });
  }

  void save(StateDict& state) const override {
    save_server(state);
    state[kIdentity] = parts::state_copy(identity_);
  }
  void load(parts::StateReader& reader) override {
    load_server(reader);
    reader.copy(kIdentity, identity_);
  }

  Settings settings_;
  std::shared_ptr<Activation> activation_;
  Subspaces subspaces_;
  std::int64_t features_ = 0;
  std::vector<std::pair<std::string, std::shared_ptr<SlotAdapter>>> adapters_;
  StateDict template_;   ///< of one slot, as drawn
  Tensor identity_;      ///< [d] of the rows at hand; zero before the first task
  bool spread_ = false;  ///< whether the adapters hold what subspaces_ does
};

}  // namespace

MCIT_PLUGIN("mcit-disco", MCIT_VERSION,
            mcit::strategy<Disco>("disco", "DISCO: subspaces of LoRA by the data behind them; federated"))
