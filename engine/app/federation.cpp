#include "app/federation.hpp"

#include <torch/torch.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "app/federation_client.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/random.hpp"
#include "core/system.hpp"
#include "data/loader.hpp"
#include "fed/client_terms.hpp"
#include "fed/privacy.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"

namespace mcit {
namespace {

constexpr const char* kControl = "control/";

std::string id_of(std::int64_t client) {
  const std::string number = std::to_string(client + 1);
  return "client-" + std::string(number.size() < 2 ? 1 : 0, '0') + number;
}

/// Rows of each client and task.
using Rows = std::vector<std::vector<std::vector<ExamplePtr>>>;

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
Rows deal_rows(const std::vector<StreamTask>& tasks, const fed::ClientStreams& streams,
               const FederatedOptions& options) {
  Rows out(static_cast<std::size_t>(options.stream.clients),
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

}  // namespace

struct FederatedLoop::State {
  FederatedParts parts;
  FederatedOptions options;
  fed::ClientStreams streams;
  Rows rows;
  ClientHost host;
  std::vector<std::string> ids;

  // Of a run.
  std::unique_ptr<FederatedTerms> terms;
  std::unique_ptr<HookRunner> hooks;
  fed::RoundEngine* engine = nullptr;
  RunDir* dir = nullptr;
  StateDict blank;                           ///< the strategy's state after attach()
  std::vector<std::string> blank_trainable;  ///< parameters that require a gradient after attach()
  std::set<std::string> travels;             ///< names
  std::map<std::string, ClientState> clients;
  RunResult result;

  State(FederatedParts p, FederatedOptions o)
      : parts(std::move(p)),
        options(std::move(o)),
        streams(options.stream),
        rows(deal_rows(parts.tasks, streams, options)),
        host(parts.probe, options.seed) {
    for (std::int64_t k = 0; k < options.stream.clients; ++k) ids.push_back(id_of(k));
  }

  std::filesystem::path folder() const { return dir->root() / "clients"; }
  void begin();
  fed::Arrays shared() const;
  void load_shared(const fed::Arrays& arrays);
  StateDict uploaded() const;
  void load_strategy(const ClientState& client);
  std::string train_client(std::int64_t k, std::int64_t round, Progress& progress);
  bool enter_task(std::int64_t k, std::int64_t round, ClientState& client);
  double local_steps(std::int64_t k, std::int64_t round, std::int64_t task, Progress& progress);
  std::string encode(std::int64_t k, std::int64_t round, ClientState& client, const fed::Arrays& start);
  void keep(const std::string& id, std::int64_t round, ClientState& client);
  void set_terms(const ClientState& client, const fed::Arrays& start);
  void update_control(ClientState& client, const fed::Arrays& start, fed::Arrays& sent);
  void privatize(std::int64_t k, std::int64_t round, const fed::Arrays& start, fed::Arrays& sent) const;
  void run_round(Progress& progress);
  std::vector<AccuracyMatrix::Cell> scores(const fed::Arrays& model, const std::string& title,
                                           const ClientState& client = {});
  void evaluate_stage(std::int64_t stage);
  void add_point(std::int64_t round);
  void after_round(std::int64_t round);
  bool met_by(std::int64_t task, std::int64_t stage) const;
  void describe();
  void write();
};

FederatedLoop::FederatedLoop(FederatedParts parts, FederatedOptions options)
    : state_(std::make_unique<State>(std::move(parts), std::move(options))) {}
FederatedLoop::~FederatedLoop() = default;
Host& FederatedLoop::host() { return state_->host; }
const fed::ClientStreams& FederatedLoop::streams() const { return state_->streams; }
std::vector<std::string> FederatedLoop::clients() const { return state_->ids; }

std::string FederatedLoop::histogram() const {
  std::vector<std::vector<std::int64_t>> counts;
  std::vector<std::string> names;
  for (const auto& client : state_->rows) {
    auto& line = counts.emplace_back();
    for (const auto& task : client) line.push_back(static_cast<std::int64_t>(task.size()));
  }
  for (const StreamTask& task : state_->parts.tasks) names.push_back(task.info.name);
  return fed::histogram_text(counts, state_->ids, names);
}

/// Finds what travels.
void FederatedLoop::State::begin() {
  blank = hooks->state();
  for (const Parameter& p : hooks->parameters())
    if (p.value.requires_grad()) blank_trainable.push_back(p.name);
  travels = {blank_trainable.begin(), blank_trainable.end()};
  if (terms->federated() != nullptr) {
    travels.clear();
    for (const auto& [name, tensor] : uploaded()) {
      if (const auto at = blank.find(name); at == blank.end() || at->second.sizes() != tensor.sizes())
        throw Error("strategy '" + hooks->name() + "'",
                    "uploads '" + name + "', which its state does not hold");
      travels.insert(name);
    }
  }
  if (travels.empty())
    throw ConfigError("strategy '" + hooks->name() + "'", "has nothing to train before its first task",
                      "it cannot be federated");
  if (engine->phase() == fed::Phase::needs_model) engine->begin(shared());
  const fed::Layout layout = engine->layout();
  for (const auto& [name, spec] : layout)
    if (spec.group == fed::Group::statistic)
      throw ConfigError("aggregate.rule",
                        "'" + engine->rule().name() + "' wants '" + name + "' of each client",
                        "mcit federate does not compute it yet");
  for (const auto& [name, array] : fed::from_blob(engine->preview(ids[0]), "model").arrays)
    if (!layout.contains(name))
      throw ConfigError("aggregate.rule", "'" + engine->rule().name() + "' sends clients '" + name + "'",
                        "mcit federate has no use for it yet");
}

StateDict FederatedLoop::State::uploaded() const {
  try {
    return terms->federated()->upload();
  } catch (const std::exception& e) {
    throw StrategyError("'" + hooks->name() + "' in upload", cause_of(e));
  }
}

/// What would leave this client.
fed::Arrays FederatedLoop::State::shared() const {
  fed::Arrays out;
  if (terms->federated() != nullptr) {
    for (const auto& [name, tensor] : uploaded()) {
      if (!travels.contains(name))
        throw Error("strategy '" + hooks->name() + "'",
                    "uploads '" + name + "', which it did not name before its first task");
      out[name] = array_of_tensor(tensor);
    }
    return out;
  }
  for (const Parameter& p : hooks->parameters())
    if (travels.contains(p.name)) out[p.name] = array_of_tensor(p.value);
  if (out.size() != travels.size())
    throw Error("strategy '" + hooks->name() + "'", "has lost a parameter that travels",
                "it cannot be federated");
  return out;
}

void FederatedLoop::State::load_shared(const fed::Arrays& arrays) {
  if (terms->federated() != nullptr) {
    StateDict update;
    for (const auto& [name, array] : arrays)
      if (travels.contains(name)) copy_into(array, update[name] = at::empty_like(blank.at(name)));
    try {
      terms->federated()->download(update);
    } catch (const std::exception& e) {
      throw StrategyError("'" + hooks->name() + "' in download", cause_of(e));
    }
    return;
  }
  for (const Parameter& p : hooks->parameters())
    if (const auto found = arrays.find(p.name); found != arrays.end()) copy_into(found->second, p.value);
}

void FederatedLoop::State::load_strategy(const ClientState& client) {
  StateDict state = client.strategy;
  for (const std::string& name : travels)
    if (const auto found = blank.find(name); found != blank.end()) state.emplace(name, found->second);
  hooks->load_state(client.strategy.empty() ? blank : state);
  const std::vector<std::string>& names = client.trainable.empty() ? blank_trainable : client.trainable;
  const std::set<std::string> trainable(names.begin(), names.end());
  for (const Parameter& p : hooks->parameters())
    Tensor(p.value).set_requires_grad(trainable.contains(p.name));
}

/// The strategy's moments between tasks: of the old one when the client meets another, and before the new
/// one.
bool FederatedLoop::State::enter_task(std::int64_t k, std::int64_t round, ClientState& client) {
  const std::int64_t now = streams.task_in_round(k, round);
  if (client.task == now) return false;
  const auto& own = rows[static_cast<std::size_t>(k)];
  const auto task_of = [&](std::int64_t t, std::int64_t index) {
    const StreamTask& task = parts.tasks[static_cast<std::size_t>(t)];
    return Task{index, task.info.name, {t}, options.train.steps * options.stream.rounds_per_stage};
  };
  if (client.task >= 0) {
    const Task old = task_of(client.task, static_cast<std::int64_t>(client.met.size()) - 1);
    parts::ExampleBatches batches(own[static_cast<std::size_t>(client.task)]);
    hooks->at(old, -1);
    hooks->after_task(old, batches, parts.model);
  }
  client.task = now;
  client.met.push_back(now);
  host.met.insert(now);
  const Task next = task_of(now, static_cast<std::int64_t>(client.met.size()) - 1);
  parts::ExampleBatches batches(own[static_cast<std::size_t>(now)]);
  hooks->at(next, -1);
  hooks->before_task(next, batches, parts.model);
  return true;
}

double FederatedLoop::State::local_steps(std::int64_t k, std::int64_t round, std::int64_t index,
                                         Progress& progress) {
  const std::int64_t t = streams.task_in_round(k, round), per_round = options.train.steps;
  const auto& examples = rows[static_cast<std::size_t>(k)][static_cast<std::size_t>(t)];
  const std::int64_t in_stage = (round - 1) % options.stream.rounds_per_stage;
  const Task task{index,
                  parts.tasks[static_cast<std::size_t>(t)].info.name,
                  {t},
                  per_round * options.stream.rounds_per_stage};
  std::vector<std::int64_t> lengths;
  for (const ExamplePtr& example : examples)
    lengths.push_back(static_cast<std::int64_t>(example->tokens.size()));
  const std::string& id = ids[static_cast<std::size_t>(k)];
  const BatchOrder order(lengths, options.train.batch,
                         derive(options.seed, {"order", std::string_view(id), t}));
  const BatchSource batches = [&](std::int64_t number) {
    Batch batch;
    for (const std::int64_t i : order.batch(number))
      batch.examples.push_back(examples[static_cast<std::size_t>(i)]);
    seed_dropout(derive(options.seed, {"dropout", std::string_view(id), t, number}), parts.model.device());
    return batch;
  };
  AdamW optimizer(hooks->parameters(), options.train.adamw);
  double loss = 0.0;
  parts.model.set_training(true);
  for (std::int64_t step = 0; step < per_round; ++step) {
    const std::int64_t number = in_stage * per_round + step;
    host.step = number;
    hooks->at(task, number);
    loss = train_step(task, number, parts.model, *hooks, optimizer, batches, options.train,
                      [](const Batch&, double) {})
               .loss;
    progress.advance(
        1, "round " + std::to_string(round) + ", " + id + ", loss " + std::to_string(loss).substr(0, 6));
    if (interrupted()) throw Interrupted();
  }
  parts.model.set_training(false);
  optimizer.zero_grad();
  host.step = -1;
  hooks->at(task, -1);
  return loss;
}

void FederatedLoop::State::set_terms(const ClientState& client, const fed::Arrays& start) {
  terms->proximal = options.proximal;
  terms->anchor.clear();
  terms->correction.clear();
  for (const Parameter& p : hooks->parameters()) {
    if (options.proximal > 0.0) terms->anchor[p.name] = p.value.detach().clone();
    const auto server = start.find(kControl + p.name);
    if (server == start.end()) continue;
    std::vector<double> values = fed::values_of(server->second);
    if (const auto own = client.control.find(p.name); own != client.control.end())
      for (std::size_t i = 0; i < values.size(); ++i) values[i] -= own->second[i];
    terms->correction[p.name] = at::tensor(values, at::TensorOptions().dtype(at::kDouble))
                                    .view(p.value.sizes())
                                    .to(p.value.options());
  }
}

/// SCAFFOLD's option II, as if every step had the full learning rate.
void FederatedLoop::State::update_control(ClientState& client, const fed::Arrays& start, fed::Arrays& sent) {
  for (const Parameter& p : hooks->parameters()) {
    const auto server = start.find(kControl + p.name);
    if (server == start.end()) continue;
    const std::vector<double> c = fed::values_of(server->second), x = fed::values_of(start.at(p.name)),
                              y = fed::values_of(sent.at(p.name));
    std::vector<double>& own = client.control[p.name];
    own.resize(c.size(), 0.0);
    std::vector<double> change(c.size());
    fed::update_control<double>(
        own, change, c, x, y,
        static_cast<double>(options.train.steps) * options.train.learning_rate.at(p.group));
    sent[kControl + p.name] = fed::array_of(fed::Dtype::f32, server->second.shape, change);
  }
}

/// In one process the noise has a seed, so that a run can be repeated: it shows what privacy costs, and
/// protects nobody.
void FederatedLoop::State::privatize(std::int64_t k, std::int64_t round, const fed::Arrays& start,
                                     fed::Arrays& sent) const {
  if (options.privacy_clip <= 0.0) return;
  std::map<std::string, std::vector<double>> delta;
  for (const std::string& name : travels) {
    std::vector<double>& d = delta[name] = fed::values_of(sent.at(name));
    const std::vector<double> before = fed::values_of(start.at(name));
    for (std::size_t i = 0; i < d.size(); ++i) d[i] -= before[i];
  }
  fed::NoiseSource noise(derive(options.seed, {"privacy", k, round}));
  fed::privatize(delta, options.privacy_clip, options.privacy_noise, noise);
  for (auto& [name, d] : delta) {
    const fed::Array& like = start.at(name);
    const std::vector<double> before = fed::values_of(like);
    for (std::size_t i = 0; i < d.size(); ++i) d[i] += before[i];
    sent[name] = fed::array_of(like.dtype, like.shape, d);
  }
}

std::string FederatedLoop::State::encode(std::int64_t k, std::int64_t round, ClientState& client,
                                         const fed::Arrays& start) {
  fed::Arrays sent = shared();
  for (const std::string& name : travels) sent.try_emplace(name, start.at(name));  // not changed here
  update_control(client, start, sent);
  privatize(k, round, start, sent);
  fed::UpdateInfo info;
  info.run = engine->settings().run;
  info.strategy = engine->settings().strategy;
  info.strategy_version = engine->settings().strategy_version;
  info.task = parts.tasks[static_cast<std::size_t>(client.task)].info.name;
  info.round = static_cast<std::uint32_t>(round);
  info.base = engine->ledger().sha();
  info.client = ids[static_cast<std::size_t>(k)];
  info.examples = static_cast<std::int64_t>(
      rows[static_cast<std::size_t>(k)][static_cast<std::size_t>(client.task)].size());
  const bool lossy =
      options.wire.encoding == fed::Encoding::int8_delta || options.wire.encoding == fed::Encoding::topk;
  return fed::encode_update(info, engine->layout(), sent, start, options.wire,
                            lossy && options.error_feedback ? &client.residual : nullptr);
}

void FederatedLoop::State::keep(const std::string& id, std::int64_t round, ClientState& client) {
  client.strategy = hooks->state();
  for (const std::string& name : travels) client.strategy.erase(name);
  client.trainable.clear();
  for (const Parameter& p : hooks->parameters())
    if (p.value.requires_grad()) client.trainable.push_back(p.name);
  if (!client.empty()) write_client(folder(), id, round, client);
}

std::string FederatedLoop::State::train_client(std::int64_t k, std::int64_t round, Progress& progress) {
  const std::string& id = ids[static_cast<std::size_t>(k)];
  ClientState client = clients[id];
  host.client = id;
  host.round = round;
  host.rows = &rows[static_cast<std::size_t>(k)];
  host.met = {client.met.begin(), client.met.end()};
  const fed::Arrays start = fed::from_blob(engine->download(id), "model").arrays;
  load_strategy(client);
  load_shared(start);
  if (enter_task(k, round, client)) load_shared(start);  // a strategy may have changed what it looked at
  set_terms(client, start);
  local_steps(k, round, static_cast<std::int64_t>(client.met.size()) - 1, progress);
  std::string update = encode(k, round, client, start);
  keep(id, round, client);
  clients[id] = std::move(client);
  return update;
}

void FederatedLoop::State::run_round(Progress& progress) {
  const auto round = static_cast<std::int64_t>(engine->round());
  std::vector<fed::OnlineClient> online;
  for (std::int64_t k = 0; k < options.stream.clients; ++k) {
    const std::int64_t task = streams.task_in_round(k, round);
    if (task >= 0 && !rows[static_cast<std::size_t>(k)][static_cast<std::size_t>(task)].empty())
      online.push_back({ids[static_cast<std::size_t>(k)], 1});
  }
  if (online.empty())
    throw ConfigError("stream", "leaves round " + std::to_string(round) + " without a client that has rows");
  const fed::RoundPlan plan = engine->plan(online);
  for (const std::string& id : plan.clients) {
    const auto k = std::distance(ids.begin(), std::find(ids.begin(), ids.end(), id));
    const fed::OfferResult offered =
        engine->offer(id, static_cast<std::uint32_t>(round), train_client(k, round, progress));
    if (offered.verdict != fed::Verdict::accepted)
      log::warn("round ", round, ", ", id, ": ", fed::verdict_text(offered.verdict), ": ", offered.reason);
  }
  const fed::CloseResult closed = engine->close();
  if (closed.outcome != fed::Outcome::committed) throw Error("federation", closed.reason);
}

bool FederatedLoop::State::met_by(std::int64_t task, std::int64_t stage) const {
  for (std::int64_t s = 0; s <= stage; ++s)
    for (std::int64_t k = 0; k < options.stream.clients; ++k)
      if (streams.task(k, s) == task) return true;
  return false;
}

/// @param client what it keeps to itself belongs to its model; by default nobody's
std::vector<AccuracyMatrix::Cell> FederatedLoop::State::scores(const fed::Arrays& model,
                                                               const std::string& title,
                                                               const ClientState& client) {
  std::int64_t count = 0;
  for (const StreamTask& task : parts.tasks) count += static_cast<std::int64_t>(task.eval.examples.size());
  Progress progress(title, count, "rows");
  host.client.clear();
  load_strategy(client);
  load_shared(model);
  std::vector<AccuracyMatrix::Cell> out;
  const SelectHook select = [&](const Batch& batch) { return hooks->select(batch, parts.model); };
  for (const StreamTask& task : parts.tasks)
    out.emplace_back(evaluate(parts.model, task.eval, options.eval_batch, select, true, [&](std::int64_t n) {
                       progress.advance(n);
                       if (interrupted()) throw Interrupted();
                     }).score());
  return out;
}

void FederatedLoop::State::evaluate_stage(std::int64_t stage) {
  const Stopwatch watch;
  const fed::Arrays global = engine->rule().download(engine->ledger().state(), "");
  const auto row = scores(global, "evaluating after stage " + std::to_string(stage + 1));
  result.matrix.set_row(stage + 1, row);
  result.federated->global = result.matrix;
  for (std::size_t k = 0; k < ids.size(); ++k) {
    const fed::Arrays own = engine->rule().download(engine->ledger().state(), ids[k]);
    const bool keeps = terms->federated() != nullptr && !clients.at(ids[k]).strategy.empty();
    result.federated->clients[k].matrix.set_row(
        stage + 1, own == global && !keeps
                       ? row
                       : scores(own, "evaluating " + ids[k], keeps ? clients.at(ids[k]) : ClientState{}));
  }
  StageCost& cost = result.stages[static_cast<std::size_t>(stage)].cost;
  cost.eval_seconds = watch.seconds();
  cost.peak_memory_mb = peak_rss_mb();
  cost.trainable_parameters = 0;
  for (const Parameter& p : hooks->parameters())
    if (p.value.requires_grad()) cost.trainable_parameters += p.value.numel();
  cost.stored_parameters = hooks->stored_parameters();
}

/// The mean over the tasks met so far.
void FederatedLoop::State::add_point(std::int64_t round) {
  const std::int64_t stage = streams.stage_of(round);
  const bool end = round % options.stream.rounds_per_stage == 0;
  const auto row = end ? std::vector<AccuracyMatrix::Cell>()
                       : scores(engine->rule().download(engine->ledger().state(), ""),
                                "evaluating after round " + std::to_string(round));
  double sum = 0.0, count = 0.0;
  for (std::int64_t t = 0; t < result.matrix.tasks(); ++t) {
    if (!met_by(t, stage)) continue;
    sum += (end ? result.matrix.at(stage + 1, t) : row[static_cast<std::size_t>(t)]).value_or(0.0);
    count += 1.0;
  }
  std::erase_if(result.federated->curve, [&](const RoundScore& point) { return point.round >= round; });
  result.federated->curve.push_back({round, sum / count});
}

/// What is due after a committed round, also when the process ended between the two.
void FederatedLoop::State::after_round(std::int64_t round) {
  result.federated->rounds = engine->ledger().records();
  const std::int64_t stage = streams.stage_of(round);
  const bool end = round % options.stream.rounds_per_stage == 0;
  const auto& curve = result.federated->curve;
  const bool known = !curve.empty() && curve.back().round >= round;
  if (end && !result.matrix.at(stage + 1, 0)) evaluate_stage(stage);
  if (!known && (end || (options.eval_every > 0 && round % options.eval_every == 0))) add_point(round);
  write();
}

void FederatedLoop::State::describe() {
  FederatedResult& f = *result.federated;
  f.rule = engine->rule().name();
  f.weighting = engine->settings().weighting == fed::Weighting::uniform ? "uniform" : "examples";
  f.partition = options.partition.kind + " over answers, stream " + options.stream.kind;
  for (const StreamTask& task : parts.tasks) f.labels.push_back(task.info.name);
  std::vector<std::int64_t> tests;
  for (const StreamTask& task : parts.tasks) tests.push_back(task.info.test_examples);
  for (std::size_t k = 0; k < ids.size(); ++k) {
    std::int64_t all = 0;
    std::vector<std::int64_t> learned(parts.tasks.size(), 0);
    for (const auto& task : rows[k]) {
      f.histogram[ids[k]].push_back(static_cast<std::int64_t>(task.size()));
      all += f.histogram[ids[k]].back();
    }
    for (std::int64_t s = streams.stages(); s-- > 0;)
      if (const std::int64_t t = streams.task(static_cast<std::int64_t>(k), s); t >= 0)
        learned[static_cast<std::size_t>(t)] = s + 1;
    f.clients.push_back({ids[k], all, AccuracyMatrix(result.task_names(), streams.stages(), learned), tests});
  }
  if (options.privacy_clip <= 0.0 || options.privacy_noise <= 0.0) return;
  fed::PrivacyReport report;
  report.noise_multiplier = options.privacy_noise;
  report.delta = options.privacy_delta;
  report.participations = report.rounds = streams.rounds();
  const auto sample = engine->settings().sample > 0 ? engine->settings().sample : options.stream.clients;
  report.sampling_rate = static_cast<double>(sample) / static_cast<double>(options.stream.clients);
  report.weights.assign(static_cast<std::size_t>(sample), 1.0 / static_cast<double>(sample));
  f.privacy = fed::privacy_text(report);
}

void FederatedLoop::State::write() { write_result(dir->result(), result); }

RunResult FederatedLoop::run(Strategy& strategy, const std::string& name, const RunResult& head,
                             fed::RoundEngine& engine, RunDir& dir) {
  State& s = *state_;
  s.engine = &engine;
  s.dir = &dir;
  s.terms = std::make_unique<FederatedTerms>(strategy);
  s.hooks = std::make_unique<HookRunner>(*s.terms, name);
  s.hooks->set_listener([&](const char* hook) { s.host.enter(hook); });
  StreamInfo stream{.tasks = {}, .seed = s.options.seed, .backbone = s.parts.model.info()};
  for (const StreamTask& t : s.parts.tasks) stream.tasks.push_back(t.info);
  s.hooks->on_stream_begin(stream);

  std::vector<std::pair<std::string, std::vector<std::int64_t>>> stages;
  for (std::int64_t stage = 0; stage < s.streams.stages(); ++stage) {
    std::set<std::int64_t> tasks;
    for (std::int64_t k = 0; k < s.options.stream.clients; ++k)
      if (const std::int64_t t = s.streams.task(k, stage); t >= 0) tasks.insert(t);
    stages.emplace_back(tasks.size() == 1 ? stream.tasks[static_cast<std::size_t>(*tasks.begin())].name
                                          : "stage " + std::to_string(stage + 1),
                        std::vector<std::int64_t>(tasks.begin(), tasks.end()));
  }
  s.result = make_result(head.suite, head.strategy, head.seed, head.tasks, stages);
  s.result.provenance = head.provenance;
  s.result.federated.emplace();
  if (std::filesystem::exists(s.dir->result())) {
    const RunResult before = read_result(s.dir->result());
    if (before.provenance.config != head.provenance.config ||
        before.provenance.data != head.provenance.data ||
        before.provenance.model_hash != head.provenance.model_hash)
      throw ConfigError(dir.root().string(), "settings, model or data are not those that it began with",
                        "start a new run in another folder");
    s.result = before;
    s.result.complete = false;
  } else {
    if (s.parts.features != nullptr && !s.parts.model.tower_changed()) {
      std::vector<const std::vector<ExamplePtr>*> rows;
      for (const StreamTask& task : s.parts.tasks)
        rows.insert(rows.end(), {&task.train, &task.eval.examples});
      prefetch_pictures(*s.parts.features, rows, "pictures");
    }
    s.describe();
  }
  s.hooks->attach(s.parts.model);
  s.begin();
  if (s.options.evaluate_base && !s.result.matrix.at(0, 0)) {
    const auto row = s.scores(s.shared(), "evaluating the base");
    s.result.matrix.set_row(0, row);
    for (ClientScores& client : s.result.federated->clients) client.matrix.set_row(0, row);
  }
  const auto done = static_cast<std::int64_t>(engine.round()) - 1;
  for (const std::string& id : s.ids) s.clients[id] = read_client(s.folder(), id, done);
  s.write();
  if (done > 0) {
    log::info("going on after round ", done);
    s.after_round(done);
  }
  const std::int64_t each = engine.settings().sample > 0
                                ? std::min(engine.settings().sample, s.options.stream.clients)
                                : s.options.stream.clients;
  Progress progress("federated training", s.streams.rounds() * each * s.options.train.steps);
  progress.skip(done * each * s.options.train.steps);
  for (std::int64_t now = 0; engine.phase() != fed::Phase::finished; ++now) {
    if (s.options.stop_after > 0 && now >= s.options.stop_after) return s.result;
    const std::int64_t round = static_cast<std::int64_t>(engine.round());
    const Stopwatch watch;
    s.run_round(progress);
    StageCost& cost = s.result.stages[static_cast<std::size_t>(s.streams.stage_of(round))].cost;
    cost.train_seconds += watch.seconds();
    cost.steps += each * s.options.train.steps;
    cost.examples += each * s.options.train.steps * s.options.train.accumulation * s.options.train.batch;
    s.after_round(round);
  }
  s.result.complete = true;
  s.result.provenance.finished = utc_now();
  s.write();
  return s.result;
}

}  // namespace mcit
