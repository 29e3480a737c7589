#include "metrics/published.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>

#include "core/config.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"
#include "metrics/matrix_io.hpp"
#include "metrics/metrics.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;
using Numbers = std::vector<std::optional<double>>;

constexpr double kLargest =
    1e6;  // percent, or parameters in millions: anything beyond is a slip of the keyboard

struct EvidenceInfo {
  Evidence evidence;
  std::string_view name, words;
};
constexpr std::array<EvidenceInfo, 4> kEvidence{{
    {Evidence::read, "read", "read in the project's own files"},
    {Evidence::quoted, "quoted", "read in another paper's or a reviewer's copy"},
    {Evidence::reported, "reported", "reported by a user"},
    {Evidence::unverified, "unverified", "not verified"},
}};

std::vector<std::string> names_of_evidence() {
  std::vector<std::string> names;
  for (const EvidenceInfo& info : kEvidence) names.emplace_back(info.name);
  return names;
}

Evidence evidence_of(const Config& config, std::string_view fallback) {
  const std::string name = config.choice("evidence", fallback, names_of_evidence());
  return std::find_if(kEvidence.begin(), kEvidence.end(), [&](const auto& info) { return info.name == name; })
      ->evidence;
}

std::string require_filled(const Config& config, std::string_view key) {
  const std::string text = config.require_text(key);
  if (trimmed(text).empty()) throw ConfigError(config.where(key), "must not be empty");
  return text;
}

std::string value_text(const Params::Value& value, const std::string& where) {
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  if (const auto* whole = std::get_if<std::int64_t>(&value)) return std::to_string(*whole);
  if (const auto* number = std::get_if<double>(&value)) return shortest(*number);
  throw ConfigError(where, "expected a text or a number");
}

/// The conditions in a table, on top of those that hold without it.
void read_conditions(const Config& config, Conditions& out, const std::set<std::string>& other_keys = {}) {
  std::vector<std::string> known;
  for (const ConditionInfo& info : condition_catalogue()) known.emplace_back(info.name);
  for (const auto& [key, value] : config.params()) {
    if (other_keys.contains(key)) continue;
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw ConfigError(config.where(key), "is no condition", suggestion(key, known));
    out[key] = value_text(value, config.where(key));
  }
}

double require_score(const Config& config, const std::string& key) {
  return config.number(key, 0.0, -kLargest, kLargest);  // which nan is not
}

/// A number in quotes, so that its last zeros are kept.
PrintedNumber read_printed(const Config& config, const std::string& key) {
  PrintedNumber out{config.require_text(key), 0.0};
  const char* end = out.text.data() + out.text.size();
  const auto [stop, error] = std::from_chars(out.text.data(), end, out.value);
  if (error != std::errc() || stop != end || !(std::abs(out.value) <= kLargest))
    throw ConfigError(config.where(key), "'" + out.text + "' is no number");
  return out;
}

std::map<std::string, double> read_metrics(const Config& config) {
  std::vector<std::string> known;
  for (const MetricInfo& info : metric_catalogue()) known.emplace_back(info.name);
  std::map<std::string, double> metrics;
  for (const std::string& key : config.keys()) {
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw ConfigError(
          config.where(key), "is no metric of mcit",
          suggestion(key, known) + "; a number whose definition is not known belongs under 'printed'");
    metrics[key] = require_score(config, key);
  }
  return metrics;
}

/// One number a task; nan is a score that was not printed.
Numbers read_scores_of(const Config& config, const std::string& key, std::size_t tasks) {
  const std::vector<double> given = config.numbers(key, {});
  if (given.empty()) return {};
  if (given.size() != tasks)
    throw ConfigError(config.where(key),
                      std::to_string(given.size()) + " numbers for " + std::to_string(tasks) + " tasks",
                      "nan stands for a score that is not printed");
  Numbers out;
  for (const double value : given) {
    if (std::isinf(value) || std::abs(value) > kLargest)
      throw ConfigError(config.where(key), shortest(value) + " is no score");
    out.push_back(std::isnan(value) ? std::nullopt : std::optional(value));
  }
  return out;
}

