#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/console.hpp"
#include "core/json.hpp"
#include "core/progress.hpp"
#include "data/check_data.hpp"
#include "mcit/errors.hpp"
#include "report/table.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string suite, data;
  bool json = false;
  CheckOptions check;
};

Json as_json(const Suite& suite, const DataReport& report) {
  Json tasks = Json::array(), faults = Json::array(), missing = Json::array();
  for (std::size_t i = 0; i < report.tasks.size(); ++i) {
    const TaskCheck& t = report.tasks[i];
    tasks.push_back({{"task", t.task},
                     {"train_rows", t.train_rows},
                     {"test_rows", t.test_rows},
                     {"expected_train", suite.tasks[i].expected_train},
                     {"expected_test", suite.tasks[i].expected_test},
                     {"pictures", t.pictures},
                     {"missing_pictures", t.missing_pictures}});
  }
  for (const MissingPictures& m : report.missing)
    missing.push_back({{"task", m.task},
                       {"folder", m.folder},
                       {"folder_exists", m.there},
                       {"pictures", m.pictures},
                       {"example", m.example}});
  for (const DataFault& f : report.faults)
    faults.push_back({{"task", f.task}, {"file", f.file}, {"row", f.row}, {"what", f.what}});
  return {{"suite", suite.name}, {"data", suite.data.string()},        {"tasks", tasks}, {"missing", missing},
          {"faults", faults},    {"total_faults", report.total_faults}};
}

void print(const Suite& suite, const DataReport& report) {
  Table table({{"task", false},
               {"training rows"},
               {"expected"},
               {"test rows"},
               {"expected"},
               {"pictures"},
               {"missing"}});
  for (std::size_t i = 0; i < report.tasks.size(); ++i) {
    const TaskCheck& t = report.tasks[i];
    table.row({{t.task},
               {std::to_string(t.train_rows)},
               {counts_text(suite.tasks[i].expected_train)},
               {std::to_string(t.test_rows)},
               {counts_text(suite.tasks[i].expected_test)},
               {std::to_string(t.pictures)},
               {std::to_string(t.missing_pictures)}});
  }
  std::cout << suite.name << " in " << suite.data.string() << "\n"
            << table.terminal(console::width(console::Stream::out), console::colours(console::Stream::out));
  for (const MissingPictures& m : report.missing)
    std::cout << m.task << ": " << m.pictures << (m.pictures == 1 ? " picture is" : " pictures are")
              << " missing, " << (m.there ? "in the folder " : "there is no folder ") << m.folder
              << ", for example " << m.example << "\n";
  for (const DataFault& f : report.faults)
    std::cout << f.file << (f.row > 0 ? ": row " + std::to_string(f.row) : "") << ": " << f.what << "\n";
  const auto shown = std::ssize(report.faults);
  if (report.total_faults > shown)
    std::cout << "and " << report.total_faults - shown << " more of these kinds\n";
  if (report.total_faults == 0) std::cout << "nothing is wrong\n";
}

void check(const Flags& flags) {
  const Suite suite = open_suite(flags.suite, {}, flags.data);
  DataReport report;
  {
    Progress progress("checking '" + suite.name + "'", std::ssize(suite.tasks), "tasks");
    std::string at;  // a task counts when it is done
    report = check_data(suite, flags.check, [&](const std::string& task) {
      progress.advance(at.empty() ? 0 : 1, task);
      at = task;
    });
  }
  if (flags.json) {
    std::cout << dump_json(as_json(suite, report), 2) << "\n";
  } else {
    print(suite, report);
  }
  if (report.total_faults > 0)
    throw DataError(
        "suite '" + suite.name + "'",
        std::to_string(report.total_faults) + (report.total_faults == 1 ? " fault" : " faults"),
        suite.texts.source.empty() ? "" : "mcit suites " + suite.name + " says where its data is from");
}

}  // namespace

void add_check_data(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("check-data", "Look at every row and picture of a suite before training on it");
  command->add_option("SUITE", flags->suite, "Name of a suite or its TOML file")->required()->type_name("");
  command
      ->add_option("--data,--root", flags->data,
                   "Folder that the suite's files start from, or one that holds it [in MCIT_DATA's folders]")
      ->type_name("DIR");
  command->add_flag("--deep", flags->check.deep, "Decode every picture, not only look whether it is there");
  command->add_flag("--excerpt", flags->check.excerpt,
                    "The data is a part of the whole: do not compare counts");
  command->add_option("--limit", flags->check.limit, "Faults of each file shown in full; all are counted")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "The report as JSON");
  command->footer(
      "Examples:\n  mcit check-data mini4 --deep\n  mcit check-data coin --root /datasets\n"
      "No model is loaded. Exit code 2 when something is wrong.");
  command->callback([flags] { check(*flags); });
}

}  // namespace mcit
