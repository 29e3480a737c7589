// A whole run on the suite smoke: what it leaves, that the same run leaves the same, and that all readers
// agree on it.

#include <cmath>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

constexpr int kSteps = 4;
const std::vector<std::string> kTaskNames = {"vqa", "geo", "count"};

Arguments smoke(const std::string& strategy, const fs::path& out, int seed = 1) {
  return {
      "run",      "--suite",    "smoke", "--strategy",    strategy, "--seed",         std::to_string(seed),
      "--out",    out.string(), "--set", "train.steps=4", "--set",  "train.batch=16", "--set",
      "threads=1"};
}

/// One workplace and a first run in it, made with cold caches.
class Runs : public Workplace {
 public:
  Runs() {
    first_ = mcit(smoke("sequential", first()));
    succeeded(first_);
  }
  fs::path first() const { return *this / "first"; }
  const Ended& ended() const { return first_; }

 private:
  Ended first_;
};

const Runs& runs() {
  static const Runs one;
  return one;
}

/// Lines of a CSV as columns by the name in its first line.
std::vector<std::map<std::string, std::string>> csv_of(const std::string& text) {
  const auto cells = [](const std::string& line) {
    std::vector<std::string> out;
    std::istringstream in(line);
    for (std::string cell; std::getline(in, cell, ',');) out.push_back(cell);
    return out;
  };
  const std::vector<std::string> lines = lines_of(text);
  REQUIRE_FALSE(lines.empty());
  const std::vector<std::string> header = cells(lines.front());
  std::vector<std::map<std::string, std::string>> rows;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    std::vector<std::string> row = cells(lines[i]);
    row.resize(header.size());
    rows.emplace_back();
    for (std::size_t k = 0; k < header.size(); ++k) rows.back()[header[k]] = row[k];
  }
  return rows;
}

std::string two_digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", value);
  return text;
}

/// Everything of result.json but times, dates and memory.
Json lasting(Json result) {
  const auto forget = [](Json& cost) {
    for (const char* key :
         {"train_seconds", "eval_seconds", "examples_per_second", "tokens_per_second", "peak_memory_mb"}) {
      REQUIRE(cost.contains(key));
      cost.erase(key);
    }
  };
  for (Json& stage : result["costs"]["stages"]) forget(stage);
  forget(result["costs"]["total"]);
  result["costs"].erase("base_eval_seconds");
  for (const char* key : {"started", "finished", "command"}) result["provenance"].erase(key);
  return result;
}

}  // namespace

TEST_CASE("A run leaves every file that the guide names, and no other") {
  CHECK(names_in(runs().first()) == std::vector<std::string>{".mcit-run", "config.toml",
                                                             "events.out.tfevents.mcit", "log.txt",
                                                             "matrix.csv", "matrix.svg", "metrics.jsonl",
                                                             "predictions", "result.json", "snapshots"});
  std::vector<std::string> cells;
  for (const std::string row : {"00", "01", "02", "03"})
    for (const std::string& task : kTaskNames) cells.push_back(row + "_" + task + ".jsonl");
  std::sort(cells.begin(), cells.end());
  CHECK(names_in(runs().first() / "predictions") == cells);
  CHECK(snapshots_of(runs().first()).size() == 2);
  CHECK(slurp(runs().first() / "matrix.svg").starts_with("<svg"));
  CHECK(slurp(runs().first() / "log.txt").find("strategy 'sequential'") != std::string::npos);
  const std::string config = slurp(runs().first() / "config.toml");
  for (const char* setting :
       {"suite = \"smoke\"", "steps = 4", "batch = 16", "snapshot_every = 100", "rank = 16"})
    CHECK(config.find(setting) != std::string::npos);
}

