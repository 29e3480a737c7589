#pragma once
/// Private to loop.cpp and loop_talk.cpp: a run at one place of its stream.

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/files.hpp"
#include "core/progress.hpp"
#include "split/loop.hpp"
#include "split/server.hpp"

namespace mcit::split {

using Reader = std::function<void(const std::string& client, const Message& reply)>;
using Fields = std::initializer_list<std::pair<const char*, std::int64_t>>;

/// A message without tensors.
Message request_of(const std::string& kind, Fields fields);

struct Loop::State {
  Base base;
  Training training;
  LoopOptions options;
  Peers& peers;
  Server server;
  Heads heads;  ///< the mean of the clients', of method fedavg
  at::ScalarType dtype;

  RunResult result;
  Record record;
  std::int64_t stage = 0, step = 0, began = 0;
  bool trained = false;
  RunDir* dir = nullptr;
  std::unique_ptr<AppendFile> metrics;
  std::set<std::string> known;  ///< clients that were brought to this place

  State(const Base& b, Training t, LoopOptions o, Peers& p)
      : base(b),
        training(std::move(t)),
        options(o),
        peers(p),
        server(b, training),
        heads(heads_of(b)),
        dtype(b.weights.at("text.embedding").scalar_type()) {
    heads.train(training.trained.heads);
  }

  std::int64_t tasks() const { return static_cast<std::int64_t>(result.tasks.size()); }
  std::int64_t place() const { return stage * training.steps + step; }
  at::ScalarType wire() const { return training.wire.value_or(dtype); }

  void exchange(const Mail& requests, const std::string& kind, bool evaluation, const Reader& read = {});
  void exchange(const std::vector<std::string>& ids, const Message& request, const std::string& kind,
                bool evaluation, const Reader& read = {});
  void missed(const std::string& client, const std::string& why);
  std::vector<std::string> there();
  std::vector<std::string> present();
  void gather();
  void greet();
  Tokens tokens_of(const Message& reply, const std::string& who, std::int64_t most) const;
  std::map<std::string, Tokens> gather_tokens(const std::vector<std::string>& ids, const Message& request,
                                              std::int64_t most, bool evaluation);
  std::map<std::string, Server::Answer> gather_gradients(const std::map<std::string, Tokens>& tokens);
  [[noreturn]] void nobody() const;
  double split_step(std::int64_t& clients);
  double average_round(std::int64_t steps, std::int64_t& clients);
  Parameters travelling();
  std::string model_message(const char* kind, Fields fields);
  void add_score(std::map<std::string, Score>& scores, const std::string& id, const Message& reply) const;
  std::map<std::string, Score> split_scores(std::int64_t task);
  std::map<std::string, Score> average_scores(std::int64_t task);
  void evaluate(std::int64_t row);
  void collect_costs();
  void save();
  bool load();
  void write();
  void train_stage(Progress& progress);
};

}  // namespace mcit::split
