#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <set>

#include "app/commands.hpp"
#include "app/flags.hpp"
#include "app/grid_process.hpp"
#include "app/grid_run.hpp"
#include "core/config.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/run_dir.hpp"
#include "mcit/errors.hpp"
#include "metrics/result.hpp"
#include "report/comparison.hpp"

namespace mcit {
namespace {

struct Options {
  std::string source, out, markdown, seeds, strategy, key;
  std::vector<std::string> only, sets, plugin_dirs, values;
  GridOptions grid{.command = "sweep", .jobs = 0, .devices = {}};
};

/// The lines of a sweep have folders of their own.
void check_names(const Grid& grid, const std::string& where) {
  std::set<std::string> names;
  for (const GridEntry& entry : grid.entries)
    if (!names.insert(safe_file_name(entry.name)).second)
      throw ConfigError(where, "there is another run named '" + entry.name + "'");
}

Grid from_file(const Options& options) {
  if (!std::filesystem::is_regular_file(options.source))
    throw ConfigError("sweep", "there is no file '" + options.source + "'",
                      "for values of one key of a suite give --key and --values");
  const Config config = Config::read(options.source);
  Grid grid;
  grid.suite = config.name_or_path("suite", "mini4");
  grid.out = config.text("out", "runs/" + std::filesystem::path(options.source).stem().string());
  for (const std::int64_t seed : config.integers("seeds", {1})) {
    if (seed < 0) throw ConfigError(config.where("seeds"), "a seed must not be negative");
    grid.seeds.push_back(static_cast<std::uint64_t>(seed));
  }
  grid.sets = config.texts("set", {});
  for (const Config& run : config.children("run")) {
    GridEntry entry{.name = run.require_text("name"), .strategy = {}, .sets = run.texts("set", {})};
    if (run.has("federate")) {
      entry.federate = run.require_path("federate").string();
      if (!std::filesystem::is_regular_file(entry.federate))
        throw ConfigError(run.where("federate"), "there is no file '" + entry.federate + "'",
                          "it is a file of settings of mcit federate, from the folder of this one");
    } else {
      entry.strategy = run.text("strategy", entry.name);
    }
    grid.entries.push_back(std::move(entry));
    check_names(grid, run.where("name"));
  }
  config.finish();
  if (grid.entries.empty())
    throw ConfigError(options.source, "has no [[run]]", "each names a line of the table");
  return grid;
}

/// A line for each value of the key.
Grid from_key(const Options& options) {
  if (options.values.empty()) throw ConfigError("--key", "has no values", "give --values, e.g. 1,2,4");
  Grid grid;
  grid.suite = options.source;
  const std::string strategy = options.strategy.empty() ? "sequential" : options.strategy,
                    word = options.key.substr(options.key.rfind('.') + 1);
  grid.out = std::filesystem::path("runs") / (std::filesystem::path(options.source).stem().string() + "-" +
                                              safe_file_name(strategy) + "-" + safe_file_name(word));
  grid.seeds = {1};
  for (const std::string& value : options.values)
    grid.entries.push_back(
        {.name = word + "=" + value, .strategy = strategy, .sets = {options.key + "=" + value}});
  check_names(grid, "--values");
  return grid;
}

void keep_only(Grid& grid, const Options& options) {
  std::vector<std::string> known;
  for (const GridEntry& entry : grid.entries) known.push_back(entry.name);
  for (const std::string& wanted : options.only)
    if (std::find(known.begin(), known.end(), wanted) == known.end())
      throw ConfigError("--only", "'" + wanted + "' is no run of " + options.source,
                        suggestion(wanted, known));
  if (options.only.empty()) return;
  std::erase_if(grid.entries, [&](const GridEntry& entry) {
    return std::find(options.only.begin(), options.only.end(), entry.name) == options.only.end();
  });
}

void sweep_command(const Options& options) {
  check_devices(options.grid.devices);
  if (options.key.empty() && (!options.values.empty() || !options.strategy.empty()))
    throw ConfigError("--values", "needs --key", "mcit sweep SUITE --strategy NAME --key KEY --values A,B");
  Grid grid = options.key.empty() ? from_file(options) : from_key(options);
  if (!options.out.empty()) grid.out = options.out;
  if (!options.seeds.empty()) grid.seeds = seeds_of(options.seeds, "--seeds");
  grid.sets.insert(grid.sets.end(), options.sets.begin(), options.sets.end());
  for (const std::string& folder : options.plugin_dirs)
    grid.flags.insert(grid.flags.end(), {"--plugin-dir", folder});
  keep_only(grid, options);
  const GridOutcome outcome = run_grid(grid, options.grid);
  if (outcome.complete.empty()) return report_failures(outcome, options.grid);
  std::vector<ComparedRun> runs;
  for (const auto& folder : outcome.complete) runs.push_back({folder.string(), read_result(folder)});
  const std::vector<Comparison> comparisons = compare_runs(runs);
  std::cout << comparison_terminal(comparisons, console::width(console::Stream::out),
                                   console::colours(console::Stream::out))
            << std::flush;
  const std::filesystem::path table =
      options.markdown.empty() ? grid.out / "table.md" : std::filesystem::path(options.markdown);
  write_atomic(table, comparison_markdown(comparisons));
  log::info("the table is also in ", table.string(), "; each run has its folder in ", grid.out.string());
  report_failures(outcome, options.grid);
}

}  // namespace

void add_sweep(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("sweep", "Run strategies or values of a setting over seeds, and print their table");
  command
      ->add_option("SOURCE", options->source,
                   "The sweep as TOML: suite, seeds, [[run]] entries (of federate, too); with --key a suite")
      ->required()
      ->type_name("");
  command->add_option("--key", options->key, "A setting to try values of, e.g. strategy.top_k")
      ->type_name("KEY");
  command->add_option("--values", options->values, "The values, e.g. 1,2,4")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("VALUES");
  command->add_option("--strategy", options->strategy, "With --key: the strategy [sequential]")
      ->type_name("NAME");
  add_grid_flags(*command, options->grid, options->plugin_dirs);
  command->add_option("--seeds", options->seeds, "5 is the seeds 1 to 5; 4,7 and 2..5 name them")
      ->type_name("SEEDS");
  command->add_option("--only", options->only, "These runs alone, by name")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("NAME");
  command->add_option("--out", options->out, "Folder of the runs [the file's, or runs/FILE]")
      ->type_name("DIR");
  command->add_option("--set", options->sets, "One setting for every run, e.g. train.steps=50 (repeatable)")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->take_all();
  command->add_option("--markdown", options->markdown, "Where the table goes as Markdown [OUT/table.md]")
      ->type_name("FILE");
  command->footer(
      "Runs that are complete are not repeated, stopped ones go on. Exit code 1 when runs failed.\n"
      "Examples:\n"
      "  mcit sweep configs/sweeps/demo.toml --seeds 3\n"
      "  mcit sweep configs/sweeps/federated.toml --seeds 3\n"
      "  mcit sweep mini4 --strategy branch_lora --key strategy.top_k --values 1,2,4 --seeds 3");
  command->callback([options] { sweep_command(*options); });
}

}  // namespace mcit
