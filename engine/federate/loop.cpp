#include "federate/loop.hpp"

#include <algorithm>
#include <optional>
#include <set>

#include "core/files.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/system.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"
#include "score/cell.hpp"
#include "score/drift.hpp"

namespace mcit {
namespace {

/// What rounds of this process took.
struct RoundTimes {
  double wall = 0.0, cpu = 0.0, clients = 0.0;

  void report(const Spent& training) const {
    const auto each = [this](double seconds) { return fixed(1000.0 * seconds / clients, 2); };
    log::debug("a client's round took ", each(wall - training.wall), " ms besides its training (",
               each(cpu - training.cpu), " ms of the CPU), in all ", each(cpu), " ms of the CPU");
  }
};

std::vector<AccuracyMatrix::Cell> scores_of(const std::vector<Cell>& cells) {
  std::vector<AccuracyMatrix::Cell> out;
  for (const Cell& cell : cells) out.emplace_back(cell.score());
  return out;
}

}  // namespace

struct FederatedLoop::State {
  State(FederatedClients& with, FederatedOptions chosen) : clients(with), options(std::move(chosen)) {}

  FederatedClients& clients;
  FederatedOptions options;

  // Of a run.
  fed::RoundEngine* engine = nullptr;
  RunDir* dir = nullptr;
  RunResult result;

  const fed::ClientStreams& streams() const { return clients.streams(); }
  const std::vector<StreamTask>& tasks() const { return clients.parts().tasks; }
  std::int64_t rounds_per_stage() const { return clients.options().stream.rounds_per_stage; }
  std::int64_t count() const { return clients.options().stream.clients; }

