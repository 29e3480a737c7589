#include "split/record.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit::split {
namespace {

constexpr const char* kSchema = "mcit.split-record.1";

std::uint64_t count_of(const Json& json, const char* key, const std::string& where) {
  const std::int64_t value = json_integer(json, key, where);
  if (value < 0) throw DataError(where + ": " + key, "is negative");
  return static_cast<std::uint64_t>(value);
}

Json client_json(const ClientRecord& c) {
  Json scores = Json::object();
  for (const auto& [task, score] : c.scores)
    scores[task] = {{"correct", score.correct}, {"rows", score.rows}};
  return {{"train_rows", c.train_rows},
          {"test_rows", c.test_rows},
          {"examples", c.examples},
          {"flops", c.flops},
          {"cpu_seconds", c.cpu_seconds},
          {"bytes_up", c.bytes_up},
          {"bytes_down", c.bytes_down},
          {"eval_bytes_up", c.eval_bytes_up},
          {"eval_bytes_down", c.eval_bytes_down},
          {"parameter_bytes", c.parameter_bytes},
          {"missed", c.missed},
          {"accuracy", c.accuracy()},
          {"scores", scores}};
}

ClientRecord client_from(const Json& json, const std::string& where) {
  ClientRecord c;
  c.train_rows = json_integer(json, "train_rows", where);
  c.test_rows = json_integer(json, "test_rows", where);
  c.examples = json_integer(json, "examples", where);
  c.flops = json_number(json, "flops", where);
  c.cpu_seconds = json_number(json, "cpu_seconds", where);
  c.bytes_up = count_of(json, "bytes_up", where);
  c.bytes_down = count_of(json, "bytes_down", where);
  c.eval_bytes_up = count_of(json, "eval_bytes_up", where);
  c.eval_bytes_down = count_of(json, "eval_bytes_down", where);
  c.parameter_bytes = json_integer(json, "parameter_bytes", where);
  c.missed = json_integer(json, "missed", where);
  for (const auto& [task, score] : json_object(json, "scores", where).items())
    c.scores[task] = {json_integer(score, "correct", where), json_integer(score, "rows", where)};
  return c;
}

struct Sums {
  double examples = 0.0, flops = 0.0, cpu = 0.0, up = 0.0, down = 0.0, held = 0.0, correct = 0.0, tests = 0.0;
};

Sums sums_of(const Record& record) {
  Sums out;
  for (const auto& [id, c] : record.clients) {
    out.examples += static_cast<double>(c.examples);
    out.flops += c.flops;
    out.cpu += c.cpu_seconds;
    out.up += static_cast<double>(c.bytes_up);
    out.down += static_cast<double>(c.bytes_down);
    out.held = std::max(out.held, static_cast<double>(c.parameter_bytes));
    for (const auto& [task, score] : c.scores) {
      out.correct += static_cast<double>(score.correct);
      out.tests += static_cast<double>(score.rows);
    }
  }
  return out;
}

/// "12.3", "412", "0.04"
std::string figures(double value) {
  return fixed(value, value >= 100.0 ? 0 : value >= 10.0 ? 1 : value >= 1.0 ? 2 : 3);
}

std::string padded(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

}  // namespace

double ClientRecord::accuracy() const {
  std::int64_t correct = 0, rows = 0;
  for (const auto& [task, score] : scores) {
    correct += score.correct;
    rows += score.rows;
  }
  return rows == 0 ? 0.0 : 100.0 * static_cast<double>(correct) / static_cast<double>(rows);
}

Json to_json(const Record& record) {
  Json clients = Json::object();
  for (const auto& [id, client] : record.clients) clients[id] = client_json(client);
  return {{"schema", kSchema},
          {"method", record.method},
          {"fusion", record.fusion},
          {"modalities", record.modalities},
          {"train_heads", record.train_heads},
          {"train_blocks", record.train_blocks},
          {"steps", record.steps},
          {"complete", record.complete},
          {"server_flops", record.server_flops},
          {"server_cpu_seconds", record.server_cpu_seconds},
          {"clients", clients}};
}

Record record_from_json(const Json& json, const std::string& where) {
  if (json_text(json, "schema", where) != kSchema)
    throw DataError(where, "is no record of split learning", std::string("its schema is not ") + kSchema);
  Record out;
  out.method = json_text(json, "method", where);
  out.fusion = json_text(json, "fusion", where);
  for (const Json& name : json_array(json, "modalities", where))
    out.modalities.push_back(name.get<std::string>());
  out.train_heads = json.value("train_heads", false);
  out.train_blocks = json_integer(json, "train_blocks", where);
  out.steps = json_integer(json, "steps", where);
  out.complete = json.value("complete", false);
  out.server_flops = json_number(json, "server_flops", where);
  out.server_cpu_seconds = json_number(json, "server_cpu_seconds", where);
  for (const auto& [id, client] : json_object(json, "clients", where).items())
    out.clients[id] = client_from(client, where + ": " + id);
  return out;
}

Record read_record(const std::filesystem::path& path) {
  const std::filesystem::path file = std::filesystem::is_directory(path) ? path / "split.json" : path;
  return record_from_json(read_json(file), file.string());
}

std::string table_text(const Record& record) {
  constexpr std::size_t kWidth = 11;
  std::size_t first = 6;
  for (const auto& [id, c] : record.clients) first = std::max(first, id.size());
  std::string out = "client" + std::string(first - 6, ' ');
  for (const char* title : {"rows", "GFLOP", "CPU s", "MB up", "MB down", "MB held", "missed", "accuracy"})
    out += padded(title, kWidth);
  out += "\n";
  for (const auto& [id, c] : record.clients) {
    out += id + std::string(first - id.size(), ' ');
    for (const std::string& cell :
         {std::to_string(c.examples), figures(c.flops / 1e9), figures(c.cpu_seconds),
          figures(static_cast<double>(c.bytes_up) / 1e6), figures(static_cast<double>(c.bytes_down) / 1e6),
          figures(static_cast<double>(c.parameter_bytes) / 1e6), std::to_string(c.missed),
          fixed(c.accuracy(), 2)})
      out += padded(cell, kWidth);
    out += "\n";
  }
  return out;
}

std::string comparison_text(const Record& record, const Record& other) {
  const Sums mine = sums_of(record), theirs = sums_of(other);
  if (mine.examples == 0.0 || theirs.examples == 0.0)
    return "nothing to compare: one of the runs trained nothing\n";
  const auto times = [](double less, double more) {
    return less > 0.0 ? figures(more / less) + "x" : std::string("-");
  };
  const auto percent = [](const Sums& s) {
    return s.tests > 0.0 ? fixed(100.0 * s.correct / s.tests, 2) : "-";
  };
  return other.method + " over " + record.method + ", clients: compute for a row " +
         times(mine.flops / mine.examples, theirs.flops / theirs.examples) + " FLOPs, " +
         times(mine.cpu / mine.examples, theirs.cpu / theirs.examples) + " CPU seconds; bytes up " +
         times(mine.up / mine.examples, theirs.up / theirs.examples) + ", down " +
         times(mine.down / mine.examples, theirs.down / theirs.examples) + "; parameters held " +
         times(mine.held, theirs.held) + "\naccuracy: " + record.method + " " + percent(mine) + ", " +
         other.method + " " + percent(theirs) + "\n";
}

}  // namespace mcit::split
