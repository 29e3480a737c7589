#include "metrics/result.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/json.hpp"
#include "core/text.hpp"
#include "mcit/abi.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"

namespace mcit {
namespace {

constexpr int kSchema = 1;

bool is_empty(const AccuracyMatrix& matrix) {
  for (std::int64_t i = 0; i <= matrix.stages(); ++i)
    for (std::int64_t j = 0; j < matrix.tasks(); ++j)
      if (matrix.at(i, j)) return false;
  return true;
}

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json tasks_json(const std::vector<TaskResult>& tasks) {
  Json out = Json::array();
  for (const TaskResult& task : tasks) {
    Json& line = out.emplace_back(Json{
        {"name", task.name}, {"test_examples", task.test_examples}, {"chance", optional_json(task.chance)}});
    if (!task.scorer.empty()) line["scorer"] = task.scorer;
  }
  return out;
}

Json counts_json(const RunResult& result) {
  Json out = Json::array();
  for (const auto& row : result.counts) {
    Json line = Json::array();
    for (const auto& cell : row)
      line.push_back(cell ? Json{{"score", cell->score}, {"examples", cell->examples}} : Json(nullptr));
    out.push_back(std::move(line));
  }
  return out;
}

Json metrics_json(const MetricInputs& inputs) {
  Json out = Json::object();
  for (const Metric& metric : compute_metrics(inputs))
    out[std::string(metric.info.name)] = optional_json(metric.result.value);
  return out;
}

double rate(std::int64_t count, double seconds) {
  return seconds > 0.0 ? static_cast<double>(count) / seconds : 0.0;
}

Json cost_json(const StageCost& cost) {
  return {{"trainable_parameters", cost.trainable_parameters},
          {"stored_parameters", cost.stored_parameters},
          {"steps", cost.steps},
          {"examples", cost.examples},
          {"tokens", cost.tokens},
          {"train_seconds", cost.train_seconds},
          {"eval_seconds", cost.eval_seconds},
          {"examples_per_second", rate(cost.examples, cost.train_seconds)},
          {"tokens_per_second", rate(cost.tokens, cost.train_seconds)},
          {"peak_memory_mb", cost.peak_memory_mb}};
}

Json costs_json(const RunResult& result) {
  Json stages = Json::array();
  for (const StageResult& stage : result.stages) {
    Json line{{"stage", stage.name}};
    line.update(cost_json(stage.cost));
    stages.push_back(std::move(line));
  }
  return {{"base_eval_seconds", result.base_eval_seconds},
          {"stages", stages},
          {"total", cost_json(result.total_cost())}};
}

Json selector_json(const RunResult& result) {
  Json out = Json::array();
  bool any = false;
  for (const StageResult& stage : result.stages) {
    out.push_back(optional_json(stage.selector_accuracy));
    any = any || stage.selector_accuracy.has_value();
  }
  return any ? out : Json(nullptr);
}

/// The parts of a split by their names in the file.
template <class Split>
auto split_parts(Split& split) {
  return std::array{std::pair{"format_drift", &split.format_drift},
                    std::pair{"knowledge_loss", &split.knowledge_loss},
                    std::pair{"regained", &split.regained}};
}

Json tables_json(const RunResult& result) {
  Json out = Json::array();
  for (const StageResult& stage : result.stages)
    for (const auto& [name, table] : stage.tables)
      out.push_back({{"stage", stage.name},
                     {"name", name},
                     {"rows", table.rows},
                     {"columns", table.columns},
                     {"values", table.values},
                     {"plot", table.lines ? "lines" : "heat_map"}});
  return out;
}

Json provenance_json(const Provenance& p) {
  return {{"command", p.command},
          {"config", p.config},
          {"seeds", p.seeds},
          {"build", p.build},
          {"build_tag", p.build_tag},
          {"plugin", {{"file", p.plugin_file}, {"hash", p.plugin_hash}}},
          {"model", {{"folder", p.model}, {"hash", p.model_hash}}},
          {"data", p.data},
          {"device", p.device},
          {"dtype", p.dtype},
          {"threads", p.threads},
          {"processes", p.processes},
          {"hardware",
           {{"cpu", p.hardware.cpu},
            {"logical_cores", p.hardware.logical_cores},
            {"usable_cores", p.hardware.usable_cores},
            {"memory_gb", p.hardware.memory_gb},
            {"system", p.hardware.system}}},
          {"started", p.started},
          {"finished", p.finished.empty() ? Json(nullptr) : Json(p.finished)}};
}

/// Reads what is there into `out`; what is absent or null keeps its default. @throws DataError on another
/// type.
template <class T>
void take(const Json& object, const char* key, T& out, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return;
  try {
    out = found->get<T>();
  } catch (const Json::exception&) {
    throw DataError(where, std::string("'") + key + "' has the wrong type: " + dump_json(*found));
  }
}

const Json& part(const Json& object, const char* key) {
  static const Json nothing = Json::object();
  const auto found = object.find(key);
  return found != object.end() && found->is_object() ? *found : nothing;
}

std::optional<double> optional_number(const Json& value, const std::string& where) {
  if (value.is_null()) return {};
  if (!value.is_number()) throw DataError(where, "expected a number or null, found " + dump_json(value));
  return value.get<double>();
}

StageCost read_cost(const Json& json, const std::string& where) {
  StageCost cost;
  take(json, "trainable_parameters", cost.trainable_parameters, where);
  take(json, "stored_parameters", cost.stored_parameters, where);
  take(json, "steps", cost.steps, where);
  take(json, "examples", cost.examples, where);
  take(json, "tokens", cost.tokens, where);
  take(json, "train_seconds", cost.train_seconds, where);
  take(json, "eval_seconds", cost.eval_seconds, where);
  take(json, "peak_memory_mb", cost.peak_memory_mb, where);
  return cost;
}

void read_stages(const Json& json, RunResult& result, const std::string& where) {
  for (const Json& entry : json_array(json, "stages", where)) {
    StageResult stage;
    stage.name = json_text(entry, "name", where + ": stages");
    for (const Json& task : json_array(entry, "tasks", where + ": stages"))
      if (task.is_number_integer()) stage.tasks.push_back(task.get<std::int64_t>());
    result.stages.push_back(std::move(stage));
  }
  const Json& costs = part(json, "costs");
  take(costs, "base_eval_seconds", result.base_eval_seconds, where + ": costs");
  const auto per_stage = costs.find("stages");
  const auto selector = json.find("selector_accuracy");
  for (std::size_t i = 0; i < result.stages.size(); ++i) {
    if (per_stage != costs.end() && per_stage->is_array() && i < per_stage->size() &&
        (*per_stage)[i].is_object())
      result.stages[i].cost = read_cost((*per_stage)[i], where + ": costs");
    if (selector != json.end() && selector->is_array() && i < selector->size())
      result.stages[i].selector_accuracy = optional_number((*selector)[i], where + ": selector_accuracy");
  }
}

void read_tables(const Json& json, RunResult& result, const std::string& where) {
  const auto tables = json.find("tables");
  if (tables == json.end() || !tables->is_array()) return;
  for (const Json& entry : *tables) {
    const std::string stage = json_text(entry, "stage", where + ": tables"),
                      name = json_text(entry, "name", where + ": tables");
    ResultTable table;
    take(entry, "rows", table.rows, where + ": tables");
    take(entry, "columns", table.columns, where + ": tables");
    take(entry, "values", table.values, where + ": tables");
    table.lines = entry.value("plot", "") == "lines";
    const bool whole = table.values.size() == table.rows.size() &&
                       std::all_of(table.values.begin(), table.values.end(),
                                   [&](const auto& row) { return row.size() == table.columns.size(); });
    if (!whole) throw DataError(where, "the table '" + name + "' is no full grid of its rows and columns");
    for (StageResult& known : result.stages)
      if (known.name == stage) known.tables[name] = table;
  }
}

void read_counts(const Json& json, RunResult& result, const std::string& where) {
  const auto counts = json.find("counts");
  if (counts == json.end() || !counts->is_array()) return;
  for (const Json& line : *counts) {
    if (!line.is_array()) throw DataError(where, "'counts' is not a matrix");
    auto& row = result.counts.emplace_back();
    for (const Json& cell : line) {
      if (cell.is_null())
        row.emplace_back();
      else
        row.emplace_back(CellCount{json_number(cell, "score", where + ": counts"),
                                   json_integer(cell, "examples", where + ": counts")});
    }
  }
}

void read_provenance(const Json& json, Provenance& p, const std::string& where) {
  take(json, "command", p.command, where);
  take(json, "config", p.config, where);
  take(json, "seeds", p.seeds, where);
  take(json, "build", p.build, where);
  take(json, "build_tag", p.build_tag, where);
  take(part(json, "plugin"), "file", p.plugin_file, where);
  take(part(json, "plugin"), "hash", p.plugin_hash, where);
  take(part(json, "model"), "folder", p.model, where);
  take(part(json, "model"), "hash", p.model_hash, where);
  take(json, "data", p.data, where);
  take(json, "device", p.device, where);
  take(json, "dtype", p.dtype, where);
  take(json, "threads", p.threads, where);
  if (json.contains("processes")) take(json, "processes", p.processes, where);
  const Json& hardware = part(json, "hardware");
  take(hardware, "cpu", p.hardware.cpu, where);
  take(hardware, "logical_cores", p.hardware.logical_cores, where);
  take(hardware, "usable_cores", p.hardware.usable_cores, where);
  take(hardware, "memory_gb", p.hardware.memory_gb, where);
  take(hardware, "system", p.hardware.system, where);
  take(json, "started", p.started, where);
  take(json, "finished", p.finished, where);
}

}  // namespace

std::vector<std::string> RunResult::task_names() const {
  std::vector<std::string> names;
  for (const TaskResult& task : tasks) names.push_back(task.name);
  return names;
}

std::vector<std::string> RunResult::stage_names() const {
  std::vector<std::string> names;
  for (const StageResult& stage : stages) names.push_back(stage.name);
  return names;
}

MetricInputs RunResult::inputs(const AccuracyMatrix& scores) const {
  MetricInputs inputs{scores, {}, {}, {}};
  for (const TaskResult& task : tasks) inputs.test_examples.push_back(task.test_examples);
  return inputs;
}

std::optional<double> RunResult::selector_accuracy() const {
  return stages.empty() ? std::nullopt : stages.back().selector_accuracy;
}

StageCost RunResult::total_cost() const {
  StageCost total;
  total.eval_seconds = base_eval_seconds;
  for (const StageResult& stage : stages) {
    total.trainable_parameters = std::max(total.trainable_parameters, stage.cost.trainable_parameters);
    total.stored_parameters = std::max(total.stored_parameters, stage.cost.stored_parameters);
    total.steps += stage.cost.steps;
    total.examples += stage.cost.examples;
    total.tokens += stage.cost.tokens;
    total.train_seconds += stage.cost.train_seconds;
    total.eval_seconds += stage.cost.eval_seconds;
    total.peak_memory_mb = std::max(total.peak_memory_mb, stage.cost.peak_memory_mb);
  }
  return total;
}

RunResult make_result(std::string suite, std::string strategy, std::uint64_t seed,
                      std::vector<TaskResult> tasks,
                      const std::vector<std::pair<std::string, std::vector<std::int64_t>>>& stages) {
  RunResult result;
  result.suite = std::move(suite);
  result.strategy = std::move(strategy);
  result.seed = seed;
  result.tasks = std::move(tasks);
  std::vector<std::int64_t> learned_at(result.tasks.size(), 0);
  for (const auto& [name, trained] : stages) {
    for (const std::int64_t task : trained) {
      std::int64_t& stage = learned_at.at(static_cast<std::size_t>(task));
      if (stage == 0) stage = static_cast<std::int64_t>(result.stages.size()) + 1;
    }
    result.stages.push_back({.name = name, .tasks = trained, .cost = {}, .selector_accuracy = {}});
  }
  const auto count = static_cast<std::int64_t>(result.stages.size());
  result.matrix = AccuracyMatrix(result.task_names(), count, std::move(learned_at));
  result.matrix_restricted = result.matrix_oracle = result.matrix_selector = result.matrix;
  result.counts.assign(result.stages.size() + 1, std::vector<std::optional<CellCount>>(result.tasks.size()));
  return result;
}

Json result_json(const RunResult& result) {
  Json json;
  json["schema"] = kSchema;
  json["mcit"] = MCIT_VERSION;
  json["suite"] = result.suite;
  json["strategy"] = result.strategy;
  json["seed"] = result.seed;
  json["complete"] = result.complete;
  json["tasks"] = tasks_json(result.tasks);
  json["stages"] = Json::array();
  for (const StageResult& stage : result.stages)
    json["stages"].push_back({{"name", stage.name}, {"tasks", stage.tasks}});
  json["matrix"] = matrix_to_json(result.matrix);
  json["matrix_restricted"] = matrix_to_json(result.matrix_restricted);
  json["counts"] = counts_json(result);
  json["metrics"] = metrics_json(result.inputs(result.matrix));
  json["metrics_restricted"] = metrics_json(result.inputs(result.matrix_restricted));
  json["selector_accuracy"] = selector_json(result);
  if (!is_empty(result.matrix_selector)) {
    json["matrix_selector"] = matrix_to_json(result.matrix_selector);
    json["matrix_oracle"] = matrix_to_json(result.matrix_oracle);
    json["metrics_oracle"] = metrics_json(result.inputs(result.matrix_oracle));
  }
  json["tables"] = tables_json(result);
  if (result.federated) json["federated"] = federated_to_json(*result.federated);
  json["costs"] = costs_json(result);
  if (result.forgetting)
    for (const auto& [key, matrix] : split_parts(*result.forgetting))
      json["forgetting_split"][key] = matrix_to_json(*matrix);
  json["provenance"] = provenance_json(result.provenance);
  return json;
}

void write_result(const std::filesystem::path& file, const RunResult& result) {
  write_json(file, result_json(result));
}

namespace {

/// Our result.json rather than another program's matrix.
bool is_result(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return true;
  const std::string text = read_file(path);
  if (!trimmed(text).starts_with('{')) return false;
  const Json json = parse_json(text, path.string());
  return json.contains("schema") && json.contains("strategy");
}

}  // namespace

MetricInputs read_metric_inputs(const std::filesystem::path& path, bool restricted) {
  const bool run = is_result(path);
  MetricInputs inputs;
  if (run) {
    const RunResult result = read_result(path);
    inputs = result.inputs(restricted ? result.matrix_restricted : result.matrix);
  } else {
    inputs.matrix = read_matrix(path);
  }
  if (restricted && (!run || is_empty(inputs.matrix)))
    throw DataError(path.string(), "holds no matrix of restricted answers",
                    "only runs whose tasks have answer sets do");
  return inputs;
}

RunResult read_result(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::path file =
      std::filesystem::is_directory(path, ignored) ? path / "result.json" : path;
  const std::string where = file.string();
  const Json json = read_json(file);
  if (json_integer(json, "schema", where) > kSchema)
    throw DataError(where, "is written in a newer schema than this mcit " MCIT_VERSION " knows",
                    "use a newer mcit");
  RunResult result;
  result.suite = json_text(json, "suite", where);
  result.strategy = json_text(json, "strategy", where);
  take(json, "seed", result.seed, where);
  take(json, "profile", result.profile, where);
  take(json, "complete", result.complete, where);
  for (const Json& task : json_array(json, "tasks", where)) {
    TaskResult read{json_text(task, "name", where + ": tasks"), 0, {}};
    take(task, "test_examples", read.test_examples, where + ": tasks");
    take(task, "scorer", read.scorer, where + ": tasks");
    if (task.contains("chance")) read.chance = optional_number(task["chance"], where + ": tasks");
    result.tasks.push_back(std::move(read));
  }
  read_stages(json, result, where);
  result.matrix = matrix_from_json(json, where);
  std::vector<std::int64_t> learned_at;
  for (std::int64_t j = 0; j < result.matrix.tasks(); ++j) learned_at.push_back(result.matrix.learned_at(j));
  for (const auto& [key, matrix] : {std::pair{"matrix_restricted", &result.matrix_restricted},
                                    {"matrix_oracle", &result.matrix_oracle},
                                    {"matrix_selector", &result.matrix_selector}}) {
    *matrix = AccuracyMatrix(result.task_names(), result.matrix.stages(), learned_at);
    if (json.contains(key))
      *matrix = matrix_of_run(json[key], result.task_names(), result.matrix.stages(), learned_at, where);
  }
  if (const Json& split = part(json, "forgetting_split"); !split.empty()) {
    result.forgetting.emplace();
    for (const auto& [key, matrix] : split_parts(*result.forgetting)) {
      *matrix = AccuracyMatrix(result.task_names(), result.matrix.stages(), learned_at);
      if (split.contains(key))
        *matrix = matrix_of_run(split[key], result.task_names(), result.matrix.stages(), learned_at, where);
    }
  }
  read_tables(json, result, where);
  if (json.contains("federated"))
    result.federated = federated_from_json(json["federated"], where + ": federated");
  read_counts(json, result, where);
  read_provenance(part(json, "provenance"), result.provenance, where + ": provenance");
  return result;
}

}  // namespace mcit