  void begin(const RunResult& head);
  void open(Strategy& strategy, const std::string& name, const RunResult& head, fed::RoundEngine& with,
            RunDir& in);
  void score_stages();
  void run_round(Progress& progress);
  std::vector<Cell> answers(const fed::Arrays& model, const std::string& title, std::int64_t client = -1,
                            std::int64_t row = 0);
  std::vector<AccuracyMatrix::Cell> enter_row(std::int64_t row, const fed::Arrays& model,
                                              const std::string& title);
  void evaluate_base(const fed::Arrays& state);
  void evaluate_stage(std::int64_t stage, const fed::Arrays& state);
  void add_point(std::int64_t round);
  void after_round(std::int64_t round);
  void remaining_rounds();
  bool met_by(std::int64_t task, std::int64_t stage) const;
  bool learned(std::int64_t task, std::int64_t row) const { return row > 0 && met_by(task, row - 1); }
  void describe();
  void end(bool complete);
  void write() { write_result(dir->result(), result); }
};

FederatedLoop::FederatedLoop(FederatedClients& clients, FederatedOptions options)
    : state_(std::make_unique<State>(clients, std::move(options))) {}
FederatedLoop::~FederatedLoop() = default;

void FederatedLoop::State::run_round(Progress& progress) {
  const auto round = static_cast<std::int64_t>(engine->round());
  std::vector<fed::OnlineClient> online;
  for (std::int64_t k = 0; k < count(); ++k)
    if (clients.takes_part(k, round)) online.push_back({clients.ids()[static_cast<std::size_t>(k)], 1});
  if (online.empty())
    throw ConfigError("stream", "leaves round " + std::to_string(round) + " without a client that has rows");
  const fed::RoundPlan plan = engine->plan(online);
  std::optional<fed::RoundRequest> request;
  for (const std::string& id : plan.clients) {
    if (!request || engine->rule().personal())
      request = request_of(*engine, id);
    else
      engine->download(id);  // the same model again
    std::string update = clients.train(clients.index(id), *request, progress);
    const fed::OfferResult offered = engine->offer(id, static_cast<std::uint32_t>(round), std::move(update));
    if (offered.verdict != fed::Verdict::accepted)
      log::warn("round ", round, ", ", id, ": ", fed::verdict_text(offered.verdict), ": ", offered.reason);
  }
  const fed::CloseResult closed = engine->close();
  if (closed.outcome != fed::Outcome::committed) throw Error("federation", closed.reason);
}

bool FederatedLoop::State::met_by(std::int64_t task, std::int64_t stage) const {
  for (std::int64_t s = 0; s <= stage; ++s)
    for (std::int64_t k = 0; k < count(); ++k)
      if (streams().task(k, s) == task) return true;
  return false;
}

/// To the test rows of all tasks. @param client whose model it is, with what it keeps to itself; -1: nobody's
/// @param row of the matrix that the cells are for, whose tasks are also answered as themselves; 0: for none
std::vector<Cell> FederatedLoop::State::answers(const fed::Arrays& model, const std::string& title,
                                                std::int64_t client, std::int64_t row) {
  std::int64_t rows = 0;
  for (const StreamTask& task : tasks()) rows += static_cast<std::int64_t>(task.eval.examples.size());
  Progress progress(title, rows, "rows");
  clients.load(model, client);
  std::vector<Cell> out;
  Model& backbone = clients.parts().model;
  const SelectHook select = [&](const Batch& batch) { return clients.hooks().select(batch, backbone); };
  const Group& group = clients.parts().group;
  const EvalShare share{group.rank(), group.size(),
                        [&](const std::string& own) { return group.gather(own); }};
  for (const StreamTask& task : tasks())
    out.push_back(evaluate(
        backbone, task.eval, options.eval_batch, select, learned(task.eval.index, row),
        [&](std::int64_t n) {
          progress.advance(n);
          if (interrupted()) throw Interrupted();
        },
        share));
  return out;
}

/// The server's model, at row 0 or after a stage.
std::vector<AccuracyMatrix::Cell> FederatedLoop::State::enter_row(std::int64_t row, const fed::Arrays& model,
                                                                  const std::string& title) {
  const std::vector<Cell> cells = answers(model, title, -1, row);
  for (std::int64_t t = 0; t < result.matrix.tasks(); ++t) {
    const Cell& cell = cells[static_cast<std::size_t>(t)];
    enter_cell(result, row, t, cell, learned(t, row));
    const std::string& name = tasks()[static_cast<std::size_t>(t)].info.name;
    if (clients.parts().group.first()) write_atomic(dir->predictions(row, name), to_jsonl(cell));
  }
  return scores_of(cells);
}

void FederatedLoop::State::evaluate_base(const fed::Arrays& state) {
  if (!options.evaluate_base || result.matrix.at(0, 0)) return;
  const auto row = enter_row(0, engine->rule().download(state, ""), "evaluating the base");
  for (ClientScores& client : result.federated->clients) client.matrix.set_row(0, row);
}

void FederatedLoop::State::evaluate_stage(std::int64_t stage, const fed::Arrays& state) {
  const Stopwatch watch;
  const fed::Arrays global = engine->rule().download(state, "");
  const auto row = enter_row(stage + 1, global, "evaluating after stage " + std::to_string(stage + 1));
  result.federated->global = result.matrix;
  for (std::int64_t k = 0; k < count(); ++k) {
    const std::string& id = clients.ids()[static_cast<std::size_t>(k)];
    const fed::Arrays own = engine->rule().download(state, id);
    const bool keeps = clients.keeps_tensors(k), same = own == global && !keeps;
    if (!same && !options.evaluate_clients && stage + 1 < streams().stages()) continue;
    result.federated->clients[static_cast<std::size_t>(k)].matrix.set_row(
        stage + 1, same ? row : scores_of(answers(own, "evaluating " + id, keeps ? k : -1)));
  }
  StageCost& cost = result.stages[static_cast<std::size_t>(stage)].cost;
  cost.eval_seconds = watch.seconds();
  cost.peak_memory_mb = peak_rss_mb();
  cost.trainable_parameters = 0;
  for (const Parameter& p : clients.hooks().parameters())
    if (p.value.requires_grad()) cost.trainable_parameters += p.value.numel();
  cost.stored_parameters = clients.stored_parameters();
}

/// The mean over the tasks met so far.
void FederatedLoop::State::add_point(std::int64_t round) {
  const std::int64_t stage = streams().stage_of(round);
  const bool end = round % rounds_per_stage() == 0;
  const auto row = end ? std::vector<AccuracyMatrix::Cell>()
                       : scores_of(answers(engine->rule().download(engine->ledger().state(), ""),
                                           "evaluating after round " + std::to_string(round)));
  double sum = 0.0, met = 0.0;
  for (std::int64_t t = 0; t < result.matrix.tasks(); ++t) {
    if (!met_by(t, stage)) continue;
    sum += (end ? result.matrix.at(stage + 1, t) : row[static_cast<std::size_t>(t)]).value_or(0.0);
    met += 1.0;
  }
  std::erase_if(result.federated->curve, [&](const RoundScore& point) { return point.round >= round; });
  result.federated->curve.push_back({round, sum / met});
}

void FederatedLoop::State::end(bool complete) {
  split_forgetting(result, [this](std::int64_t row, std::int64_t task) {
    return stored_cell(dir->root(), row, result.tasks[static_cast<std::size_t>(task)].name);
  });
  result.complete = complete;
  result.provenance.finished = utc_now();
  write();
}

/// What is due after a committed round, also when the process ended between the two.
void FederatedLoop::State::after_round(std::int64_t round) {
  result.federated->rounds = engine->ledger().records();
  const std::int64_t stage = streams().stage_of(round);
  const bool end = round % rounds_per_stage() == 0;
  const auto& curve = result.federated->curve;
  const bool known = !curve.empty() && curve.back().round >= round;
  if (end && !result.matrix.at(stage + 1, 0)) evaluate_stage(stage, engine->ledger().state());
  if (!known && (end || (options.eval_every > 0 && round % options.eval_every == 0))) add_point(round);
  write();
}

void FederatedLoop::State::describe() {
  FederatedResult& f = *result.federated;
  f.rule = engine->rule().name();
  f.weighting = engine->settings().weighting == fed::Weighting::uniform ? "uniform" : "examples";
  f.partition = clients.options().partition.kind + " over answers, stream " + clients.options().stream.kind;
  std::vector<std::int64_t> tests;
  for (const StreamTask& task : tasks()) {
    f.labels.push_back(task.info.name);
    tests.push_back(task.info.test_examples);
  }
  for (std::int64_t k = 0; k < count(); ++k) {
    const std::string& id = clients.ids()[static_cast<std::size_t>(k)];
    std::int64_t all = 0;
    std::vector<std::int64_t> learned(tasks().size(), 0);
    for (const auto& task : clients.rows(k)) {
      f.histogram[id].push_back(static_cast<std::int64_t>(task.size()));
      all += f.histogram[id].back();
    }
    for (std::int64_t s = streams().stages(); s-- > 0;)
      if (const std::int64_t t = streams().task(k, s); t >= 0) learned[static_cast<std::size_t>(t)] = s + 1;
    f.clients.push_back({id, all, AccuracyMatrix(result.task_names(), streams().stages(), learned), tests});
  }
  f.privacy = privacy_text(clients.options(), streams().rounds(), engine->settings().sample);
}

/// The result as it is before the first round, or as the run's folder has it.
void FederatedLoop::State::begin(const RunResult& head) {
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> stages;
  for (std::int64_t stage = 0; stage < streams().stages(); ++stage) {
    std::set<std::int64_t> met;
    for (std::int64_t k = 0; k < count(); ++k)
      if (const std::int64_t t = streams().task(k, stage); t >= 0) met.insert(t);
    stages.emplace_back(met.size() == 1 ? tasks()[static_cast<std::size_t>(*met.begin())].info.name
                                        : "stage " + std::to_string(stage + 1),
                        std::vector<std::int64_t>(met.begin(), met.end()));
  }
  result = make_result(head.suite, head.strategy, head.seed, head.tasks, stages);
  result.provenance = head.provenance;
  result.federated.emplace();
  if (std::filesystem::exists(dir->result())) {
    const RunResult before = read_result(dir->result());
    if (before.provenance.config != head.provenance.config ||
        before.provenance.data != head.provenance.data ||
        before.provenance.model_hash != head.provenance.model_hash)
      throw ConfigError(dir->root().string(), "settings, model or data are not those that it began with",
                        "start a new run in another folder");
    if (engine->phase() == fed::Phase::needs_model && before.federated && !before.federated->rounds.empty())
      throw ConfigError(dir->root().string(), "has results of rounds, and not the rounds",
                        "was it scored from another ledger?");
    result = before;
    result.complete = false;
    return;
  }
  const FederatedParts& parts = clients.parts();
  if (parts.features != nullptr && !parts.model.tower_changed()) {
    std::vector<const std::vector<ExamplePtr>*> rows;
    for (const StreamTask& task : tasks()) rows.insert(rows.end(), {&task.train, &task.eval.examples});
    prefetch_pictures(*parts.features, rows, "pictures", parts.group);
  }
  describe();
}

void FederatedLoop::State::remaining_rounds() {
  const auto done = static_cast<std::int64_t>(engine->round()) - 1;
  const TrainOptions& train = clients.options().train;
  const std::int64_t sample = engine->settings().sample;
  const std::int64_t steps = (sample > 0 ? std::min(sample, count()) : count()) * train.steps;
  Progress progress("federated training", streams().rounds() * steps);
  progress.skip(done * steps);
  RoundTimes times;
  for (std::int64_t now = 0; engine->phase() != fed::Phase::finished; ++now) {
    if (options.stop_after > 0 && now >= options.stop_after) return;
    const auto round = static_cast<std::int64_t>(engine->round());
    const Stopwatch watch;
    const double cpu = cpu_seconds();
    run_round(progress);
    StageCost& cost = result.stages[static_cast<std::size_t>(streams().stage_of(round))].cost;
    cost.train_seconds += watch.seconds();
    times.wall += watch.seconds();
    times.cpu += cpu_seconds() - cpu;
    times.clients += static_cast<double>(engine->ledger().records().back().sampled.size());
    times.report(clients.training());
    cost.steps += steps;
    cost.examples += steps * train.accumulation * train.batch;
    after_round(round);
  }
  end(true);
}

void FederatedLoop::State::open(Strategy& strategy, const std::string& name, const RunResult& head,
                                fed::RoundEngine& with, RunDir& in) {
  engine = &with;
  dir = &in;
  begin(head);
  clients.attach(strategy, name);
  clients.check(engine->rule());
}

/// What rounds elsewhere took is their time on the server's clock.
void FederatedLoop::State::score_stages() {
  const fed::Ledger& ledger = engine->ledger();
  const std::vector<RoundRecord>& rounds = ledger.records();
  const TrainOptions& train = clients.options().train;
  result.federated->rounds = rounds;
  for (const RoundRecord& round : rounds) {
    if (round.round < 1 || round.round > streams().rounds()) continue;
    StageCost& cost = result.stages[static_cast<std::size_t>(streams().stage_of(round.round))].cost;
    const std::int64_t steps = static_cast<std::int64_t>(round.used.size()) * train.steps;
    cost.train_seconds += round.seconds;
    cost.steps += steps;
    cost.examples += steps * train.accumulation * train.batch;
  }
  std::int64_t scored = 0, ended = 0;
  for (std::int64_t stage = 0; stage < streams().stages(); ++stage) {
    const std::int64_t round = (stage + 1) * rounds_per_stage();
    if (round >= static_cast<std::int64_t>(rounds.size())) break;
    ++ended;
    const std::optional<fed::Arrays> state = ledger.state_after(round);
    if (!state) {
      log::warn("stage ", stage + 1, ": the state after round ", round, " is not in the ledger any more");
      continue;
    }
    ++scored;
    evaluate_stage(stage, *state);
    add_point(round);
    write();
  }
  if (scored == 0)
    throw DataError("ledger", ended == 0 ? "no stage has ended yet" : "it has no state of a stage's end",
                    "servers keep those that [federation] keep_every divides");
  end(scored == streams().stages());
}

RunResult FederatedLoop::score(Strategy& strategy, const std::string& name, const RunResult& head,
                               fed::RoundEngine& engine, RunDir& dir) {
  State& s = *state_;
  const std::optional<fed::Arrays> first = engine.ledger().state_after(0);
  if (!first) throw DataError("ledger", "it has no round");
  s.open(strategy, name, head, engine, dir);
  s.evaluate_base(*first);
  s.score_stages();
  return s.result;
}

RunResult FederatedLoop::run(Strategy& strategy, const std::string& name, const RunResult& head,
                             fed::RoundEngine& engine, RunDir& dir) {
  State& s = *state_;
  s.open(strategy, name, head, engine, dir);
  if (engine.phase() == fed::Phase::needs_model) engine.begin(s.clients.shared());
  s.evaluate_base(engine.ledger().state());
  const auto done = static_cast<std::int64_t>(engine.round()) - 1;
  s.clients.open(dir.root() / "clients", done);
  s.write();
  if (done > 0) {
    log::info("going on after round ", done);
    s.after_round(done);
  }
  s.remaining_rounds();
  return s.result;
}

}  // namespace mcit