void read_row_matrix(const Config& config, const Published& published, PublishedRow& row) {
  const fs::path file = config.path("matrix", "");
  if (file.empty()) return;
  if (!row.finals.empty() || !row.learned.empty())
    throw ConfigError(config.where("matrix"), "finals and learned are in the matrix already");
  AccuracyMatrix matrix = read_matrix(file);
  if (matrix.tasks() != static_cast<std::int64_t>(published.tasks.size()) || matrix.stages() == 0)
    throw ConfigError(config.where("matrix"), file.string() + " is no matrix of these " +
                                                  std::to_string(published.tasks.size()) + " tasks");
  for (std::size_t j = 0; j < published.tasks.size(); ++j)
    if (published.task(matrix.names()[j]) != j)
      throw ConfigError(config.where("matrix"), "column " + std::to_string(j + 1) + " of " + file.string() +
                                                    " is '" + matrix.names()[j] + "', expected '" +
                                                    published.tasks[j].name + "'");
  row.learned = scores_when_learned(matrix);
  for (std::int64_t j = 0; j < matrix.tasks(); ++j) row.finals.push_back(matrix.at(matrix.stages(), j));
  row.matrix = std::move(matrix);
}

PublishedRow read_row(const Config& config, const Published& published, const PublishedTable& table,
                      int decimals) {
  constexpr int kMostDecimals = 6;
  PublishedRow row;
  row.method = require_filled(config, "method");
  row.strategy = config.text("strategy", "");
  row.bound = config.flag("bound", false);
  row.evidence = evidence_of(config, evidence_name(table.evidence));
  row.finals = read_scores_of(config, "finals", published.tasks.size());
  row.learned = read_scores_of(config, "learned", published.tasks.size());
  read_row_matrix(config, published, row);
  row.metrics = read_metrics(config.child("metrics"));
  const Config printed = config.child("printed");
  for (const std::string& key : printed.keys()) row.printed[key] = read_printed(printed, key);
  row.decimals = static_cast<int>(config.integer("decimals", decimals, 0, kMostDecimals));
  row.reason = config.text("reason", "");
  row.note = config.text("note", "");
  row.conditions = table.conditions;
  read_conditions(config.child("conditions"), row.conditions);
  if (row.finals.empty() && row.learned.empty() && row.metrics.empty() && row.printed.empty())
    throw ConfigError(config.where(), "'" + row.method + "' has no number",
                      "give finals, learned, matrix, metrics or printed");
  return row;
}

PublishedTable read_table(const Config& config, const Published& published) {
  PublishedTable table;
  table.name = require_filled(config, "name");
  table.title = require_filled(config, "title");
  table.source = require_filled(config, "source");
  config.require_text("evidence");  // nothing is believed by default
  table.evidence = evidence_of(config, "");
  table.note = config.text("note", "");
  read_conditions(config.child("conditions"), table.conditions);
  const int decimals = static_cast<int>(config.integer("decimals", 2, 0, 6));
  for (const Config& row : config.children("rows"))
    table.rows.push_back(read_row(row, published, table, decimals));
  if (table.rows.empty()) throw ConfigError(config.where(), "'" + table.name + "' has no rows");
  return table;
}

void read_tasks(const Config& config, Published& published) {
  std::set<std::string> seen;
  const auto take = [&seen](const Config& at, const std::string& name) {
    if (!seen.insert(plain_name(name)).second)
      throw ConfigError(at.where("name"), "'" + name + "' names two tasks");
  };
  for (const Config& task : config.children("tasks")) {
    PublishedTask out{require_filled(task, "name"), {}, task.texts("aliases", {})};
    out.title = task.text("title", out.name);
    std::set<std::string> own{plain_name(out.name), plain_name(out.title)};
    for (const std::string& alias : out.aliases) own.insert(plain_name(alias));
    for (const std::string& name : own) take(task, name);
    published.tasks.push_back(std::move(out));
  }
  if (published.tasks.empty())
    throw ConfigError(config.where("tasks"), "there is no task", "add [[tasks]] tables");
}

}  // namespace

