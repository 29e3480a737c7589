#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/json.hpp"
#include "core/progress.hpp"
#include "data/check_data.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string suite, data;
  bool json = false, deep = false;
  std::int64_t limit = 20;
};

void check(const Flags& flags) {
  const Suite suite = open_suite(flags.suite, {}, flags.data);
  Progress progress("checking '" + suite.name + "'", static_cast<std::int64_t>(suite.tasks.size()), "tasks");
  const DataReport report =
      check_data(suite, flags.deep, flags.limit, [&](const std::string& task) { progress.advance(1, task); });
  if (flags.json) {
    Json tasks = Json::array(), faults = Json::array();
    for (const TaskCheck& t : report.tasks)
      tasks.push_back({{"task", t.task},
                       {"train_rows", t.train_rows},
                       {"test_rows", t.test_rows},
                       {"pictures", t.pictures}});
    for (const DataFault& f : report.faults)
      faults.push_back({{"task", f.task}, {"file", f.file}, {"row", f.row}, {"what", f.what}});
    std::cout << dump_json({{"suite", suite.name},
                            {"data", suite.data.string()},
                            {"tasks", tasks},
                            {"faults", faults},
                            {"total_faults", report.total_faults}},
                           2)
              << "\n";
  } else {
    for (const TaskCheck& t : report.tasks)
      std::cout << t.task << ": " << t.train_rows << " training rows, " << t.test_rows << " test rows, "
                << t.pictures << " pictures\n";
    for (const DataFault& f : report.faults)
      std::cout << f.file << (f.row > 0 ? ": row " + std::to_string(f.row) : "") << ": " << f.what << "\n";
    if (report.total_faults == 0) std::cout << "nothing is wrong\n";
  }
  if (report.total_faults > 0)
    throw DataError("suite '" + suite.name + "'",
                    std::to_string(report.total_faults) + (report.total_faults == 1 ? " fault" : " faults"));
}

}  // namespace

void add_check_data(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("check-data", "Look at every row and picture of a suite before training on it");
  command->add_option("SUITE", flags->suite, "Name of a suite or its TOML file")->required()->type_name("");
  command->add_option("--data", flags->data, "Folder that the suite's files start from")->type_name("DIR");
  command->add_flag("--deep", flags->deep, "Decode every picture, not only look whether it is there");
  command->add_option("--limit", flags->limit, "Faults of each file shown in full; all are counted")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "The report as JSON");
  command->footer("Example:\n  mcit check-data mini4 --deep\nExit code 2 when something is wrong.");
  command->callback([flags] { check(*flags); });
}

}  // namespace mcit
