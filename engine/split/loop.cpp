#include "split/loop.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/log.hpp"
#include "core/system.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "split/loop_state.hpp"
#include "train/snapshot.hpp"

namespace mcit::split {

Loop::Loop(const Base& base, Training training, LoopOptions options, Peers& peers)
    : state_(std::make_unique<State>(base, std::move(training), options, peers)) {}
Loop::~Loop() = default;
const Record& Loop::record() const { return state_->record; }

/// A row of the matrix: all clients' test rows together.
void Loop::State::evaluate(std::int64_t row) {
  const Stopwatch watch;
  Progress progress("evaluating", tasks(), "tasks");
  for (std::int64_t task = 0; task < tasks(); ++task) {
    TaskResult& info = result.tasks[static_cast<std::size_t>(task)];
    CellCount all;
    for (const auto& [id, score] :
         options.method == Method::mpsl ? split_scores(task) : average_scores(task)) {
      record.clients[id].scores[info.name] = score;
      all.score += static_cast<double>(score.correct);
      all.examples += score.rows;
    }
    if (all.examples > 0) {
      result.matrix.set(row, task, 100.0 * all.score / static_cast<double>(all.examples));
      result.counts[static_cast<std::size_t>(row)][static_cast<std::size_t>(task)] = all;
      if (info.test_examples == 0) info.test_examples = all.examples;  // a server has no rows to count
    }
    progress.advance();
  }
  (row == 0 ? result.base_eval_seconds : result.stages[static_cast<std::size_t>(row - 1)].cost.eval_seconds) =
      watch.seconds();
}

/// What clients spent since they were asked last; who does not answer now is asked next time.
void Loop::State::collect_costs() {
  exchange(there(), request_of("costs", {}), "costs", true, [&](const std::string& id, const Message& reply) {
    ClientRecord now = record.clients[id];
    now.flops += reply.number("flops");
    now.cpu_seconds += reply.number("cpu_seconds");
    now.examples += reply.integer("rows");
    now.parameter_bytes = std::max(now.parameter_bytes, reply.integer("parameter_bytes"));
    now.train_rows = reply.integer("train_rows");
    now.test_rows = reply.integer("test_rows");
    record.clients[id] = now;
  });
}

void Loop::State::write() {
  write_result(dir->result(), result);
  write_json(dir->root() / "split.json", to_json(record));
}

/// Clients first: a snapshot is taken up only where all of its parts are there.
void Loop::State::save() {
  collect_costs();
  exchange(there(), request_of("save", {{"place", place()}}), "done", true);
  metrics->sync();
  Snapshot snapshot;
  snapshot.stage = stage;
  snapshot.step = step;
  snapshot.trained = trained;
  for (const auto& [name, tensor] : server.state())
    (name.starts_with("model/") ? snapshot.strategy : snapshot.optimizer)[name] = tensor;
  if (options.method == Method::fedavg)
    for (const Parameter& p : heads.parameters())
      if (p.value.requires_grad()) snapshot.strategy["heads/" + p.name] = p.value.detach();
  snapshot.result = dump_json(Json{{"run", result_json(result)}, {"split", to_json(record)}});
  snapshot.metrics_bytes = metrics->bytes();
  write_snapshot(dir->snapshots(), snapshot);
}

bool Loop::State::load() {
  const std::optional<Snapshot> snapshot = read_newest_snapshot(dir->snapshots());
  metrics = std::make_unique<AppendFile>(dir->metrics(), snapshot ? snapshot->metrics_bytes : 0);
  if (!snapshot) return false;
  StateDict state = snapshot->optimizer;
  for (const auto& [name, tensor] : snapshot->strategy) state[name] = tensor;
  server.load_state(state);
  const at::NoGradGuard no_grad;
  for (const Parameter& p : heads.parameters())
    if (const auto found = state.find("heads/" + p.name); found != state.end())
      p.value.detach().copy_(found->second);
  stage = snapshot->stage;
  step = snapshot->step;
  trained = snapshot->trained;
  const std::string where = dir->snapshots().string();
  const Json kept = parse_json(snapshot->result, where);
  record = record_from_json(json_object(kept, "split", where), where);
  write_atomic(dir->result(), dump_json(json_object(kept, "run", where), 2));
  const Provenance now = result.provenance;
  result = read_result(dir->result());
  if (result.provenance.config != now.config || result.provenance.data != now.data ||
      result.provenance.model_hash != now.model_hash)
    throw ConfigError(dir->root().string(), "settings, model or data are not those that it began with",
                      "start a new run in another folder");
  return true;
}

void Loop::State::train_stage(Progress& progress) {
  StageCost& cost = result.stages[static_cast<std::size_t>(stage)].cost;
  const std::int64_t each = options.method == Method::mpsl ? 1 : options.local_steps;
  std::int64_t saved = step;
  while (step < training.steps) {
    const Stopwatch watch;
    const std::int64_t steps = std::min(each, training.steps - step);
    std::int64_t clients = 0;
    const double loss = options.method == Method::mpsl ? split_step(clients) : average_round(steps, clients);
    step += steps;
    record.steps += steps;
    cost.steps += steps;
    cost.train_seconds += watch.seconds();
    metrics->line(dump_json(Json{{"stage", stage + 1},
                                 {"step", step},
                                 {"loss", loss},
                                 {"clients", clients},
                                 {"seconds", watch.seconds()}}));
    progress.advance(steps, "loss " + fixed(loss, 3));
    const bool stopping =
        interrupted() || (options.stop_after > 0 && record.steps - began >= options.stop_after);
    if (step < training.steps && (stopping || step - saved >= options.snapshot_every)) {
      save();
      saved = step;
    }
    if (stopping && step < training.steps) return;
  }
  trained = true;
}

RunResult Loop::run(const RunResult& head, RunDir& dir) {
  State& s = *state_;
  s.dir = &dir;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> stages;
  for (std::size_t t = 0; t < head.tasks.size(); ++t)
    stages.push_back({head.tasks[t].name, {static_cast<std::int64_t>(t)}});
  s.result = make_result(head.suite, head.strategy, head.seed, head.tasks, stages);
  s.result.provenance = head.provenance;
  s.record.method = s.options.method == Method::mpsl ? "mpsl" : "fedavg";
  s.record.fusion = s.base.shape.fusion == Fusion::early ? "early" : "late";
  for (const Modality modality : s.base.shape.modalities) s.record.modalities.emplace_back(name_of(modality));
  s.record.train_heads = s.training.trained.heads;
  s.record.train_blocks = s.training.trained.blocks;
  std::int64_t numbers = 0;
  for (const Parameter& p : s.travelling()) numbers += p.value.numel();
  for (StageResult& stage : s.result.stages)
    stage.cost.trainable_parameters = stage.cost.stored_parameters = numbers;
  const bool resumed = s.load();
  if (resumed) log::info("going on after step ", s.record.steps);
  s.began = s.record.steps;
  s.gather();
  if (!resumed && s.options.evaluate_base) s.evaluate(0);
  s.write();
  Progress progress(s.record.method, s.tasks() * s.training.steps);
  progress.skip(s.record.steps);
  for (; s.stage < s.tasks(); ++s.stage, s.step = 0, s.trained = false) {
    if (s.step == 0) s.server.restart();
    if (!s.trained) s.train_stage(progress);
    if (!s.trained) {
      s.write();
      if (interrupted()) throw Interrupted();
      return s.result;
    }
    s.evaluate(s.stage + 1);
    s.collect_costs();
    std::int64_t examples = 0;
    for (const auto& [id, client] : s.record.clients) examples += client.examples;
    for (std::int64_t before = 0; before < s.stage; ++before)
      examples -= s.result.stages[static_cast<std::size_t>(before)].cost.examples;
    s.result.stages[static_cast<std::size_t>(s.stage)].cost.examples = examples;
    s.write();
    if (s.stage + 1 == s.tasks()) break;
    // The next task begins from here.
    ++s.stage;
    s.step = 0;
    s.trained = false;
    s.server.restart();
    s.save();
    --s.stage;
    if (s.options.stop_after > 0 && s.record.steps - s.began >= s.options.stop_after) return s.result;
    if (interrupted()) throw Interrupted();
  }
  s.record.complete = s.result.complete = true;
  s.result.provenance.finished = utc_now();
  StateDict final_model;
  for (const Parameter& p : s.travelling()) final_model[p.name] = p.value.detach();
  write_safetensors(dir.root() / "model.safetensors", final_model);
  s.write();
  return s.result;
}

}  // namespace mcit::split
