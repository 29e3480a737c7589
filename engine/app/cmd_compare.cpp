#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "metrics/result.hpp"
#include "report/comparison.hpp"

namespace mcit {
namespace {

struct Options {
  std::vector<std::string> runs;
  std::string markdown;
  std::string csv;
  std::string json;
};

/// "-" is the standard output.
void deliver(const std::string& file, const std::string& text) {
  if (file == "-")
    std::cout << text;
  else if (!file.empty())
    write_atomic(file, text);
}

void run_compare(const Options& options) {
  std::vector<ComparedRun> runs;
  for (const std::string& path : options.runs) runs.push_back({path, read_result(path)});
  const std::vector<Comparison> comparisons = compare_runs(runs);
  const bool to_output = options.markdown == "-" || options.csv == "-" || options.json == "-";
  if (!to_output)
    std::cout << comparison_terminal(comparisons, console::width(console::Stream::out),
                                     console::colours(console::Stream::out));
  deliver(options.markdown, comparison_markdown(comparisons));
  deliver(options.csv, comparison_csv(comparisons));
  deliver(options.json, dump_json(comparison_json(comparisons), 2) + "\n");
}

}  // namespace

void add_compare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("compare", "Strategies side by side: scores, forgetting, transfer, costs");
  command
      ->add_option("RUN", options->runs,
                   "Run folders or result.json files; seeds of one strategy are averaged")
      ->required()
      ->type_name("");
  command->add_option("--markdown", options->markdown, "Also as Markdown; - for the standard output instead")
      ->type_name("FILE");
  command->add_option("--csv", options->csv, "Also as CSV, one value a line")->type_name("FILE");
  command->add_option("--json", options->json, "Also as JSON")->type_name("FILE");
  command->footer(
      "Runs of different suites or task orders get tables of their own.\n"
      "Example:\n"
      "  mcit compare runs/mini4-* --markdown comparison.md");
  command->callback([options] { run_compare(*options); });
}

}  // namespace mcit
