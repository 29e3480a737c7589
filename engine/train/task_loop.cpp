#include "train/task_loop.hpp"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/random.hpp"
#include "core/system.hpp"
#include "data/loader.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "score/drift.hpp"
#include "train/events.hpp"
#include "train/snapshot.hpp"

namespace mcit {

/// The engine's side of a strategy's Host.
class EngineHost final : public Host {
 public:
  EngineHost(const std::vector<StreamTask>& tasks, const std::vector<ExamplePtr>& probe, std::uint64_t seed)
      : tasks_(tasks), probe_(probe), seed_(seed), generator_(at::make_generator<at::CPUGeneratorImpl>()) {}

  void info(const std::string& message) override { log::info(message); }
  void warn(const std::string& message) override { log::warn(message); }
  void record(const std::string& name, double value) override { records[name] = value; }
  void table(const std::string& name, const StageTable& table) override {
    check_table(name, table);
    tables[name] = {table.rows, table.columns, table.values, table.plot == StageTable::Plot::lines};
  }
  std::unique_ptr<Batches> probe() override {
    if (probe_.empty())
      throw ConfigError("suite", "has no data like that of the model's pre-training",
                        "add probe = \"FILE\" to the suite, training records in CoIN's form");
    return std::make_unique<parts::ExampleBatches>(probe_);
  }
  at::Generator generator() override {
    if (pending_) generator_.set_current_seed(*pending_);
    pending_.reset();
    return generator_;
  }
  ExamplePtr example(std::int64_t task, std::int64_t index) override {
    if (task < 0 || task >= static_cast<std::int64_t>(tasks_.size()) || !met.contains(task))
      throw Error("host.example", "task " + std::to_string(task) + " was not trained yet");
    const auto& rows = tasks_[static_cast<std::size_t>(task)].train;
    if (index < 0 || index >= static_cast<std::int64_t>(rows.size()))
      throw Error("host.example",
                  "task " + std::to_string(task) + " has no training example " + std::to_string(index));
    return rows[static_cast<std::size_t>(index)];
  }
  /// A hook is about to run: its draws depend on where it stands and on nothing that happened before.
  void enter(const char* hook) { pending_ = derive(seed_, {"strategy", hook, stage, step}); }

  std::map<std::string, double> records;      ///< since the last line of metrics.jsonl
  std::map<std::string, ResultTable> tables;  ///< of the current stage
  std::set<std::int64_t> met;                 ///< tasks that were trained or are being trained
  std::int64_t stage = -1, step = -1;

 private:
  const std::vector<StreamTask>& tasks_;
  const std::vector<ExamplePtr>& probe_;
  std::uint64_t seed_;
  at::Generator generator_;
  std::optional<std::uint64_t> pending_;
};

namespace {

/// Whether a plan is what a strategy without plans of its own has.
bool one_task_each(const std::vector<Stage>& stages, const StreamInfo& stream) {
  if (stages.size() != stream.tasks.size()) return false;
  for (std::size_t i = 0; i < stages.size(); ++i)
    if (stages[i].tasks != std::vector{static_cast<std::int64_t>(i)}) return false;
  return true;
}

}  // namespace

void prefetch_pictures(FeatureStore& store, const std::vector<const std::vector<ExamplePtr>*>& rows,
                       const std::string& title, const Group& group) {
  std::vector<std::string> paths, own;
  for (const auto* list : rows)
    for (const ExamplePtr& example : *list)
      if (!example->image.empty()) paths.push_back(example->image);
  const auto fetch = [&](const std::vector<std::string>& some) {
    Progress progress(title, static_cast<std::int64_t>(some.size()), "pictures");
    store.prefetch(some, [&](std::int64_t n) {
      progress.advance(n);
      if (interrupted()) throw Interrupted();
    });
  };
  if (!group.alone()) {  // each its share, which the others then find in the store's file
    for (auto i = static_cast<std::size_t>(group.rank()); i < paths.size();
         i += static_cast<std::size_t>(group.size()))
      own.push_back(paths[i]);
    fetch(own);
    group.meet();
  }
  fetch(paths);
}

struct TaskLoop::State {
  LoopParts parts;
  LoopOptions options;
  EngineHost host;
  std::unique_ptr<HookRunner> hooks;
  std::unique_ptr<AppendFile> metrics;
  std::unique_ptr<RunEvents> events;  ///< null when they are not wanted
  RunResult result;
  std::vector<Stage> stages;
  std::unique_ptr<AdamW> optimizer;
  std::vector<ExamplePtr> examples;  ///< of the current stage
  Task task;
  double train_seconds = 0.0;  ///< of the current stage, earlier processes included
  std::int64_t seen_examples = 0, seen_tokens = 0;

