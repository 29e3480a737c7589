// From trained tensors to the update that leaves the client, and to what it keeps.
#include "core/random.hpp"
#include "fed/client_terms.hpp"
#include "fed/privacy.hpp"
#include "federate/clients.hpp"
#include "federate/tensors.hpp"
#include "mcit/errors.hpp"

namespace mcit {

void FederatedClients::set_terms(const ClientState& client, const fed::Arrays& start) {
  terms_->proximal = options_.proximal;
  terms_->anchor.clear();
  terms_->correction.clear();
  for (const Parameter& p : hooks_->parameters()) {
    if (options_.proximal > 0.0) terms_->anchor[p.name] = p.value.detach().clone();
    const auto server = start.find(fed::kControl + p.name);
    if (server == start.end()) continue;
    std::vector<double> values = fed::values_of(server->second);
    if (const auto own = client.control.find(p.name); own != client.control.end())
      for (std::size_t i = 0; i < values.size(); ++i) values[i] -= own->second[i];
    terms_->correction[p.name] = at::tensor(values, at::TensorOptions().dtype(at::kDouble))
                                     .view(p.value.sizes())
                                     .to(p.value.options());
  }
}

/// SCAFFOLD's option II, as if every step had the full learning rate.
fed::Arrays FederatedClients::update_control(ClientState& client, const fed::Arrays& start,
                                             const fed::ArrayViews& sent) const {
  fed::Arrays out;
  for (const Parameter& p : hooks_->parameters()) {
    const auto server = start.find(fed::kControl + p.name);
    if (server == start.end()) continue;
    const std::vector<double> c = fed::values_of(server->second), x = fed::values_of(start.at(p.name)),
                              y = fed::values_of(sent.at(p.name));
    std::vector<double>& own = client.control[p.name];
    own.resize(c.size(), 0.0);
    std::vector<double> change(c.size());
    fed::update_control<double>(
        own, change, c, x, y,
        static_cast<double>(options_.train.steps) * options_.train.learning_rate.at(p.group));
    out[fed::kControl + p.name] = fed::array_of(fed::Dtype::f32, server->second.shape, change);
  }
  return out;
}

fed::Arrays FederatedClients::privatized(std::int64_t k, std::int64_t round, const fed::Arrays& start,
                                         const fed::ArrayViews& sent) const {
  fed::Arrays out;
  if (options_.privacy_clip <= 0.0) return out;
  std::map<std::string, std::vector<double>> delta;
  for (const std::string& name : travels_) {
    std::vector<double>& d = delta[name] = fed::values_of(sent.at(name));
    const std::vector<double> before = fed::values_of(start.at(name));
    for (std::size_t i = 0; i < d.size(); ++i) d[i] -= before[i];
  }
  fed::NoiseSource noise = options_.secure_noise
                               ? fed::NoiseSource::secure()
                               : fed::NoiseSource(derive(options_.seed, {"privacy", k, round}));
  fed::privatize(delta, options_.privacy_clip, options_.privacy_noise, noise);
  for (auto& [name, d] : delta) {
    const fed::Array& like = start.at(name);
    const std::vector<double> before = fed::values_of(like);
    for (std::size_t i = 0; i < d.size(); ++i) d[i] += before[i];
    out[name] = fed::array_of(like.dtype, like.shape, d);
  }
  return out;
}

/// @param start the values of what travels before the training
std::string FederatedClients::encode(std::int64_t k, const fed::RoundRequest& request,
                                     const fed::Arrays& start, ClientState& client) const {
  const StateDict trained = shared_tensors();  // what leaves is copied once, into the update
  fed::ArrayViews sent;
  for (const auto& [name, tensor] : trained) sent[name] = view_of_tensor(tensor);
  for (const std::string& name : travels_) {
    if (sent.contains(name)) continue;
    const auto before = start.find(name);
    if (before == start.end())
      throw Error("strategy '" + hooks_->name() + "'", "does not upload '" + name +
                                                           "', of which the rule keeps no value that all "
                                                           "clients share");
    sent[name] = before->second;  // not changed here
  }
  const fed::Arrays control = update_control(client, request.model, sent);
  const fed::Arrays noisy = privatized(k, request.info.round, start, sent);
  for (const fed::Arrays* made : {&control, &noisy})
    for (const auto& [name, array] : *made) sent[name] = array;
  fed::UpdateInfo info = request.info;
  info.task = parts_.tasks[static_cast<std::size_t>(client.task)].info.name;
  info.client = ids_[static_cast<std::size_t>(k)];
  info.examples = static_cast<std::int64_t>(rows(k)[static_cast<std::size_t>(client.task)].size());
  const bool lossy =
      options_.wire.encoding == fed::Encoding::int8_delta || options_.wire.encoding == fed::Encoding::topk;
  return fed::encode_update(info, request.layout, sent, start, options_.wire,
                            lossy && options_.error_feedback ? &client.residual : nullptr);
}

/// Everything but what the client is given anew.
void FederatedClients::keep(std::int64_t k, const fed::RoundRequest& request, ClientState& client) {
  client.strategy = hooks_->state();
  std::erase_if(client.strategy, [&](const auto& entry) {
    return request.model.contains(entry.first) ||
           (travels_.contains(entry.first) && !statistics_.contains(entry.first));
  });
  plain_ = plain_ && client.strategy.empty();
  client.trainable.clear();
  for (const Parameter& p : hooks_->parameters())
    if (p.value.requires_grad()) client.trainable.push_back(p.name);
  if (!client.empty()) write_client(folder_ / ids_[static_cast<std::size_t>(k)], request.info.round, client);
}

std::string privacy_text(const ClientOptions& options, std::int64_t rounds, std::int64_t sample) {
  if (options.privacy_clip <= 0.0 || options.privacy_noise <= 0.0) return {};
  if (sample <= 0) sample = options.stream.clients;
  fed::PrivacyReport report;
  report.noise_multiplier = options.privacy_noise;
  report.delta = options.privacy_delta;
  report.participations = report.rounds = rounds;
  report.sampling_rate = static_cast<double>(sample) / static_cast<double>(options.stream.clients);
  report.weights.assign(static_cast<std::size_t>(sample), 1.0 / static_cast<double>(sample));
  return fed::privacy_text(report);
}

}  // namespace mcit
