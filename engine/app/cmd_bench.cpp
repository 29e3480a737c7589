#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "app/flags.hpp"
#include "app/grid_process.hpp"
#include "app/grid_run.hpp"
#include "core/console.hpp"
#include "core/files.hpp"
#include "core/log.hpp"
#include "core/run_dir.hpp"
#include "core/text.hpp"
#include "data/suite.hpp"
#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "plugin/catalogue.hpp"
#include "report/orders.hpp"

namespace mcit {
namespace {

struct Options {
  std::string suite, out, seeds = "1", model, data;
  std::vector<std::string> strategies, orders, sets, plugin_dirs, bounds = {"zero_shot", "single", "joint"};
  std::int64_t order_count = 0;
  bool no_sharing = false;
  GridOptions grid{.command = "bench", .jobs = 0, .devices = {}};
};

const std::vector<std::string>& known_bounds() {
  static const std::vector<std::string> all = {"zero_shot", "single", "joint"};
  return all;
}

bool is_bound(const std::string& strategy) {
  return std::find(known_bounds().begin(), known_bounds().end(), strategy) != known_bounds().end();
}

/// "ewc:strategy.lambda=10" is for the strategy ewc alone.
struct Assignment {
  std::string strategy, set;
};

Assignment read_assignment(const std::string& text, const std::vector<std::string>& strategies) {
  const std::size_t colon = text.find(':'), equals = text.find('=');
  if (colon == std::string::npos || equals == std::string::npos || colon > equals) return {{}, text};
  const std::string strategy = text.substr(0, colon);
  if (std::find(strategies.begin(), strategies.end(), strategy) == strategies.end())
    throw ConfigError("--set " + text, "'" + strategy + "' is no strategy of this bench",
                      suggestion(strategy, strategies));
  return {strategy, text.substr(colon + 1)};
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

/// The orders that were asked for, each of them one of the same tasks of the suite.
std::vector<std::vector<std::string>> read_orders(const Options& options) {
  const Suite suite = read_suite(find_suite(options.suite, {share_dir()}));
  std::vector<std::string> tasks;
  for (const SuiteTask& task : suite.tasks) tasks.push_back(task.name);
  if (options.orders.empty()) return seeded_orders(tasks, std::max<std::int64_t>(1, options.order_count));
  if (options.order_count > 0)
    throw ConfigError("--orders", "cannot stand beside --order", "give a number of orders, or the orders");
  std::vector<std::vector<std::string>> orders;
  std::vector<std::string> first;
  for (const std::string& text : options.orders) {
    std::vector<std::string> order = split(text), sorted = order;
    for (const std::string& task : order)
      if (std::find(tasks.begin(), tasks.end(), task) == tasks.end())
        throw ConfigError("--order", "'" + task + "' is no task of '" + suite.name + "'",
                          suggestion(task, tasks));
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end())
      throw ConfigError("--order " + text, "names a task twice");
    if (first.empty()) first = sorted;
    if (sorted != first)
      throw ConfigError("--order " + text, "has other tasks than the first order",
                        "orders are compared on the same tasks");
    if (std::find(orders.begin(), orders.end(), order) != orders.end())
      throw ConfigError("--order " + text, "is there twice");
    orders.push_back(std::move(order));
  }
  return orders;
}

Extent extent_of(const std::string& strategy) {
  if (strategy == "zero_shot") return Extent::once;
  return is_bound(strategy) ? Extent::once_a_seed : Extent::every_order;
}

/// Strategies in the order of the table: the floor, those asked for, the upper references.
std::vector<std::string> lines_of(const Options& options) {
  std::vector<std::string> lines = options.strategies, bounds = options.bounds;
  if (bounds == std::vector<std::string>{"none"}) bounds.clear();
  for (const std::string& bound : bounds)
    if (!is_bound(bound))
      throw ConfigError("--bounds", "'" + bound + "' is none", "zero_shot, single, joint, or none alone");
  for (const std::string& bound : known_bounds()) {
    const auto is = [&](const std::string& name) { return name == bound; };
    const bool wanted =
        std::any_of(lines.begin(), lines.end(), is) || std::any_of(bounds.begin(), bounds.end(), is);
    std::erase(lines, bound);
    if (wanted) lines.insert(bound == "zero_shot" ? lines.begin() : lines.end(), bound);
  }
  std::vector<std::string> seen;
  for (const std::string& line : lines) {
    if (std::find(seen.begin(), seen.end(), line) != seen.end())
      throw ConfigError("--strategies", "'" + line + "' is there twice",
                        "mcit sweep compares settings of one strategy");
    seen.push_back(line);
  }
  return lines;
}

/// Whether orders may share the strategy's first stages. Wrong names are found here, before anything runs;
/// wrong settings by the runs.
bool is_causal(const Catalogue& catalogue, const std::string& strategy) {
  catalogue.provider(strategy);
  QuietHost host;
  try {
    const StrategyPtr made = catalogue.create(strategy, Params({}, "strategy"), host);
    return dynamic_cast<const Causal*>(made.get()) != nullptr;
  } catch (const std::exception&) {  // one that cannot be made without settings
    return false;
  }
}

Grid make_grid(const Options& options) {
  Grid grid;
  grid.suite = options.suite;
  const std::string name =
      options.suite.ends_with(".toml") ? std::filesystem::path(options.suite).stem().string() : options.suite;
  grid.out = options.out.empty() ? std::filesystem::path("runs") / ("bench-" + name)
                                 : std::filesystem::path(options.out);
  grid.seeds = seeds_of(options.seeds, "--seeds");
  grid.orders = read_orders(options);
  const auto flag = [&grid](const char* option, const std::string& value) {
    if (!value.empty()) grid.flags.insert(grid.flags.end(), {option, value});
  };
  flag("--model", options.model);
  flag("--data", options.data);
  for (const std::string& folder : options.plugin_dirs) flag("--plugin-dir", folder);
  const Catalogue catalogue(plugin_folders({options.plugin_dirs.begin(), options.plugin_dirs.end()}));
  const std::vector<std::string> lines = lines_of(options);
  for (const std::string& strategy : lines)
    grid.entries.push_back({.name = strategy,
                            .strategy = strategy,
                            .sets = {},
                            .extent = extent_of(strategy),
                            .causal = !options.no_sharing && is_causal(catalogue, strategy)});
  for (const std::string& text : options.sets) {
    const auto [strategy, set] = read_assignment(text, lines);
    if (strategy.empty()) grid.sets.push_back(set);
    for (GridEntry& entry : grid.entries)
      if (entry.strategy == strategy) entry.sets.push_back(set);
  }
  return grid;
}

void write_tables(const GridOutcome& outcome, const Grid& grid) {
  std::vector<OrderedRun> runs;
  for (std::size_t line = 0; line < grid.entries.size(); ++line)
    for (const GridJob& job : outcome.plan) {
      const bool complete =
          std::find(outcome.complete.begin(), outcome.complete.end(), job.folder) != outcome.complete.end();
      if (job.entry == line && job.until == 0 && complete)
        runs.push_back({{job.folder.string(), read_result(job.folder)},
                        grid.entries[line].extent == Extent::every_order});
    }
  const OrderStudy study = study_orders(runs, grid.orders);
  std::cout << orders_terminal(study, console::width(console::Stream::out),
                               console::colours(console::Stream::out))
            << std::flush;
  write_atomic(grid.out / "table.md", orders_markdown(study));
  write_atomic(grid.out / "table.csv", orders_csv(study));
  log::info("the tables are also in ", (grid.out / "table.md").string(), " and table.csv");
}

void bench_command(const Options& options) {
  check_devices(options.grid.devices);
  const Grid grid = make_grid(options);
  for (std::size_t i = 0; i < grid.orders.size() && grid.orders.size() > 1; ++i)
    log::info("o", i + 1, ": ", joined(grid.orders[i], ", "));
  const GridOutcome outcome = run_grid(grid, options.grid);
  if (!outcome.complete.empty()) write_tables(outcome, grid);
  report_failures(outcome, options.grid);
}

}  // namespace

void add_bench(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand(
      "bench", "Strategies over seeds and orders of tasks, with their bounds: runs, shared work, tables");
  command->add_option("SUITE", options->suite, "Name of a suite or its TOML file")->required()->type_name("");
  command->add_option("--strategies", options->strategies, "E.g. sequential,ewc (mcit plugins lists them)")
      ->required()
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("NAMES");
  command->add_option("--seeds", options->seeds, "5 is the seeds 1 to 5; 4,7 and 2..5 name them [1]")
      ->type_name("SEEDS");
  command->add_option("--orders", options->order_count, "The suite's order and permutations, this many [1]")
      ->type_name("N");
  command->add_option("--order", options->orders, "One order, e.g. geo,vqa,count (repeatable)")
      ->type_name("TASKS")
      ->allow_extra_args(false)
      ->take_all();
  command->add_option("--bounds", options->bounds, "zero_shot,single,joint, some of them, or none [all]")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->type_name("NAMES");
  command
      ->add_option("--set", options->sets,
                   "One setting for every run; ewc:strategy.lambda=10 for one strategy (repeatable)")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false)
      ->take_all();
  add_grid_flags(*command, options->grid, options->plugin_dirs);
  command->add_option("--out", options->out, "Folder of the runs and tables [runs/bench-SUITE]")
      ->type_name("DIR");
  command->add_option("--model", options->model, "Model folder in Hugging Face form, or mini [mini]")
      ->type_name("DIR|NAME");
  command->add_option("--data", options->data, "Folder that the suite's files start from")->type_name("DIR");
  command->add_flag("--no-sharing", options->no_sharing, "Train every stage of every run anew");
  command->footer(
      "Called again, it goes on where it stopped; seeds, orders and strategies may be added. Exit code 1 "
      "when\n"
      "runs failed.\n"
      "Examples:\n"
      "  mcit bench mini4 --strategies sequential,ewc,moe_lora --seeds 5 --orders 3 --set train.steps=150\n"
      "  mcit bench mini4 --strategies ewc --order vqa,geo,count,ground --order geo,vqa,ground,count");
  command->callback([options] { bench_command(*options); });
}

}  // namespace mcit