  State(LoopParts p, LoopOptions o)
      : parts(std::move(p)), options(std::move(o)), host(parts.tasks, parts.probe, options.seed) {}

  void enter_stage(std::int64_t index);
  void make_optimizer();
  void prefetch();
  void train(std::int64_t first_step);
  void open_metrics(std::uint64_t keep);
  void put_line(const Json& line);
  void write_line(const StepResult& step, std::int64_t number, double seconds);
  void write_records(const char* hook);
  void save(std::int64_t step, bool trained);
  void write();
  void agree();
  void adopt(const Snapshot& snapshot);
  Batch batch_of(const BatchOrder& order, std::int64_t index);
  void keep_batch(const Batch& batch, double value);
  void evaluate_row(std::int64_t row, bool base);
  Cell cell(const StreamTask& task, bool base, const std::string& state_digest, Progress& progress);
  std::int64_t resume(Snapshot snapshot);
  void finish_stage();
};

TaskLoop::TaskLoop(LoopParts parts, LoopOptions options)
    : state_(std::make_unique<State>(std::move(parts), std::move(options))) {}
TaskLoop::~TaskLoop() = default;
Host& TaskLoop::host() { return state_->host; }

void TaskLoop::State::enter_stage(std::int64_t index) {
  const Stage& stage = stages[static_cast<std::size_t>(index)];
  examples.clear();
  task = {index, stage.name, stage.tasks, 0};
  for (const std::int64_t t : stage.tasks) {
    const StreamTask& part = parts.tasks[static_cast<std::size_t>(t)];
    examples.insert(examples.end(), part.train.begin(), part.train.end());
    task.steps += part.steps;
    host.met.insert(t);
  }
  host.stage = index;
  host.step = -1;
  hooks->at(task, -1);
  train_seconds = 0.0;
  seen_examples = seen_tokens = 0;
}

/// @param keep bytes of metrics.jsonl that stay
void TaskLoop::State::open_metrics(std::uint64_t keep) {
  if (!parts.group.first()) return;
  metrics = std::make_unique<AppendFile>(parts.run.metrics(), keep);
  if (options.tensorboard)
    events = std::make_unique<RunEvents>(parts.run.events(), parts.run.metrics(), result.matrix);
}

void TaskLoop::State::put_line(const Json& line) {
  if (!metrics) return;
  metrics->line(dump_json(line));
  if (events) events->line(line);
}

/// What hooks outside of steps recorded, as a line of its own.
void TaskLoop::State::write_records(const char* hook) {
  if (host.records.empty()) return;
  Json line = {{"stage", task.index + 1}, {"task", task.name}, {"hook", hook}};
  for (const auto& [name, value] : host.records) line["strategy." + name] = value;
  host.records.clear();
  put_line(line);
}

void TaskLoop::State::make_optimizer() {
  const Parameters parameters = hooks->parameters();
  for (const Parameter& p : parameters)
    if (!options.train.learning_rate.contains(p.group))
      throw StrategyError("'" + hooks->name() + "' in parameters",
                          "'" + p.name + "' is of the unknown group '" + p.group + "'",
                          "known: adapter, connector, prompt, base");
  optimizer = std::make_unique<AdamW>(parameters, options.train.adamw);
}

void TaskLoop::State::prefetch() {
  if (parts.features == nullptr || parts.model.tower_changed())
    return;  // features then belong to one step only
  std::vector<const std::vector<ExamplePtr>*> rows = {&examples};
  for (const StreamTask& t : parts.tasks) rows.push_back(&t.eval.examples);
  prefetch_pictures(*parts.features, rows, "pictures of '" + task.name + "'", parts.group);
}

void TaskLoop::State::write_line(const StepResult& step, std::int64_t number, double seconds) {
  Json line = {{"stage", task.index + 1},
               {"task", task.name},
               {"step", number + 1},
               {"loss", step.loss},
               {"gradient_norm", step.gradient_norm},
               {"rate", step.rate},
               {"examples", step.examples},
               {"tokens", step.tokens},
               {"seconds", std::round(seconds * 1e6) / 1e6}};
  for (const auto& [name, value] : host.records) line["strategy." + name] = value;
  host.records.clear();
  put_line(line);
}

/// This process's rows of a batch. The seed of its dropout is its own: with a common one all would drop
/// alike.
Batch TaskLoop::State::batch_of(const BatchOrder& order, std::int64_t index) {
  Batch batch;
  for (const std::int64_t i : order.batch(index))
    batch.examples.push_back(examples[static_cast<std::size_t>(i)]);
  std::uint64_t seed = derive(options.seed, {"dropout", task.index, index});
  if (!parts.group.alone()) {
    batch.examples = parts.group.share(batch.examples);
    seed = derive(seed, {"rank", parts.group.rank()});
  }
  seed_dropout(seed, parts.model.device());
  return batch;
}

void TaskLoop::State::keep_batch(const Batch& batch, double value) {
  Json own = Json::array(), rows = Json::array();
  for (const ExamplePtr& e : batch.examples)
    own.push_back({{"task", e->task},
                   {"index", e->index},
                   {"id", e->id},
                   {"image", e->image},
                   {"prompt", e->prompt},
                   {"answer", e->answer}});
  for (const std::string& text : parts.group.gather(dump_json(own)))
    for (const Json& row : parse_json(text, "batch")) rows.push_back(row);
  if (!parts.group.first()) return;
  write_json(
      parts.run.root() / "nonfinite_batch.json",
      {{"stage", task.index + 1}, {"step", host.step + 1}, {"value", std::to_string(value)}, {"rows", rows}});
}

void TaskLoop::State::train(std::int64_t first_step) {
  if (optimizer->parameters().empty() || task.steps == 0) return;
  std::vector<std::int64_t> lengths;
  for (const ExamplePtr& example : examples)
    lengths.push_back(static_cast<std::int64_t>(example->tokens.size()));
  const BatchOrder order(lengths, options.train.batch, derive(options.seed, {"order", task.index}));
  log::debug("'", task.name, "': ", examples.size(), " examples, ", order.batches_per_epoch(),
             " batches an epoch; padding would take ", std::llround(100.0 * order.padding()),
             " % of their cells");
  Progress progress("training '" + task.name + "' (" + std::to_string(task.index + 1) + "/" +
                        std::to_string(stages.size()) + ")",
                    task.steps);
  progress.skip(first_step);
  parts.model.set_training(true);
  for (std::int64_t number = first_step; number < task.steps; ++number) {
    const Stopwatch watch;
    host.step = number;
    hooks->at(task, number);
    const StepResult step = train_step(
        task, number, parts.model, *hooks, *optimizer,
        [&](std::int64_t index) { return batch_of(order, index); }, options.train,
        [&](const Batch& batch, double value) { keep_batch(batch, value); }, parts.group);
    const double seconds = watch.seconds();
    train_seconds += seconds;
    seen_examples += step.examples;
    seen_tokens += step.tokens;
    write_line(step, number, seconds);
    progress.advance(1, "loss " + std::to_string(step.loss).substr(0, 6));
    const bool due =
        options.snapshot_every > 0 && (number + 1) % options.snapshot_every == 0 && number + 1 < task.steps;
    const bool stop = parts.group.any(interrupted());
    if (due || stop) save(number + 1, false);
    if (stop) throw Interrupted();
  }
  parts.model.set_training(false);
  host.step = -1;
  hooks->at(task, -1);
}

void TaskLoop::State::write() {
  if (parts.group.first()) write_result(parts.run.result(), result);
}

void TaskLoop::State::save(std::int64_t step, bool trained) {
  if (!parts.group.first()) return;
  metrics->sync();
  write();
  Snapshot s{.stage = task.index,
             .step = step,
             .trained = trained,
             .strategy = hooks->state(),
             .optimizer = {},
             .trainable = {},
             .result = read_file(parts.run.result()),
             .metrics_bytes = metrics->bytes(),
             .costs = {{"train_seconds", train_seconds},
                       {"examples", static_cast<double>(seen_examples)},
                       {"tokens", static_cast<double>(seen_tokens)}}};
  if (!trained) s.optimizer = optimizer->state();
  for (const Parameter& p : hooks->parameters())
    if (p.value.requires_grad()) s.trainable.push_back(p.name);
  write_snapshot(parts.run.snapshots(), s);
}

/// Takes a stage's state over, with an optimizer for it.
void TaskLoop::State::adopt(const Snapshot& s) {
  hooks->load_state(s.strategy);
  const std::set<std::string> trainable(s.trainable.begin(), s.trainable.end());
  for (const Parameter& p : hooks->parameters()) {
    Tensor value = p.value;
    value.set_requires_grad(trainable.contains(p.name));
  }
  make_optimizer();
  if (!s.trained) optimizer->load_state(s.optimizer);
}

/// Outside of steps all processes compute the same, but not to the last bit on machines of different kinds:
/// what the first one has just saved is then what all go on with.
void TaskLoop::State::agree() {
  if (parts.group.alone()) return;
  const std::vector<std::string> digests = parts.group.gather(digest_of(hooks->state()));
  if (std::count(digests.begin(), digests.end(), digests[0]) == parts.group.size()) return;
  log::debug("the processes differ after the same computation; all go on with the first one's state");
  const std::optional<Snapshot> saved = read_newest_snapshot(parts.run.snapshots());
  if (!parts.group.first() && saved) adopt(*saved);
  parts.group.meet();
}

std::int64_t TaskLoop::State::resume(Snapshot s) {
  if (parts.group.first()) write_atomic(parts.run.result(), s.result);
  parts.group.meet();
  const Provenance now = result.provenance;
  result = read_result(parts.run.result());
  if (result.provenance.config != now.config || result.provenance.model_hash != now.model_hash ||
      result.provenance.data != now.data)
    throw ConfigError(parts.run.root().string(),
                      "settings, model or data are not those that the run began with",
                      "start a new run in another folder");
  if (result.provenance.build_tag != now.build_tag || result.provenance.plugin_hash != now.plugin_hash)
    log::warn(
        "engine or plugin were rebuilt since this run began; its numbers may differ in the last digits");
  for (std::int64_t i = 0; i < s.stage; ++i)
    for (const std::int64_t t : stages[static_cast<std::size_t>(i)].tasks) host.met.insert(t);
  enter_stage(s.stage);
  adopt(s);
  train_seconds = s.costs["train_seconds"];
  seen_examples = static_cast<std::int64_t>(s.costs["examples"]);
  seen_tokens = static_cast<std::int64_t>(s.costs["tokens"]);
  open_metrics(s.metrics_bytes);
  log::info("going on at stage ", s.stage + 1, " '", task.name,
            s.trained ? "', evaluation" : "', step " + std::to_string(s.step));
  return s.step;
}

Cell TaskLoop::State::cell(const StreamTask& t, bool base, const std::string& state_digest,
                           Progress& progress) {
  std::filesystem::path file;
  std::optional<FileLock> lock;
  if (!options.cell_cache.empty()) {
    Hasher key;
    key.field(options.engine_hash)
        .field(parts.model_hash)
        .field(base ? "base" : state_digest)
        .field(base ? "" : options.strategy_hash)
        .field(t.eval.digest)
        .field(result.provenance.device)
        .field(result.provenance.dtype)
        .update(options.eval_batch)
        .update(result.provenance.threads);
    file = options.cell_cache / (key.hex() + ".jsonl");
    if (parts.group.first() && base && !std::filesystem::exists(file))
      lock.emplace(file.string() + ".lock");  // runs side by side share it
    const std::string text = parts.group.from_first(
        parts.group.first() && std::filesystem::exists(file) ? read_file(file) : std::string());
    if (!text.empty()) {
      try {
        Cell known = from_jsonl(text, file.string());
        if (known.rows.size() == t.eval.examples.size()) {
          if (t.eval.scorer->corpus != nullptr) score_cell(known, *t.eval.scorer);
          progress.advance(static_cast<std::int64_t>(known.rows.size()));
          return known;
        }
      } catch (const std::exception& e) {
        log::warn(e.what(), "; the cell is computed again");
      }
    }
  }
  const SelectHook select =
      base ? SelectHook{} : [&](const Batch& batch) { return hooks->select(batch, parts.model); };
  Cell fresh = evaluate(parts.model, t.eval, options.eval_batch, select, host.met.contains(t.eval.index),
                        [&](std::int64_t n) { progress.advance(n); },
                        {parts.group.rank(), parts.group.size(),
                         [&](const std::string& own) { return parts.group.gather(own); }});
  if (parts.group.first() && !file.empty()) write_atomic(file, to_jsonl(fresh));
  return fresh;
}

void TaskLoop::State::evaluate_row(std::int64_t row, bool base) {
  const Stopwatch watch;
  std::int64_t rows = 0;
  for (const StreamTask& t : parts.tasks) rows += static_cast<std::int64_t>(t.eval.examples.size());
  const bool untouched = base || (hooks->parameters().empty() && hooks->state().empty());
  const std::string digest = untouched ? "" : digest_of(hooks->state());
  Progress progress(row == 0 ? "evaluating the base" : "evaluating after '" + task.name + "'", rows, "rows");
  for (std::size_t j = 0; j < parts.tasks.size(); ++j) {
    const StreamTask& t = parts.tasks[j];
    const Cell known = cell(t, untouched, digest, progress);
    if (parts.group.first()) write_atomic(parts.run.predictions(row, t.info.name), to_jsonl(known));
    const auto task_index = static_cast<std::int64_t>(j);
    enter_cell(result, row, task_index, known, host.met.contains(task_index));
  }
  if (row == 0)
    result.base_eval_seconds = watch.seconds();
  else
    result.stages[static_cast<std::size_t>(row - 1)].cost.eval_seconds = watch.seconds();
  if (events) events->scores(result.matrix, row);
  write();
}

void TaskLoop::State::finish_stage() {
  StageCost& cost = result.stages[static_cast<std::size_t>(task.index)].cost;
  cost.trainable_parameters = 0;
  for (const Parameter& p : optimizer->parameters()) cost.trainable_parameters += p.value.numel();
  cost.steps = optimizer->parameters().empty() ? 0 : task.steps;
  cost.examples = seen_examples;
  cost.tokens = seen_tokens;
  cost.train_seconds = train_seconds;
  for (auto& [name, table] : host.tables)
    result.stages[static_cast<std::size_t>(task.index)].tables[name] = std::move(table);
  host.tables.clear();
}

RunResult TaskLoop::run(Strategy& strategy, const std::string& name, const RunResult& result, bool resume) {
  State& s = *state_;
  s.hooks = std::make_unique<HookRunner>(strategy, name);
  s.hooks->set_listener([&](const char* hook) { s.host.enter(hook); });
  StreamInfo stream{.tasks = {}, .seed = s.options.seed, .backbone = s.parts.model.info()};
  for (const StreamTask& t : s.parts.tasks) stream.tasks.push_back(t.info);
  s.hooks->on_stream_begin(stream);
  s.stages = s.hooks->plan(stream);
  if (!s.options.stages.empty() && one_task_each(s.stages, stream)) s.stages = s.options.stages;
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> names;
  for (const Stage& stage : s.stages) names.emplace_back(stage.name, stage.tasks);
  s.result = make_result(result.suite, result.strategy, result.seed, result.tasks, names);
  s.result.provenance = result.provenance;

  std::optional<Snapshot> snapshot = resume ? read_newest_snapshot(s.parts.run.snapshots()) : std::nullopt;
  if (!snapshot) {
    s.open_metrics(0);
    if (s.options.evaluate_base) {
      s.task = {-1, "the base", {}, 0};
      s.prefetch();
      s.evaluate_row(0, true);
    }
  }
  s.hooks->attach(s.parts.model);
  std::int64_t first_stage = 0, first_step = 0;
  bool trained = false;
  if (snapshot) {
    first_stage = snapshot->stage;
    trained = snapshot->trained;
    first_step = s.resume(std::move(*snapshot));
  }
  for (std::int64_t i = first_stage; i < static_cast<std::int64_t>(s.stages.size()); ++i) {
    const bool taken_up = snapshot.has_value() && i == first_stage;
    if (!taken_up) {
      s.enter_stage(i);
      s.prefetch();
      parts::ExampleBatches batches(s.examples);
      s.hooks->before_task(s.task, batches, s.parts.model);
      s.write_records("before_task");
      s.make_optimizer();
      s.save(0, false);
      s.agree();
    } else {
      s.prefetch();
    }
    if (!(taken_up && trained)) {
      s.train(taken_up ? first_step : 0);
      parts::ExampleBatches batches(s.examples);
      s.hooks->after_task(s.task, batches, s.parts.model);
      s.write_records("after_task");
      s.finish_stage();
      StageCost& cost = s.result.stages[static_cast<std::size_t>(i)].cost;
      cost.stored_parameters = s.hooks->stored_parameters();
      s.optimizer->zero_grad();
      s.save(s.task.steps, true);
      s.agree();
    }
    s.evaluate_row(i + 1, false);
    s.result.stages[static_cast<std::size_t>(i)].cost.peak_memory_mb = peak_rss_mb();
    s.write();
    const bool enough = s.options.stop_after > 0 && i + 1 - first_stage >= s.options.stop_after;
    const bool as_far = s.options.last_stage > 0 && i + 1 >= s.options.last_stage;
    if (enough || (as_far && i + 1 < static_cast<std::int64_t>(s.stages.size()))) return s.result;
  }
  if (!s.parts.group.first()) return s.result;
  split_forgetting(s.result, [&](std::int64_t row, std::int64_t task) {
    return stored_cell(s.parts.run.root(), row, s.result.tasks[static_cast<std::size_t>(task)].name);
  });
  s.result.complete = true;
  s.result.provenance.finished = utc_now();
  s.write();
  for (const auto& [hook, cost] : s.hooks->costs())
    log::debug("hook ", hook, ": ", cost.calls, " calls, ",
               1e3 * cost.seconds / static_cast<double>(cost.calls), " ms each");
  return s.result;
}

}  // namespace mcit
