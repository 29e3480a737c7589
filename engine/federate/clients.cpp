#include "federate/clients.hpp"

#include <algorithm>

#include "core/random.hpp"
#include "core/system.hpp"
#include "core/text.hpp"
#include "data/loader.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"

namespace mcit {
namespace {

std::string id_of(std::int64_t client) {
  const std::string number = std::to_string(client + 1);
  return "client-" + std::string(number.size() < 2 ? 1 : 0, '0') + number;
}

/// The answers of a task's rows as labels 0 .. L-1, in alphabetical order.
std::vector<std::int64_t> labels_of(const std::vector<ExamplePtr>& rows) {
  std::map<std::string, std::int64_t> rank;
  for (const ExamplePtr& row : rows) rank[row->answer] = 0;
  std::int64_t next = 0;
  for (auto& [answer, number] : rank) number = next++;
  std::vector<std::int64_t> out;
  for (const ExamplePtr& row : rows) out.push_back(rank[row->answer]);
  return out;
}

/// Each task's rows among the clients that meet it.
std::vector<std::vector<std::vector<ExamplePtr>>> deal_rows(const std::vector<StreamTask>& tasks,
                                                            const fed::ClientStreams& streams,
                                                            const ClientOptions& options) {
  std::vector<std::vector<std::vector<ExamplePtr>>> out(static_cast<std::size_t>(options.stream.clients),
                                                        std::vector<std::vector<ExamplePtr>>(tasks.size()));
  for (std::size_t t = 0; t < tasks.size(); ++t) {
    std::vector<std::size_t> owners;
    for (std::int64_t k = 0; k < options.stream.clients; ++k)
      for (std::int64_t stage = 0; stage < streams.stages(); ++stage)
        if (streams.task(k, stage) == static_cast<std::int64_t>(t)) {
          owners.push_back(static_cast<std::size_t>(k));
          break;
        }
    if (owners.empty()) continue;
    fed::PartitionOptions partition = options.partition;
    partition.clients = static_cast<std::int64_t>(owners.size());
    partition.seed = derive(options.seed, {"partition", t});
    const fed::Partition rows = fed::make_partition(labels_of(tasks[t].train), partition);
    for (std::size_t i = 0; i < owners.size(); ++i)
      for (const std::int64_t row : rows[i])
        out[owners[i]][t].push_back(tasks[t].train[static_cast<std::size_t>(row)]);
  }
  return out;
}

/// How many tasks a stream has is what the parts have.
ClientOptions over_tasks(ClientOptions options, const FederatedParts& parts) {
  options.stream.tasks = static_cast<std::int64_t>(parts.tasks.size());
  return options;
}

class SpentIn {
 public:
  explicit SpentIn(Spent& total) : total_(total) {}
  void end() const {
    total_.wall += watch_.seconds();
    total_.cpu += cpu_seconds() - cpu_;
  }

