#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/share.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "metrics/published.hpp"
#include "metrics/result.hpp"
#include "report/comparison.hpp"
#include "report/gap.hpp"
#include "report/literature.hpp"
#include "report/significance.hpp"

namespace mcit {
namespace {

struct Options {
  std::vector<std::string> runs;
  std::string published;  ///< empty: the runs' own suite
  bool with_published = false;
  std::vector<std::string> against;
  std::vector<std::string> paired;
  double alpha = 0.05;
  std::string markdown, csv, json, latex;
};

/// Everything there is to show, for all forms of output.
struct Findings {
  std::vector<Comparison> comparisons;
  std::vector<Block> blocks;  ///< beyond the comparisons
  std::string csv;
  Json json = Json::object();
};

/// "-" is the standard output.
void deliver(const std::string& file, const std::string& text) {
  if (file == "-")
    std::cout << text;
  else if (!file.empty())
    write_atomic(file, text);
}

void append(std::vector<Block>& blocks, std::vector<Block> more) {
  std::move(more.begin(), more.end(), std::back_inserter(blocks));
}

std::filesystem::path published_dir() { return share_dir() / "published"; }

Findings show_literature(const Options& options) {
  if (options.published.empty())
    throw ConfigError("published", "which tables?", suggestion({}, list_published(published_dir())));
  const Published published = find_published(options.published, published_dir());
  Findings found;
  found.blocks = literature_blocks(published);
  found.csv = literature_csv(published);
  found.json["published"] = literature_json(published);
  return found;
}

void add_gaps(const Options& options, const std::vector<ComparedRun>& runs, Findings& found) {
  found.json["gaps"] = Json::array();
  for (const Comparison& comparison : found.comparisons) {
    const std::string& name = options.published.empty() ? comparison.suite : options.published;
    const GapComparison gaps =
        compare_with_published(comparison, runs, find_published(name, published_dir()), options.against);
    append(found.blocks, gap_blocks(gaps));
    found.csv += gap_csv(gaps);
    found.json["gaps"].push_back(gap_json(gaps));
  }
}

void add_paired(const Options& options, const std::vector<ComparedRun>& runs, Findings& found) {
  found.json["paired"] = Json::array();
  BootstrapOptions bootstrap;
  bootstrap.level = 1.0 - options.alpha;
  for (const Comparison& comparison : found.comparisons) {
    const PairedComparison paired =
        compare_pair(comparison, runs, options.paired[0], options.paired[1], bootstrap);
    append(found.blocks, paired_blocks(paired));
    found.json["paired"].push_back(paired_json(paired));
  }
}

Findings compare(const Options& options) {
  std::vector<ComparedRun> runs;
  for (const std::string& path : options.runs) runs.push_back({path, read_result(path)});
  Findings found;
  found.comparisons = compare_runs(runs);
  found.csv = comparison_csv(found.comparisons);
  found.json = comparison_json(found.comparisons);
  if (const auto ranks = rank_strategies(found.comparisons, options.alpha)) {
    append(found.blocks, rank_blocks(*ranks));
    found.json["ranks"] = ranks_json(*ranks);
  }
  if (const auto orders = order_tables(found.comparisons); !orders.empty()) {
    append(found.blocks, order_blocks(orders));
    found.json["orders"] = orders_json(orders);
  }
  if (!options.paired.empty()) add_paired(options, runs, found);
  if (options.with_published) add_gaps(options, runs, found);
  return found;
}

std::string markdown(const Findings& found) {
  std::string out = comparison_markdown(found.comparisons);
  if (!out.empty() && !found.blocks.empty()) out += '\n';
  return out + blocks_markdown(found.blocks);
}

std::string latex(const Findings& found) {
  std::vector<Block> all = comparison_blocks(found.comparisons);
  append(all, found.blocks);
  return blocks_latex(all);
}

void print(const Findings& found) {
  const int width = console::width(console::Stream::out);
  const bool colours = console::colours(console::Stream::out);
  const std::string runs = comparison_terminal(found.comparisons, width, colours);
  std::cout << runs << (runs.empty() || found.blocks.empty() ? "" : "\n")
            << blocks_terminal(found.blocks, width, colours);
}

void run_compare(const Options& options) {
  if (options.runs.empty() && !options.with_published) throw CLI::RequiredError("RUN");
  if (options.runs.empty() && (!options.against.empty() || !options.paired.empty()))
    throw ConfigError(options.paired.empty() ? "against" : "paired", "there is no run to compare");
  const Findings found = options.runs.empty() ? show_literature(options) : compare(options);
  const bool to_output =
      options.markdown == "-" || options.csv == "-" || options.json == "-" || options.latex == "-";
  if (!to_output) print(found);
  if (!options.markdown.empty()) deliver(options.markdown, markdown(found));
  if (!options.latex.empty()) deliver(options.latex, latex(found));
  deliver(options.csv, found.csv);
  if (!options.json.empty()) deliver(options.json, dump_json(found.json, 2) + "\n");
}

}  // namespace

void add_compare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("compare", "Strategies side by side: scores, forgetting, transfer, costs");
  command
      ->add_option("RUN", options->runs,
                   "Run folders or result.json files; seeds of one strategy are averaged")
      ->type_name("");
  CLI::Option* published =
      command
          ->add_option("--published", options->published,
                       "Beside the published numbers of NAME, or of the runs' suite; without runs, the "
                       "literature's tables alone")
          ->type_name("[NAME]")
          ->expected(0, 1);
  command
      ->add_option("--against", options->against,
                   "Published methods to hold all runs against, instead of those of the same strategy")
      ->type_name("METHOD")
      ->needs(published);
  command
      ->add_option("--paired", options->paired,
                   "Two rows of the table: differences in runs of the same seeds, with bootstrap intervals")
      ->type_name("ROW")
      ->expected(2);
  command
      ->add_option("--alpha", options->alpha,
                   "Level of the critical difference between ranks; intervals cover 1 - alpha")
      ->check(CLI::Range(1e-6, 0.5))
      ->capture_default_str();
  command->add_option("--markdown", options->markdown, "Also as Markdown; - for the standard output instead")
      ->type_name("FILE");
  command->add_option("--csv", options->csv, "Also as CSV, one value a line")->type_name("FILE");
  command->add_option("--json", options->json, "Also as JSON")->type_name("FILE");
  command->add_option("--latex", options->latex, "Also as LaTeX tables with booktabs")->type_name("FILE");
  command->footer(
      "Runs of different suites or task orders get tables of their own. Three strategies with two seeds or\n"
      "orders in common also get mean ranks with a critical difference.\n"
      "Examples:\n"
      "  mcit compare runs/mini4-* --markdown comparison.md\n"
      "  mcit compare runs/mini4-* --paired branch_lora sequential\n"
      "  mcit compare --published coin\n"
      "  mcit compare runs/coin-moe_lora-* --published");
  command->callback([options, published] {
    options->with_published = published->count() > 0;
    run_compare(*options);
  });
}

}  // namespace mcit