TEST_CASE("result.json has the keys, types and shapes of its reference") {
  const Json result = result_of(runs().first());
  std::vector<std::string> keys;
  for (const auto& [key, value] : result.items()) keys.push_back(key);
  CHECK(keys == std::vector<std::string>{"schema", "mcit", "suite", "strategy", "seed", "complete", "tasks",
                                         "stages", "matrix", "matrix_restricted", "counts", "metrics",
                                         "metrics_restricted", "selector_accuracy", "tables", "costs",
                                         "forgetting_split", "provenance"});
  CHECK(result["schema"] == 1);
  CHECK(result["mcit"].is_string());
  CHECK(result["suite"] == "smoke");
  CHECK(result["strategy"] == "sequential");
  CHECK(result["seed"] == 1);
  CHECK(result["complete"] == true);
  CHECK(result["selector_accuracy"].is_null());
  REQUIRE(result["tasks"].size() == 3);
  REQUIRE(result["stages"].size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(result["tasks"][i]["name"] == kTaskNames[i]);
    CHECK(result["tasks"][i]["test_examples"] == 48);
    CHECK(result["tasks"][i]["chance"].is_number());
    CHECK(result["stages"][i] == Json{{"name", kTaskNames[i]}, {"tasks", Json::array({i})}});
  }
  for (const char* table : {"matrix", "matrix_restricted", "counts"}) {
    REQUIRE(result[table].size() == 4);
    for (const Json& row : result[table]) CHECK(row.size() == 3);
  }
  for (std::size_t i = 0; i < 4; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      const Json& count = result["counts"][i][j];
      CHECK(count["examples"] == 48);
      const double percent = result["matrix"][i][j];
      CHECK(std::abs(percent - 100.0 * count["score"].get<double>() / 48.0) < 1e-9);
      CHECK(result["matrix_restricted"][i][j].is_number());
    }
  for (const char* table : {"metrics", "metrics_restricted"}) {
    CHECK(result[table].size() == 23);
    CHECK(result[table]["acc"].is_number());
    CHECK(result[table]["fwt_plasticity"].is_null());
  }
  REQUIRE(result["costs"]["stages"].size() == 3);
  CHECK(result["costs"]["base_eval_seconds"].is_number());
  Json costs = result["costs"]["stages"];
  for (const Json& stage : costs) {
    CHECK(stage["steps"] == kSteps);
    CHECK(stage["examples"] == kSteps * 16);
    for (const char* key : {"trainable_parameters", "stored_parameters", "tokens"})
      CHECK(stage[key].get<std::int64_t>() > 0);
    for (const char* key :
         {"train_seconds", "eval_seconds", "examples_per_second", "tokens_per_second", "peak_memory_mb"})
      CHECK(stage[key].get<double>() > 0.0);
  }
  CHECK(result["costs"]["total"]["steps"] == 3 * kSteps);
  const Json& provenance = result["provenance"];
  for (const char* key :
       {"command", "config", "build", "build_tag", "device", "dtype", "started", "finished"})
    CHECK(provenance[key].is_string());
  CHECK(provenance["config"] == slurp(runs().first() / "config.toml"));
  CHECK(provenance["command"].get<std::string>().find("run --suite smoke --strategy sequential") !=
        std::string::npos);
  CHECK(provenance["seeds"]["run"] == "1");
  CHECK(provenance["plugin"]["file"] == "sequential.so");
  CHECK(provenance["plugin"]["hash"].get<std::string>().size() == 32);
  CHECK(provenance["model"]["folder"] == "mini");
  CHECK(provenance["model"]["hash"].get<std::string>().size() == 32);
  CHECK(provenance["data"].size() == 7);  // two files a task, and the probe
  CHECK(provenance["threads"] == 1);
  for (const char* key : {"cpu", "logical_cores", "usable_cores", "memory_gb", "system"})
    CHECK(provenance["hardware"].contains(key));
}

TEST_CASE("A strategy that selects: its choice, what an oracle's would give, its tables and their plots") {
  const Workplace work;
  const fs::path run = work / "run";
  succeeded(
      runs().mcit(small_run(work, "branch_lora", run) + Arguments{"--set", "strategy.probe_examples=8"}));
  const Json result = result_of(run);
  REQUIRE(result["selector_accuracy"].size() == 3);
  for (std::size_t i = 1; i < 4; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      const Json &chosen = result["matrix_selector"][i][j], &oracle = result["matrix_oracle"][i][j];
      CHECK(chosen.is_null() == (j >= i));  // tasks not yet trained have nothing of their own to select
      CHECK(oracle.is_null() == (j >= i));
    }
  CHECK(result["matrix_oracle"][0][0].is_null());
  CHECK(result["metrics_oracle"]["acc"].is_number());
  double rows = 0.0, right = 0.0, oracle = 0.0;
  for (const std::string& line : lines_of(slurp(run / "predictions" / "03_vqa.jsonl"))) {
    const Json row = Json::parse(line);
    rows += 1.0;
    right += row["selected_task"] == 0 ? 1.0 : 0.0;
    CHECK(row.contains("oracle_score") == (row["selected_task"] != 0));
    oracle += row.value("oracle_score", row["score"].get<double>());
  }
  CHECK(std::abs(result["matrix_selector"][3][0].get<double>() - 100.0 * right / rows) < 1e-9);
  CHECK(std::abs(result["matrix_oracle"][3][0].get<double>() - 100.0 * oracle / rows) < 1e-9);
  REQUIRE(result["tables"].size() == 3);
  for (const Json& table : result["tables"]) {
    CHECK(table["name"] == "branches");
    CHECK(table["values"].size() == table["rows"].size());
    for (const Json& row : table["values"]) CHECK(row.size() == table["columns"].size());
  }
  for (const char* name : {"01_branches.svg", "02_branches.svg", "03_branches.svg"})
    CHECK(slurp(run / "plots" / name).starts_with("<svg"));
}