std::string_view evidence_name(Evidence evidence) {
  return kEvidence.at(static_cast<std::size_t>(evidence)).name;
}

std::string_view evidence_words(Evidence evidence) {
  return kEvidence.at(static_cast<std::size_t>(evidence)).words;
}

const std::vector<ConditionInfo>& condition_catalogue() {
  static const std::vector<ConditionInfo> all = {
      {"backbone", "backbone"},   {"base_weights", "base weights"},
      {"projector", "projector"}, {"rank", "rank"},
      {"alpha", "alpha"},         {"epochs", "epochs"},
      {"batch", "batch"},         {"learning_rate", "rate"},
      {"replay", "replay"},       {"prompts", "prompt set"},
      {"scorer", "scorer"},       {"seeds", "seeds"},
      {"clients", "clients"},
  };
  return all;
}

std::string plain_name(std::string_view name) {
  std::string out = lowered(name);
  std::erase_if(out, [](char c) { return c == '-' || c == '_' || c == '.' || c == ' '; });
  return out;
}

std::optional<std::size_t> Published::task(std::string_view wanted) const {
  const std::string plain = plain_name(wanted);
  for (std::size_t j = 0; j < tasks.size(); ++j) {
    const PublishedTask& known = tasks[j];
    const bool alias = std::any_of(known.aliases.begin(), known.aliases.end(),
                                   [&plain](const std::string& other) { return plain_name(other) == plain; });
    if (alias || plain_name(known.name) == plain || plain_name(known.title) == plain) return j;
  }
  return {};
}

const PublishedSuite* Published::suite(std::string_view wanted) const {
  for (const PublishedSuite& known : suites)
    if (plain_name(known.name) == plain_name(wanted)) return &known;
  return nullptr;
}

Published read_published(const fs::path& file) {
  const Config config = Config::read(file);
  Published out;
  out.name = file.stem().string();
  out.title = require_filled(config, "title");
  out.notes = config.texts("notes", {});
  for (const Config& suite : config.children("suites")) {
    out.suites.push_back({require_filled(suite, "name"), {}});
    read_conditions(suite, out.suites.back().conditions, {"name"});
  }
  read_tasks(config, out);
  const Config backbones = config.child("backbones");
  for (const std::string& key : backbones.keys()) out.aliases[key] = backbones.texts(key, {});
  std::set<std::string> seen;
  for (const Config& table : config.children("tables")) {
    out.tables.push_back(read_table(table, out));
    if (!seen.insert(out.tables.back().name).second)
      throw ConfigError(table.where("name"), "'" + out.tables.back().name + "' names two tables");
  }
  if (out.tables.empty()) throw ConfigError(config.where("tables"), "there is no table", "add [[tables]]");
  config.finish();
  return out;
}

std::vector<std::string> list_published(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored))
    if (entry.path().extension() == ".toml") names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

Published find_published(const std::string& name, const fs::path& folder) {
  const std::vector<std::string> known = list_published(folder);
  for (const std::string& file : known)
    if (plain_name(file) == plain_name(name)) return read_published(folder / (file + ".toml"));
  for (const std::string& file : known) {
    Published published = read_published(folder / (file + ".toml"));
    if (published.suite(name) != nullptr) return published;
  }
  if (known.empty())
    throw ConfigError("published", folder.string() + " holds no published tables",
                      "the installation is incomplete; MCIT_SHARE overrules where it is looked for");
  throw ConfigError("published", "there are no published tables for '" + name + "'",
                    "there are: " + joined(known, ", "));
}

}  // namespace mcit
