#include <CLI/CLI.hpp>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/config.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "data/classification.hpp"
#include "data/jpeg.hpp"
#include "data/records.hpp"
#include "mcit/errors.hpp"
#include "report/document.hpp"
#include "report/report_page.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> runs;
  std::string out = "report.html", title, data, tables;
  std::int64_t gallery = 24;
  double picture_mb = 3.0;
};

/// Finds a test row's picture through the run's suite. Suites and tasks are read when they are first asked
/// for; what cannot be read is said once, and the page then shows the text alone.
class Pictures {
 public:
  explicit Pictures(fs::path data) : data_(std::move(data)) {}

  std::string jpeg(const ComparedRun& run, const std::string& task, const std::string& id) {
    constexpr int kLongest = 224, kQuality = 82;
    try {
      const Suite* const suite = suite_of(run);
      if (suite == nullptr) return {};
      const auto& rows = rows_of(*suite, task);
      const auto found = rows.find(id);
      if (found == rows.end() || found->second.empty()) return {};
      return encode_jpeg(thumbnail(read_image(suite->data / suite->image_root / found->second), kLongest),
                         kQuality);
    } catch (const Error& e) {
      say(e.what());
      return {};
    }
  }

 private:
  using Rows = std::map<std::string, std::string>;  ///< id -> picture

  /// @return null when it cannot be had
  const Suite* suite_of(const ComparedRun& run) {
    const Config config = Config::parse(run.result.provenance.config, run.path + ": provenance");
    const std::string name = config.text("suite", run.result.suite);
    const fs::path data = data_.empty() ? config.path("data", "") : data_;
    const auto [known, fresh] = suites_.try_emplace({name, data});
    if (fresh) known->second = std::make_unique<Suite>(open_suite(name, {}, data));
    return known->second.get();
  }

  const Rows& rows_of(const Suite& suite, const std::string& task) {
    const auto [known, fresh] = rows_.try_emplace({&suite, task});
    if (!fresh) return known->second;
    for (const SuiteTask& one : suite.tasks) {
      if (one.name != task) continue;
      if (suite.kind == "classify")
        for (const ClassRecord& record : read_class_task(suite, one).test)
          known->second[record.id] = record.image;
      else
        for (const Record& record : read_records(suite.data / one.test, RecordKind::test))
          known->second[record.id] = record.image;
    }
    return known->second;
  }

  void say(const std::string& what) {
    if (said_.insert(what).second && said_.size() <= 3) log::warn("no picture: ", what);
  }

  fs::path data_;
  std::map<std::pair<std::string, fs::path>, std::unique_ptr<Suite>> suites_;  ///< by name and data folder
  std::map<std::pair<const Suite*, std::string>, Rows> rows_;
  std::set<std::string> said_;
};

void write_tables(const fs::path& folder, const std::vector<ComparedRun>& runs) {
  const std::vector<Comparison> comparisons = compare_runs(runs);
  write_atomic(folder / "comparison.md", comparison_markdown(comparisons));
  write_atomic(folder / "comparison.csv", comparison_csv(comparisons));
  write_json(folder / "comparison.json", comparison_json(comparisons));
  write_atomic(folder / "comparison.tex", blocks_latex(comparison_blocks(comparisons)));
}

void run_report(const Options& options) {
  std::vector<ComparedRun> runs;
  for (const std::string& path : options.runs) runs.push_back({path, read_result(path)});
  Pictures pictures(options.data.empty() ? fs::path() : fs::absolute(options.data));
  ReportOptions page{.title = options.title,
                     .gallery = options.gallery,
                     .picture_bytes = static_cast<std::uint64_t>(options.picture_mb * 1e6),
                     .picture = [&](const ComparedRun& run, const std::string& task, const std::string& id) {
                       return pictures.jpeg(run, task, id);
                     }};
  const std::string html = report_page(runs, page);
  if (options.out == "-")
    std::cout << html;
  else
    write_atomic(options.out, html);
  if (!options.tables.empty()) write_tables(options.tables, runs);
  if (options.out != "-")
    log::info("wrote ", options.out, " (", (html.size() + 1023) / 1024, " KiB): open it in a browser");
}

}  // namespace

void add_report(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("report", "Runs as one page: matrices, curves, costs, examples");
  command
      ->add_option("RUN", options->runs,
                   "Run folders or result.json files; seeds of one strategy are averaged")
      ->required()
      ->type_name("");
  command->add_option("-o,--out", options->out, "The page; - for the standard output [report.html]")
      ->type_name("FILE");
  command->add_option("--title", options->title, "Title of the page [the suites' names]")->type_name("TEXT");
  command
      ->add_option("--gallery", options->gallery,
                   "Examples that were right and became wrong, for each stream [24]")
      ->type_name("N")
      ->check(CLI::Range(0, 500));
  command
      ->add_option("--picture-mb", options->picture_mb,
                   "Most that all pictures of the page may take; 0: none [3]")
      ->type_name("MB")
      ->check(CLI::Range(0.0, 100.0));
  command
      ->add_option("--data", options->data, "Folder that the suite's pictures start from [that of the run]")
      ->type_name("DIR");
  command
      ->add_option("--tables", options->tables, "Also the tables, as Markdown, CSV and JSON in this folder")
      ->type_name("DIR");
  command->footer(
      "The page needs no network, no other file and no script to be read. Runs of different suites or task "
      "orders\n"
      "get sections of their own.\n"
      "Example:\n"
      "  mcit report runs/demo/* -o demo.html --tables tables");
  command->callback([options] { run_report(*options); });
}

}  // namespace mcit