TEST_CASE("Matrix, predictions and metrics.jsonl tell the same story as result.json") {
  const Json result = result_of(runs().first());
  const auto rows = csv_of(slurp(runs().first() / "matrix.csv"));
  REQUIRE(rows.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(rows[i].at("stage") == std::to_string(i) + ":" + (i == 0 ? "base" : kTaskNames[i - 1]));
    for (std::size_t j = 0; j < 3; ++j) {
      CHECK(std::stod(rows[i].at(kTaskNames[j])) == result["matrix"][i][j].get<double>());
      double score = 0.0, restricted = 0.0;
      const fs::path cell =
          runs().first() / "predictions" / ("0" + std::to_string(i) + "_" + kTaskNames[j] + ".jsonl");
      const std::vector<std::string> lines = lines_of(slurp(cell));
      REQUIRE(lines.size() == 48);
      for (const std::string& line : lines) {
        const Json row = Json::parse(line);
        for (const char* key : {"question_id", "prompt", "text", "gold", "restricted_text"})
          CHECK(row.at(key).is_string());
        CHECK(row.at("well_formed").is_boolean());
        CHECK_FALSE(row.contains("selected_task"));
        score += row.at("score").get<double>();
        restricted += row.at("restricted_score").get<double>();
      }
      CHECK(score == result["counts"][i][j]["score"].get<double>());
      CHECK(std::abs(100.0 * restricted / 48.0 - result["matrix_restricted"][i][j].get<double>()) < 1e-9);
    }
  }
  const std::vector<Json> steps = steps_of(runs().first());
  REQUIRE(steps.size() == 3 * kSteps);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    CHECK(steps[i].at("stage") == i / kSteps + 1);
    CHECK(steps[i].at("task") == kTaskNames[i / kSteps]);
    CHECK(steps[i].at("step") == i % kSteps + 1);
    CHECK(steps[i].at("examples") == 16);
    for (const char* key : {"loss", "gradient_norm", "tokens", "seconds"})
      CHECK(steps[i].at(key).get<double>() > 0.0);
    CHECK(steps[i].at("rate").is_number());
  }
}

TEST_CASE("The same run gives the same bytes, whatever the caches hold; another seed does not") {
  const auto expected = numbers_of(runs().first());
  succeeded(runs().mcit(smoke("sequential", runs() / "warm")));
  same_numbers(expected, runs() / "warm");
  succeeded(
      runs().mcit(smoke("sequential", runs() / "no cells") + Arguments{"--set", "eval.cell_cache=false"}));
  same_numbers(expected, runs() / "no cells");
  {
    const Workplace cold;
    succeeded(cold.mcit(smoke("sequential", cold / "run")));
    same_numbers(expected, cold / "run");
  }
  succeeded(runs().mcit(smoke("sequential", runs() / "other", 2)));
  const std::vector<Json> first = steps_of(runs().first()), other = steps_of(runs() / "other");
  REQUIRE(first.size() == other.size());
  for (std::size_t i = 0; i < first.size(); ++i) CHECK(first[i].at("loss") != other[i].at("loss"));
}

TEST_CASE("Replacing a run by the same one changes times and dates only") {
  const Json before = lasting(result_of(runs().first()));
  succeeded(runs().mcit(smoke("sequential", runs().first()) + Arguments{"--overwrite"}));
  CHECK(lasting(result_of(runs().first())).dump(1) == before.dump(1));
  failed(runs().mcit(smoke("sequential", runs().first())),
         {runs().first().string(), "--resume", "--overwrite"});
}

