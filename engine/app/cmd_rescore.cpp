#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "core/console.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/text.hpp"
#include "metrics/metrics.hpp"
#include "report/table.hpp"
#include "score/rescore.hpp"

namespace mcit {
namespace {

struct Options {
  std::vector<std::string> runs;
  std::string profile = "strict";
  std::vector<std::string> scorers;
};

std::string number(const std::optional<double>& value) { return value ? fixed(*value, 2) : "–"; }

void print_table(const Table& table) {
  constexpr int kUnbroken = 1000;
  std::cout << table.terminal(kUnbroken, console::colours(console::Stream::out)) << '\n';
}

void print_tasks(const Rescored& rescored) {
  const std::vector<std::string> reasons{"empty answer", "case or stop", "parse", "other rule"};
  std::vector<TableColumn> columns{
      {"task", false}, {"scorer", false}, {"rule", false}, {"before", true}, {"after", true}};
  for (const std::string& name : reasons) columns.push_back({name, true});
  columns.push_back({"MIF", true});
  Table table(std::move(columns));
  for (const RescoredTask& task : rescored.tasks) {
    const bool strict = task.rule.as_strict || rescored.profile == "strict";
    std::vector<TableCell> cells{{task.name},
                                 {std::string(task.rule.scorer)},
                                 {strict ? "as strict" : rescored.profile},
                                 {number(task.before)},
                                 {number(task.after)}};
    for (const std::string& name : reasons) {
      const auto found = task.why.find(name);
      cells.push_back({found == task.why.end() ? ""
                                               : "+" + std::to_string(found->second.better) + " -" +
                                                     std::to_string(found->second.worse)});
    }
    cells.push_back({number(task.followed)});
    table.row(std::move(cells));
  }
  print_table(table);
  for (const RescoredTask& task : rescored.tasks)
    if (!task.kept.empty())
      std::cout << task.name << ": the rule of " << rescored.profile << " cannot be used here: " << task.kept
                << '\n';
}

void print_metrics(const RunResult& before, const RunResult& after) {
  Table table({{"metric", false}, {"before", true}, {"after", true}});
  for (const MetricInfo& info : metric_catalogue()) {
    const MetricValue old = compute_metric(info.name, before.inputs(before.matrix)),
                      now = compute_metric(info.name, after.inputs(after.matrix));
    if (old.value || now.value)
      table.row({{std::string(info.name)}, {number(old.value)}, {number(now.value)}});
  }
  print_table(table);
}

void print_split(const RunResult& result) {
  Table table({{"task", false},
               {"when learned", true},
               {"now", true},
               {"format drift", true},
               {"knowledge loss", true},
               {"regained", true}});
  const std::int64_t last = result.matrix.stages();
  for (std::int64_t j = 0; j < result.matrix.tasks(); ++j) {
    const std::int64_t learned = result.matrix.learned_at(j);
    if (learned == 0 || learned == last) continue;
    table.row({{result.tasks[static_cast<std::size_t>(j)].name},
               {number(result.matrix.at(learned, j))},
               {number(result.matrix.at(last, j))},
               {number(result.forgetting->format_drift.at(last, j))},
               {number(result.forgetting->knowledge_loss.at(last, j))},
               {number(result.forgetting->regained.at(last, j))}});
  }
  if (table.rows() > 0) print_table(table);
}

std::map<std::string, std::string> named_scorers(const std::vector<std::string>& texts) {
  std::map<std::string, std::string> out;
  for (const std::string& text : texts) {
    const std::size_t at = text.find('=');
    if (at == std::string::npos)
      throw CLI::ValidationError("--scorer", "expected TASK=NAME, found '" + text + "'");
    out[text.substr(0, at)] = text.substr(at + 1);
  }
  return out;
}

void run_rescore(const Options& options) {
  const auto scorers = named_scorers(options.scorers);
  Progress progress("rescoring", static_cast<std::int64_t>(options.runs.size()), "runs");
  std::vector<std::pair<std::string, Rescored>> all;
  for (const std::string& run : options.runs) {
    all.emplace_back(run, rescore(run, options.profile, scorers));
    write_rescored(run, all.back().second);
    progress.advance();
  }
  for (const auto& [run, rescored] : all) {
    std::cout << run << ", profile " << options.profile
              << "; rows scored better (+) and worse (-) after the last stage\n\n";
    print_tasks(rescored);
    print_metrics(read_result(run), rescored.result);
    print_split(rescored.result);
    log::info(run, "/rescored/", options.profile, ".json: written; 'mcit metrics' reads it");
  }
}

}  // namespace

void add_rescore(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "rescore",
      "Score a run's stored answers by the rules of another project, and split what was forgotten");
  command->add_option("RUN", options->runs, "Folders of runs")->required()->type_name("");
  command
      ->add_option("--profile", options->profile,
                   "strict, coin, sefe, mcitlib, prism or hide ('mcit score --list' tells their rules)")
      ->capture_default_str();
  command
      ->add_option("--scorer", options->scorers,
                   "Another scorer for a task, or the scorer where the run's result.json does not name it")
      ->type_name("TASK=NAME");
  command->footer(
      "Shows old and new score of each task and why rows changed, all metrics, and forgetting as format "
      "drift (the\n"
      "answer lost its form or left the answer set) and knowledge loss (right form, wrong answer).\n"
      "Writes RUN/rescored/<profile>.json, which has the shape of result.json.\n\n"
      "Example\n"
      "  mcit rescore runs/coin-lora --profile coin\n"
      "  mcit metrics runs/coin-lora/rescored/coin.json");
  command->callback([options] { run_rescore(*options); });
}

}  // namespace mcit
