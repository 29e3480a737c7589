#pragma once
/// What federated methods put around a client's strategy: terms beside its gradients, and its host.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "mcit/strategy.hpp"

namespace mcit {

/// A strategy with what federated methods add to the gradients: FedProx's pull to the round's model, and
/// SCAFFOLD's control variates. Everything else is the strategy's own.
class FederatedTerms final : public Strategy {
 public:
  explicit FederatedTerms(Strategy& inner) : inner_(inner) {}

  double proximal = 0.0;
  std::map<std::string, Tensor> anchor;      ///< the round's model, for FedProx
  std::map<std::string, Tensor> correction;  ///< c - c_k, for SCAFFOLD

  void on_stream_begin(const StreamInfo& stream) override { inner_.on_stream_begin(stream); }
  std::vector<Stage> plan(const StreamInfo& stream) const override { return inner_.plan(stream); }
  void attach(Backbone& backbone) override { inner_.attach(backbone); }
  void before_task(const Task& task, Batches& batches, Backbone& backbone) override {
    inner_.before_task(task, batches, backbone);
  }
  void before_forward(Step& step) override { inner_.before_forward(step); }
  Tensor loss(Step& step, Tensor base) override { return inner_.loss(step, std::move(base)); }
  void on_gradients(Step& step) override;
  void after_step(Step& step) override { inner_.after_step(step); }
  void after_task(const Task& task, Batches& batches, Backbone& backbone) override {
    inner_.after_task(task, batches, backbone);
  }
  Selection select(const Batch& batch, Backbone& backbone) override { return inner_.select(batch, backbone); }
  Parameters parameters() const override { return inner_.parameters(); }
  StateDict state() const override { return inner_.state(); }
  void load_state(const StateDict& state) override { inner_.load_state(state); }
  std::int64_t stored_parameters() const override { return inner_.stored_parameters(); }
  Federated* federated() noexcept override { return inner_.federated(); }

 private:
  Strategy& inner_;
};

/// The strategy's host: of one client at a time, and blind to the others' rows.
class ClientHost final : public Host {
 public:
  ClientHost(const std::vector<ExamplePtr>& probe, std::uint64_t seed);

  void info(const std::string& message) override;
  void warn(const std::string& message) override;
  void record(const std::string&, double) override {}
  void table(const std::string&, const StageTable&) override {}
  std::unique_ptr<Batches> probe() override;
  at::Generator generator() override;
  ExamplePtr example(std::int64_t task, std::int64_t index) override;

  /// A hook is about to run: its draws depend on client, place and nothing else.
  void enter(const char* hook);

  std::string client;
  std::int64_t round = 0, step = -1;
  const std::vector<std::vector<ExamplePtr>>* rows = nullptr;  ///< the client's, by task
  std::set<std::int64_t> met;

 private:
  const std::vector<ExamplePtr>& probe_;
  std::uint64_t seed_;
  at::Generator generator_;
  std::optional<std::uint64_t> pending_;
};

}  // namespace mcit