 private:
  Spent& total_;
  Stopwatch watch_;
  double cpu_ = cpu_seconds();
};

}  // namespace

FederatedClients::FederatedClients(FederatedParts parts, ClientOptions options)
    : parts_(parts),
      options_(over_tasks(std::move(options), parts_)),
      streams_(options_.stream),
      rows_(deal_rows(parts_.tasks, streams_, options_)),
      host_(parts_.probe, options_.seed) {
  for (std::int64_t k = 0; k < options_.stream.clients; ++k) ids_.push_back(id_of(k));
}

std::int64_t FederatedClients::index(const std::string& id) const {
  const auto place = std::find(ids_.begin(), ids_.end(), id);
  if (place == ids_.end())
    throw ConfigError("client", "the partition has no '" + id + "'", suggestion(id, ids_));
  return place - ids_.begin();
}

std::string FederatedClients::histogram() const {
  std::vector<std::vector<std::int64_t>> counts;
  std::vector<std::string> names;
  for (const auto& client : rows_) {
    auto& line = counts.emplace_back();
    for (const auto& task : client) line.push_back(static_cast<std::int64_t>(task.size()));
  }
  for (const StreamTask& task : parts_.tasks) names.push_back(task.info.name);
  return fed::histogram_text(counts, ids_, names);
}

bool FederatedClients::takes_part(std::int64_t k, std::int64_t round) const {
  if (round < 1 || round > streams_.rounds()) return false;
  const std::int64_t task = streams_.task_in_round(k, round);
  return task >= 0 && !rows(k)[static_cast<std::size_t>(task)].empty();
}

void FederatedClients::attach(Strategy& strategy, const std::string& name) {
  terms_ = std::make_unique<FederatedTerms>(strategy);
  hooks_ = std::make_unique<HookRunner>(*terms_, name);
  hooks_->set_listener([this](const char* hook) { host_.enter(hook); });
  StreamInfo stream{.tasks = {}, .seed = options_.seed, .backbone = parts_.model.info()};
  for (const StreamTask& t : parts_.tasks) stream.tasks.push_back(t.info);
  hooks_->on_stream_begin(stream);
  hooks_->attach(parts_.model);
  blank_ = hooks_->state();
  for (const Parameter& p : hooks_->parameters())
    if (p.value.requires_grad()) blank_trainable_.push_back(p.name);
  if (Federated* facet = terms_->federated()) {
    for (const auto& [tensor_name, tensor] : facet->upload()) {
      if (const auto at = blank_.find(tensor_name);
          at == blank_.end() || at->second.sizes() != tensor.sizes())
        throw Error("strategy '" + name + "'",
                    "uploads '" + tensor_name + "', which its state does not hold");
      travels_.insert(tensor_name);
    }
  } else {
    travels_ = {blank_trainable_.begin(), blank_trainable_.end()};
  }
  if (travels_.empty())
    throw ConfigError("strategy '" + name + "'", "has nothing to train before its first task",
                      "it cannot be federated");
}

void FederatedClients::open(const std::filesystem::path& folder, std::int64_t committed) {
  folder_ = folder;
  for (const std::string& id : ids_) {
    states_[id] = read_client(folder / id, committed);
    plain_ = plain_ && states_[id].strategy.empty();
  }
}

Task FederatedClients::task_of(std::int64_t t, std::int64_t index) const {
  const StreamTask& task = parts_.tasks[static_cast<std::size_t>(t)];
  return Task{index, task.info.name, {t}, options_.train.steps * options_.stream.rounds_per_stage};
}

/// The strategy's moments between tasks: of the old one when the client meets another, and before the new
/// one.
bool FederatedClients::enter_task(std::int64_t k, std::int64_t round, ClientState& client) {
  const std::int64_t now = streams_.task_in_round(k, round);
  if (client.task == now) return false;
  if (client.task >= 0) {
    const Task old = task_of(client.task, static_cast<std::int64_t>(client.met.size()) - 1);
    parts::ExampleBatches batches(rows(k)[static_cast<std::size_t>(client.task)]);
    hooks_->at(old, -1);
    hooks_->after_task(old, batches, parts_.model);
  }
  client.task = now;
  client.met.push_back(now);
  host_.met.insert(now);
  const Task next = task_of(now, static_cast<std::int64_t>(client.met.size()) - 1);
  parts::ExampleBatches batches(rows(k)[static_cast<std::size_t>(now)]);
  hooks_->at(next, -1);
  hooks_->before_task(next, batches, parts_.model);
  return true;
}

/// The batches of client k's rows of a task, which must outlive it.
BatchSource FederatedClients::batches_of(std::int64_t k, std::int64_t task) const {
  const auto& examples = rows(k)[static_cast<std::size_t>(task)];
  std::vector<std::int64_t> lengths;
  for (const ExamplePtr& example : examples)
    lengths.push_back(static_cast<std::int64_t>(example->tokens.size()));
  const std::string& id = ids_[static_cast<std::size_t>(k)];
  const BatchOrder order(lengths, options_.train.batch,
                         derive(options_.seed, {"order", std::string_view(id), task}));
  return [this, order, &examples, &id, task](std::int64_t number) {
    std::vector<ExamplePtr> batch;
    for (const std::int64_t i : order.batch(number)) batch.push_back(examples[static_cast<std::size_t>(i)]);
    const std::uint64_t seed = derive(options_.seed, {"dropout", std::string_view(id), task, number});
    seed_dropout(parts_.group.alone() ? seed : derive(seed, {"rank", parts_.group.rank()}),
                 parts_.model.device());
    return Batch{parts_.group.share(batch)};
  };
}

void FederatedClients::local_steps(std::int64_t k, std::int64_t round, std::int64_t index,
                                   Progress& progress) {
  const std::int64_t t = streams_.task_in_round(k, round);
  const std::int64_t first = (round - 1) % options_.stream.rounds_per_stage * options_.train.steps;
  const Task task = task_of(t, index);
  const BatchSource batches = batches_of(k, t);
  const std::string place = "round " + std::to_string(round) + ", " + ids_[static_cast<std::size_t>(k)];
  AdamW optimizer(hooks_->parameters(), options_.train.adamw);
  parts_.model.set_training(true);
  for (std::int64_t number = first; number < first + options_.train.steps; ++number) {
    host_.step = number;
    hooks_->at(task, number);
    const double loss = train_step(
                            task, number, parts_.model, *hooks_, optimizer, batches, options_.train,
                            [](const Batch&, double) {}, parts_.group)
                            .loss;
    progress.advance(1, place + ", loss " + std::to_string(loss).substr(0, 6));
    if (parts_.group.any(interrupted())) throw Interrupted();
  }
  parts_.model.set_training(false);
  optimizer.zero_grad();
  host_.step = -1;
  hooks_->at(task, -1);
}

std::string FederatedClients::train(std::int64_t k, const fed::RoundRequest& request, Progress& progress) {
  const std::string& id = ids_[static_cast<std::size_t>(k)];
  const std::int64_t round = request.info.round;
  if (!takes_part(k, round)) throw DataError(id, "has no rows to train on in round " + std::to_string(round));
  check(request);
  ClientState client = states_[id];
  host_.client = id;
  host_.round = round;
  host_.rows = &rows(k);
  host_.met = {client.met.begin(), client.met.end()};
  load_strategy(client, request.model);
  load_shared(request.model);
  const SpentIn between(training_);
  const bool entered = enter_task(k, round, client);
  between.end();
  if (entered) load_shared(request.model);  // a strategy may have changed what it saw
  const fed::Arrays begun = starts_elsewhere(request) ? shared() : fed::Arrays();
  const fed::Arrays& start = begun.empty() ? request.model : begun;
  set_terms(client, request.model);
  const SpentIn steps(training_);
  local_steps(k, round, static_cast<std::int64_t>(client.met.size()) - 1, progress);
  steps.end();
  // The bytes of the first process: machines of different kinds differ in the last bits.
  std::string update = parts_.group.from_first(encode(k, request, start, client));
  keep(k, request, client);
  states_[id] = std::move(client);
  return update;
}

}  // namespace mcit
