#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "core/text.hpp"
#include "metrics/matrix_io.hpp"
#include "metrics/metrics.hpp"
#include "metrics/result.hpp"
#include "report/heatmap.hpp"
#include "report/table.hpp"

namespace mcit {
namespace {

struct Options {
  std::string file;
  std::string single;
  std::string baseline;
  std::string svg;
  bool json = false;
  bool list = false;
  bool restricted = false;
};

void print_catalogue() {
  for (const MetricInfo& info : metric_catalogue()) {
    std::cout << info.name << "\n    " << info.title << "\n    " << info.formula << "\n    " << info.source;
    if (!info.needs.empty()) std::cout << "; needs " << info.needs;
    std::cout << '\n';
  }
}

void print_matrix(const AccuracyMatrix& matrix) {
  std::vector<TableColumn> columns{{"after", false}};
  for (const std::string& name : matrix.names()) columns.push_back({name, true});
  Table table(std::move(columns));
  for (std::int64_t i = 0; i <= matrix.stages(); ++i) {
    std::vector<TableCell> cells{{i == 0 ? "base" : "stage " + std::to_string(i), false}};
    for (std::int64_t j = 0; j < matrix.tasks(); ++j) {
      const AccuracyMatrix::Cell cell = matrix.at(i, j);
      cells.push_back({cell ? fixed(*cell, 2) : "–", cell && i > 0 && matrix.learned_at(j) == i});
    }
    table.row(std::move(cells));
  }
  std::cout << table.terminal(console::width(console::Stream::out), console::colours(console::Stream::out))
            << '\n';
}

void print_metrics(const std::vector<Metric>& metrics) {
  Table table({{"metric", false}, {"value", true}, {"meaning", false}});
  for (const Metric& metric : metrics) {
    const auto& result = metric.result;
    table.row({{std::string(metric.info.name), false},
               {result.value ? fixed(*result.value, 4) : "–", false},
               {result.value ? std::string(metric.info.title) : "(" + result.missing + ")", false}});
  }
  constexpr int kUnbroken = 1000;  // a line that is too long is easier to read than a table in two pieces
  std::cout << table.terminal(kUnbroken, console::colours(console::Stream::out));
}

void print_json(const std::vector<Metric>& metrics) {
  Json json = Json::object();
  for (const Metric& metric : metrics)
    json[std::string(metric.info.name)] = metric.result.value ? Json(*metric.result.value) : Json(nullptr);
  std::cout << dump_json(json, 2) << '\n';
}

/// Some papers print fractions; the numbers stay as they are, but nobody should mistake them.
void warn_of_fractions(const AccuracyMatrix& matrix) {
  bool any = false;
  for (std::int64_t i = 0; i <= matrix.stages(); ++i)
    for (std::int64_t j = 0; j < matrix.tasks(); ++j) {
      const AccuracyMatrix::Cell cell = matrix.at(i, j);
      if (cell && *cell > 1.0) return;
      any = any || (cell && *cell > 0.0);
    }
  if (any) log::warn("no score is above 1: these look like fractions, percent is expected");
}

void run_metrics(const Options& options) {
  if (options.list) return print_catalogue();
  if (options.file.empty()) throw CLI::RequiredError("FILE");
  MetricInputs inputs = read_metric_inputs(options.file, options.restricted);
  warn_of_fractions(inputs.matrix);
  if (!options.single.empty()) inputs.single = read_scores(options.single, inputs.matrix.tasks());
  if (!options.baseline.empty()) inputs.baseline = read_scores(options.baseline, inputs.matrix.tasks());
  if (!options.svg.empty()) write_atomic(options.svg, heatmap_svg(inputs.matrix, options.file));
  const std::vector<Metric> metrics = compute_metrics(inputs);
  if (options.json) return print_json(metrics);
  print_matrix(inputs.matrix);
  print_metrics(metrics);
}

}  // namespace

void add_metrics(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("metrics", "Every continual-learning metric of any accuracy matrix");
  command
      ->add_option("FILE", options->file,
                   "A run's folder or result.json, or a matrix as CSV, text or JSON: one row a stage, one "
                   "column a task, "
                   "in percent; rows may be ragged, and one row more than tasks means that the first is the "
                   "untrained base")
      ->type_name("");
  command->add_flag("--json", options->json,
                    "Print {\"acc\": …, \"bwt_T-1\": …}; null where a cell is missing");
  command
      ->add_option(
          "--single", options->single,
          "Scores of each task trained alone (a row, a matrix or a run of strategy single), for plasticity")
      ->type_name("FILE");
  command->add_option("--baseline", options->baseline, "Scores of a random model, for fwt_gem")
      ->type_name("FILE");
  command->add_flag("--restricted", options->restricted,
                    "Of a run: answers restricted to the task's own answer set");
  command->add_option("--svg", options->svg, "Also draw the matrix as a heat map")->type_name("FILE");
  command->add_flag("--list", options->list, "Print names, formulas and sources of all metrics");
  command->footer(
      "Example: a lower triangle from a paper, pasted into a file\n"
      "  printf '90.97\\n90.38 92.60\\n73.90 86.33 59.54\\n' > paper.txt\n"
      "  mcit metrics paper.txt");
  command->callback([options] { run_metrics(*options); });
}

}  // namespace mcit