TEST_CASE("A loss that is not finite ends the run with its batch kept, and the run can be replaced") {
  const fs::path run = runs() / "wild";
  failed(runs().mcit(smoke("sequential", run) + Arguments{"--set", "train.lr=1e30"}),
         {"task 1 'vqa'", "step ", "not finite"});
  const Json kept = Json::parse(slurp(run / "nonfinite_batch.json"));
  CHECK(kept.at("stage") == 1);
  REQUIRE(kept.at("rows").size() == 16);
  CHECK(fs::exists(kept.at("rows")[0].at("image").get<std::string>()));
  CHECK(result_of(run).at("complete") == false);
  succeeded(runs().mcit(smoke("sequential", run) + Arguments{"--overwrite"}));
  CHECK_FALSE(fs::exists(run / "nonfinite_batch.json"));
  same_numbers(numbers_of(runs().first()), run);
}

TEST_CASE("mcit metrics gives the numbers of result.json, from the folder and from matrix.csv") {
  const Json result = result_of(runs().first());
  const Ended ended = runs().mcit({"metrics", runs().first().string(), "--json"});
  succeeded(ended);
  CHECK(Json::parse(ended.out).dump(1) == result["metrics"].dump(1));
  const Ended restricted = runs().mcit({"metrics", runs().first().string(), "--json", "--restricted"});
  succeeded(restricted);
  CHECK(Json::parse(restricted.out).dump(1) == result["metrics_restricted"].dump(1));
  const Ended csv = runs().mcit({"metrics", (runs().first() / "matrix.csv").string(), "--json"});
  succeeded(csv);
  const Json from_csv = Json::parse(csv.out);
  for (const char* name :
       {"acc", "maa", "mft", "bwt_T", "bwt_T-1", "forgetting_chaudhry", "fwt_zero", "zero_shot"})
    CHECK(from_csv.at(name) == result["metrics"].at(name));
}

TEST_CASE("mcit compare agrees with result.json in every form") {
  const fs::path first = runs().first(), other = runs() / "replay";
  succeeded(runs().mcit(smoke("replay", other)));
  const std::map<std::string, Json> results = {{"sequential", result_of(first)},
                                               {"replay", result_of(other)}};
  const std::vector<std::string> names = {"acc",     "maa", "mft", "bwt_T", "bwt_T-1", "forgetting_chaudhry",
                                          "fwt_zero"};
  const auto value_of = [&](const std::string& strategy, const std::string& column) {
    if (!column.starts_with("final:")) return results.at(strategy).at("metrics").at(column).get<double>();
    const auto task = std::find(kTaskNames.begin(), kTaskNames.end(), column.substr(6)) - kTaskNames.begin();
    return results.at(strategy).at("matrix").at(3).at(static_cast<std::size_t>(task)).get<double>();
  };
  std::vector<std::string> columns = names;
  for (const std::string& task : kTaskNames) columns.push_back("final:" + task);

  const Ended ended =
      runs().mcit({"compare", first.string(), other.string(), "--markdown", (runs() / "c.md").string(),
                   "--csv", (runs() / "c.csv").string(), "--json", (runs() / "c.json").string()});
  succeeded(ended);
  const Json json = Json::parse(slurp(runs() / "c.json")).at("comparisons");
  REQUIRE(json.size() == 1);
  REQUIRE(json[0].at("groups").size() == 2);
  const auto csv = csv_of(slurp(runs() / "c.csv"));
  for (const Json& group : json[0].at("groups")) {
    const std::string strategy = group.at("strategy");
    INFO(strategy);
    for (const std::string& column : columns) {
      INFO(column);
      const Json& cell = group.at("values").at(column);
      CHECK(cell.at("mean").get<double>() == value_of(strategy, column));
      CHECK(cell.at("runs") == 1);
      int found = 0;
      for (const auto& row : csv)
        if (row.at("strategy") == strategy && row.at("column") == column) {
          CHECK(std::stod(row.at("mean")) == value_of(strategy, column));
          ++found;
        }
      CHECK(found == 1);
    }
  }
  // In tables a line of the strategy holds these numbers in this order.
  for (const std::string& table : {ended.out, slurp(runs() / "c.md")})
    for (const auto& [strategy, result] : results) {
      std::string text;
      for (const std::string& line : lines_of(table))
        if (text.empty() && line.find(strategy) < 4) text = line;
      INFO(strategy << " in\n" << table);
      std::size_t at = 0;
      for (const std::string column : {"final:vqa", "final:geo", "final:count", "acc", "maa", "mft"}) {
        at = text.find(two_digits(value_of(strategy, column)), at);
        CHECK(at != std::string::npos);
      }
    }
}

