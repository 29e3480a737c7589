#include <CLI/CLI.hpp>
#include <iostream>

#include "app/commands.hpp"
#include "core/launch.hpp"
#include "core/log.hpp"
#include "core/system.hpp"
#include "mcit/abi.hpp"
#include "mcit/errors.hpp"

namespace {

/// Only these can be several processes; of any other, each would do the whole work in the others' way.
void check_launch(const CLI::App& app) {
  if (mcit::Launch::from_environment().alone()) return;
  for (const CLI::App* command : app.get_subcommands()) {
    std::string name = command->get_name();
    for (const CLI::App* inner : command->get_subcommands()) name += " " + inner->get_name();
    if (name != "run" && name != "federate" && name != "node run")
      throw mcit::ConfigError(
          "mcit " + name, "was started as several processes",
          "start it once, without torchrun and without WORLD_SIZE; run, federate and node run can "
          "be several");
  }
}

}  // namespace

// Exit codes: 0 done; 1 a check failed (check-plugin) or some runs of a grid did; 2 bad input or a failed
// run, with one line that says why; 130 interrupted, with the state saved.
int main(int argc, char** argv) {
  CLI::App app{"Continual-learning experiments on multimodal large language models.", "mcit"};
  app.set_version_flag("--version", mcit::build_info());
  app.require_subcommand(1);
  app.fallthrough();
  bool quiet = false, verbose = false;
  app.add_flag("-q,--quiet", quiet, "Warnings and errors only");
  app.add_flag("-v,--verbose", verbose, "Also what is only of interest when something goes wrong");
  app.parse_complete_callback([&] {
    mcit::log::to_console(quiet     ? mcit::log::Level::warn
                          : verbose ? mcit::log::Level::debug
                                    : mcit::log::Level::info);
    check_launch(app);
  });
  mcit::install_interrupt_handler();
  mcit::keep_freed_memory();
  mcit::flush_denormals();
  mcit::add_run(app);
  mcit::add_sweep(app);
  mcit::add_bench(app);
  mcit::add_federate(app);
  mcit::add_node(app);
  mcit::add_split(app);
  mcit::add_compare(app);
  mcit::add_report(app);
  mcit::add_metrics(app);
  mcit::add_score(app);
  mcit::add_rescore(app);
  mcit::add_plugins(app);
  mcit::add_check_plugin(app);
  mcit::add_new_plugin(app);
  mcit::add_generate(app);
  mcit::add_inspect(app);
  mcit::add_export(app);
  mcit::add_convert(app);
  mcit::add_compose(app);
  mcit::add_suites(app);
  mcit::add_check_data(app);
  mcit::add_make_data(app);
  mcit::add_pretrain(app);
  mcit::add_bench_step(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  } catch (const mcit::CheckFailed&) {
    return 1;
  } catch (const mcit::Interrupted&) {
    return 130;
  } catch (const std::exception& e) {
    std::cout.flush();  // what was printed before it, first
    mcit::log::error(mcit::cause_of(e));
    return 2;
  }
  return 0;
}
