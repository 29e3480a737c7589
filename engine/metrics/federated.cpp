#include "metrics/federated.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"
#include "metrics/metrics.hpp"

namespace mcit {
namespace {

Json reasons_json(const std::vector<RoundReason>& reasons) {
  Json out = Json::array();
  for (const RoundReason& entry : reasons)
    out.push_back({{"client", entry.client}, {"reason", entry.reason}});
  return out;
}

std::vector<RoundReason> reasons_from(const Json& json, const char* key, const std::string& where) {
  std::vector<RoundReason> out;
  for (const Json& entry : json_array(json, key, where))
    out.push_back(
        {json_text(entry, "client", where + ": " + key), json_text(entry, "reason", where + ": " + key)});
  return out;
}

std::vector<std::string> texts_from(const Json& json, const char* key, const std::string& where) {
  std::vector<std::string> out;
  for (const Json& entry : json_array(json, key, where)) {
    if (!entry.is_string()) throw DataError(where, std::string("'") + key + "' is no list of texts");
    out.push_back(entry.get<std::string>());
  }
  return out;
}

std::vector<std::int64_t> integers_from(const Json& list, const std::string& where) {
  std::vector<std::int64_t> out;
  if (!list.is_array()) throw DataError(where, "expected a list of integers");
  for (const Json& entry : list) {
    if (!entry.is_number_integer()) throw DataError(where, "expected a list of integers");
    out.push_back(entry.get<std::int64_t>());
  }
  return out;
}

std::uint64_t bytes_from(const Json& json, const char* key, const std::string& where) {
  const std::int64_t bytes = json_integer(json, key, where);
  if (bytes < 0) throw DataError(where, std::string("'") + key + "' is negative");
  return static_cast<std::uint64_t>(bytes);
}

Json used_json(const std::vector<RoundClient>& used) {
  Json out = Json::array();
  for (const RoundClient& c : used)
    out.push_back({{"client", c.client},
                   {"task", c.task},
                   {"examples", c.examples},
                   {"norm", c.norm},
                   {"clipped", c.clipped},
                   {"digest", c.digest},
                   {"statistics", c.statistics}});
  return out;
}

std::vector<RoundClient> used_from(const Json& json, const std::string& where) {
  std::vector<RoundClient> out;
  for (const Json& entry : json_array(json, "used", where)) {
    RoundClient c{json_text(entry, "client", where),
                  json_text(entry, "task", where),
                  json_integer(entry, "examples", where),
                  json_number(entry, "norm", where),
                  json_number(entry, "clipped", where),
                  json_text(entry, "digest", where),
                  {}};
    for (const auto& [name, value] : json_object(entry, "statistics", where).items()) {
      if (!value.is_number()) throw DataError(where, "the statistic '" + name + "' is no number");
      c.statistics[name] = value.get<double>();
    }
    out.push_back(std::move(c));
  }
  return out;
}

Json matrix_json(const AccuracyMatrix& matrix) {
  std::vector<std::int64_t> learned;
  for (std::int64_t j = 0; j < matrix.tasks(); ++j) learned.push_back(matrix.learned_at(j));
  return {{"tasks", matrix.names()}, {"learned_at", learned}, {"matrix", matrix_to_json(matrix)}};
}

AccuracyMatrix matrix_from(const Json& json, const std::string& where) {
  const Json& rows = json_array(json, "matrix", where);
  const std::vector<std::string> names = texts_from(json, "tasks", where);
  std::vector<std::int64_t> learned = integers_from(json_array(json, "learned_at", where), where);
  const auto stages = static_cast<std::int64_t>(rows.size()) - 1;
  if (learned.size() != names.size() || stages < 0)
    throw DataError(where, "'learned_at' does not fit the tasks, or there is no row");
  for (const std::int64_t stage : learned)
    if (stage < 0 || stage > stages) throw DataError(where, "'learned_at' names a stage that is not there");
  return matrix_of_run(rows, names, stages, std::move(learned), where);
}

std::optional<double> metric_of(std::string_view name, const AccuracyMatrix& matrix) {
  return compute_metric(name, MetricInputs{matrix, {}, {}, {}}).value;
}

/// @param higher_is_better which end is the worst client's
std::optional<Spread> spread(const FederatedResult& result, std::string_view metric, bool higher_is_better) {
  Spread out;
  std::vector<double> numbers;
  for (const ClientScores& client : result.clients) {
    const auto value = metric_of(metric, client.matrix);
    if (!value) continue;
    if (numbers.empty() || (higher_is_better ? *value < out.worst : *value > out.worst)) {
      out.worst = *value;
      out.worst_client = client.client;
    }
    numbers.push_back(*value);
    out.mean += *value;
  }
  if (numbers.empty()) return std::nullopt;
  out.clients = static_cast<std::int64_t>(numbers.size());
  out.mean /= static_cast<double>(numbers.size());
  for (const double x : numbers) out.deviation += (x - out.mean) * (x - out.mean);
  out.deviation = std::sqrt(out.deviation / static_cast<double>(numbers.size()));
  return out;
}

Json spread_json(const std::optional<Spread>& value) {
  if (!value) return nullptr;
  return {{"mean", value->mean},
          {"worst", value->worst},
          {"worst_client", value->worst_client},
          {"deviation", value->deviation},
          {"clients", value->clients}};
}

Json optional_json(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

Json metrics_json(const FederatedMetrics& m) {
  return {{"global_accuracy", optional_json(m.global_accuracy)},
          {"local_accuracy", spread_json(m.local_accuracy)},
          {"personalisation", optional_json(m.personalisation)},
          {"forgetting", spread_json(m.forgetting)},
          {"forward_transfer", spread_json(m.forward_transfer)},
          {"rounds", m.rounds},
          {"retried", m.retried},
          {"survived", m.survived},
          {"dropouts", m.dropouts},
          {"rejected", m.rejected},
          {"late", m.late},
          {"bytes_up", m.bytes_up},
          {"bytes_down", m.bytes_down}};
}

Json clients_json(const std::vector<ClientScores>& clients) {
  Json out = Json::array();
  for (const ClientScores& client : clients) {
    Json entry = {{"client", client.client}, {"train_examples", client.train_examples}};
    entry.update(matrix_json(client.matrix));
    entry["test_examples"] = client.test_examples;
    out.push_back(std::move(entry));
  }
  return out;
}

}  // namespace

Json round_to_json(const RoundRecord& r) {
  Json out = {{"round", r.round},
              {"attempts", r.attempts},
              {"sampled", r.sampled},
              {"used", used_json(r.used)},
              {"rejected", reasons_json(r.rejected)},
              {"missing", r.missing},
              {"late", reasons_json(r.late)},
              {"duplicate", r.duplicate},
              {"before", r.before},
              {"after", r.after},
              {"bytes_up", r.bytes_up},
              {"bytes_down", r.bytes_down},
              {"seconds", r.seconds}};
  if (r.redone) out["redone"] = *r.redone;
  if (!r.notes.empty()) out["notes"] = parse_json(r.notes, "notes");
  return out;
}

RoundRecord round_from_json(const Json& json, const std::string& where) {
  RoundRecord r;
  r.round = json_integer(json, "round", where);
  r.attempts = json_integer(json, "attempts", where);
  r.sampled = texts_from(json, "sampled", where);
  r.used = used_from(json, where + ": used");
  r.rejected = reasons_from(json, "rejected", where);
  r.missing = texts_from(json, "missing", where);
  r.late = reasons_from(json, "late", where);
  r.duplicate = texts_from(json, "duplicate", where);
  r.before = json_text(json, "before", where);
  r.after = json_text(json, "after", where);
  r.bytes_up = bytes_from(json, "bytes_up", where);
  r.bytes_down = bytes_from(json, "bytes_down", where);
  r.seconds = json_number(json, "seconds", where);
  if (const auto redone = json.find("redone"); redone != json.end() && redone->is_boolean())
    r.redone = redone->get<bool>();
  if (const auto notes = json.find("notes"); notes != json.end()) r.notes = dump_json(*notes);
  return r;
}

FederatedMetrics federated_metrics(const FederatedResult& result) {
  FederatedMetrics m;
  if (result.global.tasks() > 0) m.global_accuracy = metric_of("acc", result.global);
  m.local_accuracy = spread(result, "acc", true);
  if (m.local_accuracy && m.global_accuracy) m.personalisation = m.local_accuracy->mean - *m.global_accuracy;
  m.forgetting = spread(result, "forgetting_chaudhry", false);
  m.forward_transfer = spread(result, "fwt_zero", true);
  for (const RoundRecord& r : result.rounds) {
    if (r.round == 0 || r.after.empty()) continue;
    ++m.rounds;
    m.retried += r.attempts - 1;
    m.survived += r.missing.empty() ? 0 : 1;
    m.dropouts += static_cast<std::int64_t>(r.missing.size());
    m.rejected += static_cast<std::int64_t>(r.rejected.size());
    m.late += static_cast<std::int64_t>(r.late.size());
    m.bytes_up += static_cast<double>(r.bytes_up);
    m.bytes_down += static_cast<double>(r.bytes_down);
  }
  if (m.rounds > 0) {
    m.bytes_up /= static_cast<double>(m.rounds);
    m.bytes_down /= static_cast<double>(m.rounds);
  }
  return m;
}

std::optional<std::int64_t> rounds_to_reach(const std::vector<RoundScore>& curve, double percent) {
  for (const RoundScore& point : curve)
    if (point.percent >= percent) return point.round;
  return std::nullopt;
}

Json federated_to_json(const FederatedResult& result) {
  Json out = {{"rule", result.rule}, {"weighting", result.weighting}, {"partition", result.partition}};
  out["labels"] = result.labels;
  out["histogram"] = Json::object();
  for (const auto& [client, counts] : result.histogram) out["histogram"][client] = counts;
  out["global"] = result.global.tasks() > 0 ? matrix_json(result.global) : Json(nullptr);
  out["clients"] = clients_json(result.clients);
  out["rounds"] = Json::array();
  for (const RoundRecord& record : result.rounds) out["rounds"].push_back(round_to_json(record));
  out["curve"] = Json::array();
  for (const RoundScore& point : result.curve)
    out["curve"].push_back({{"round", point.round}, {"percent", point.percent}});
  out["metrics"] = metrics_json(federated_metrics(result));
  out["privacy"] = result.privacy.empty() ? Json(nullptr) : Json(result.privacy);
  return out;
}

FederatedResult federated_from_json(const Json& json, const std::string& where) {
  FederatedResult out;
  out.rule = json_text(json, "rule", where);
  out.weighting = json_text(json, "weighting", where);
  out.partition = json_text(json, "partition", where);
  out.labels = texts_from(json, "labels", where);
  for (const auto& [client, counts] : json_object(json, "histogram", where).items())
    out.histogram[client] = integers_from(counts, where + ": histogram");
  if (json.contains("global") && !json["global"].is_null())
    out.global = matrix_from(json["global"], where + ": global");
  for (const Json& entry : json_array(json, "clients", where)) {
    const std::string here = where + ": clients";
    out.clients.push_back({json_text(entry, "client", here), json_integer(entry, "train_examples", here),
                           matrix_from(entry, here),
                           integers_from(json_array(entry, "test_examples", here), here)});
  }
  for (const Json& entry : json_array(json, "rounds", where))
    out.rounds.push_back(round_from_json(entry, where + ": rounds"));
  for (const Json& entry : json_array(json, "curve", where))
    out.curve.push_back(
        {json_integer(entry, "round", where + ": curve"), json_number(entry, "percent", where + ": curve")});
  if (json.contains("privacy") && json["privacy"].is_string())
    out.privacy = json["privacy"].get<std::string>();
  return out;
}

}  // namespace mcit
