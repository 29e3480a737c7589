#pragma once
/// One function a subcommand, each in its own cmd_<name>.cpp: declares flags and help, runs when chosen.

namespace CLI {
class App;
}

namespace mcit {

/// A check found a fault, or runs of a grid failed, and it was printed: exit code 1, nothing more to say.
struct CheckFailed {};

void add_run(CLI::App& app);
void add_sweep(CLI::App& app);
void add_bench(CLI::App& app);
void add_federate(CLI::App& app);
void add_node(CLI::App& app);
void add_split(CLI::App& app);
void add_compare(CLI::App& app);
void add_report(CLI::App& app);
void add_metrics(CLI::App& app);
void add_score(CLI::App& app);
void add_rescore(CLI::App& app);
void add_export(CLI::App& app);
void add_convert(CLI::App& app);
void add_compose(CLI::App& app);
void add_generate(CLI::App& app);
void add_inspect(CLI::App& app);
void add_plugins(CLI::App& app);
void add_check_plugin(CLI::App& app);
void add_new_plugin(CLI::App& app);
void add_suites(CLI::App& app);
void add_check_data(CLI::App& app);
void add_make_data(CLI::App& app);
void add_pretrain(CLI::App& app);
void add_bench_step(CLI::App& app);

}  // namespace mcit
