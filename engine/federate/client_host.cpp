#include "federate/client_host.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

#include "core/log.hpp"
#include "core/random.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"

namespace mcit {

void FederatedTerms::on_gradients(Step& step) {
  inner_.on_gradients(step);
  for (const Parameter& p : step.trainable) {
    Tensor gradient = p.value.grad();
    if (!gradient.defined()) continue;
    if (const auto at = anchor.find(p.name); proximal > 0.0 && at != anchor.end())
      gradient.add_(p.value.detach() - at->second, proximal);  // ∇ μ/2 ‖w - w_round‖²
    if (const auto c = correction.find(p.name); c != correction.end()) gradient.add_(c->second);
  }
}

ClientHost::ClientHost(const std::vector<ExamplePtr>& probe, std::uint64_t seed)
    : probe_(probe), seed_(seed), generator_(at::make_generator<at::CPUGeneratorImpl>()) {}

void ClientHost::info(const std::string& message) { log::debug(client, ": ", message); }
void ClientHost::warn(const std::string& message) { log::warn(client, client.empty() ? "" : ": ", message); }

std::unique_ptr<Batches> ClientHost::probe() {
  if (probe_.empty())
    throw ConfigError("suite", "has no data like that of the model's pre-training",
                      "add probe = \"FILE\" to the suite, training records in CoIN's form");
  return std::make_unique<parts::ExampleBatches>(probe_);
}

at::Generator ClientHost::generator() {
  if (pending_) generator_.set_current_seed(*pending_);
  pending_.reset();
  return generator_;
}

ExamplePtr ClientHost::example(std::int64_t task, std::int64_t index) {
  if (rows != nullptr && met.contains(task))
    for (const ExamplePtr& row : (*rows)[static_cast<std::size_t>(task)])
      if (row->index == index) return row;
  throw Error("host.example", "client '" + client + "' has not met row " + std::to_string(index) +
                                  " of task " + std::to_string(task));
}

void ClientHost::enter(const char* hook) {
  pending_ = derive(seed_, {"federated strategy", hook, std::string_view(client), round, step});
}

}  // namespace mcit