TEST_CASE("A closed task takes the answers of its records") {
  const auto predictions = [](const std::string& answers) {
    const fs::path folder = runs() / (answers == "closed = true" ? "closed" : "listed");
    write(folder.string() + ".toml",
          "[mini]\ntrain = 32\ntest = 12\n[[tasks]]\nname = \"geo\"\ntrain = \"geo/train.json\"\ntest = "
          "\"geo/test.json\"\n" +
              answers + "\n");
    succeeded(runs().mcit({"run", "--suite", folder.string() + ".toml", "--strategy", "zero_shot", "--out",
                           folder.string(), "--set", "threads=1"}));
    return slurp(folder / "predictions/00_geo.jsonl");
  };
  const std::string closed = predictions("closed = true");
  CHECK(closed.find("restricted_text") != std::string::npos);
  CHECK(closed == predictions("answers = [\"africa\", \"america\", \"asia\", \"europe\"]"));
}

TEST_CASE("Two seeds of one strategy are one row, mean and deviation") {
  succeeded(runs().mcit(smoke("sequential", runs() / "seed 2", 2)));
  const Ended ended =
      runs().mcit({"compare", runs().first().string(), (runs() / "seed 2").string(), "--json", "-"});
  succeeded(ended);
  const Json groups = Json::parse(ended.out).at("comparisons").at(0).at("groups");
  REQUIRE(groups.size() == 1);
  CHECK(groups[0].at("seeds") == Json::array({1, 2}));
  const Json acc = groups[0].at("values").at("acc");
  const double a = result_of(runs().first()).at("metrics").at("acc"),
               b = result_of(runs() / "seed 2").at("metrics").at("acc");
  CHECK(std::abs(acc.at("mean").get<double>() - (a + b) / 2) < 1e-9);
  CHECK(std::abs(acc.at("std").get<double>() - std::abs(a - b) / std::sqrt(2.0)) < 1e-9);
  CHECK(acc.at("runs") == 2);
}

TEST_CASE("A run's LoRA is exported, and merges into the base of another run") {
  Workplace work;
  succeeded(work.mcit(small_run(work, "sequential", work / "run", 4)));
  succeeded(work.mcit({"export", (work / "run").string(), "--out", (work / "adapter").string()}));
  const Json config = Json::parse(slurp(work / "adapter" / "adapter_config.json"));
  CHECK(config.at("peft_type") == "LORA");
  CHECK(config.at("r") == 16);
  CHECK(config.at("modules_to_save").size() == 2);
  // Merged, the answers of the untrained model are those that the run ended with, up to rounding.
  succeeded(work.mcit(small_run(work, "zero_shot", work / "merged") +
                      Arguments{"--set", "adapter=" + (work / "adapter").string()}));
  const Json expected = result_of(work / "run").at("matrix").back(),
             found = result_of(work / "merged").at("matrix").front();
  const Json base = result_of(work / "run").at("matrix").front();
  for (std::size_t j = 0; j < expected.size(); ++j)
    CHECK(std::abs(expected[j].get<double>() - found[j].get<double>()) <= 100.0 / 12 + 1e-9);
  CHECK(found != base);
  CHECK(result_of(work / "merged").at("provenance").at("model").at("hash") !=
        result_of(work / "run").at("provenance").at("model").at("hash"));

  const auto refused = [&](const Arguments& arguments, const std::string& says) {
    const Ended ended = work.mcit(arguments);
    CHECK(ended.code == 2);
    INFO(ended.err);
    CHECK(ended.err.find(says) != std::string::npos);
  };
  refused({"export", (work / "run").string(), "--out", (work / "adapter").string()}, "is already there");
  refused({"export", (work / "merged").string(), "--out", (work / "none").string()}, "there is no LoRA");
  succeeded(work.mcit(small_run(work, "moe_lora", work / "mixture", 1) + Arguments{"--stop-after", "1"}));
  refused({"export", (work / "mixture").string(), "--out", (work / "none").string()}, "is no LoRA");
  CHECK_FALSE(fs::exists(work / "none"));
}

}  // namespace mcit::test
