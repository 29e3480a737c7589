#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "core/console.hpp"
#include "core/json.hpp"
#include "core/progress.hpp"
#include "core/text.hpp"
#include "report/table.hpp"
#include "score/score_files.hpp"

namespace mcit {
namespace {

struct Options {
  ScoreRequest request;
  bool json = false, list = false;
};

std::string share(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? "–" : fixed(100.0 * static_cast<double>(part) / static_cast<double>(whole), 2);
}

void print_table(const Table& table) {
  constexpr int kUnbroken = 1000;
  std::cout << table.terminal(kUnbroken, console::colours(console::Stream::out));
}

void print_list() {
  Table scorers({{"scorer", false}, {"strict", false}});
  for (const Scorer& scorer : mcit::scorers())
    scorers.row({{std::string(scorer.name)}, {std::string(scorer.summary)}});
  print_table(scorers);
  std::cout << '\n';
  Table rules({{"profile", false}, {"scorer", false}, {"instead of strict's rule", false}, {"as in", false}});
  for (const ProfileRule& rule : profile_rules())
    rules.row({{std::string(rule.profile)},
               {std::string(rule.scorer)},
               {std::string(rule.says)},
               {std::string(rule.source)}});
  print_table(rules);
}

std::string rule_text(const ScoreReport& report) {
  const std::string profile(report.rule.profile);
  return report.rule.as_strict
             ? profile + " has no rule for '" + std::string(report.scorer.name) + "': as strict"
             : profile;
}

void print_faults(const Faults& faults) {
  for (const Fault& fault : faults.all()) {
    std::cout << fault.kind << ": " << fault.count << '\n';
    for (const std::string& where : fault.first) std::cout << "    " << where << '\n';
    if (fault.count > static_cast<std::int64_t>(fault.first.size()))
      std::cout << "    … and " << fault.count - static_cast<std::int64_t>(fault.first.size()) << " more\n";
  }
}

void print_report(const ScoreReport& report) {
  std::cout << "scorer      " << report.scorer.name << ": " << report.rule.says << "\nprofile     "
            << rule_text(report) << "\nscore       " << fixed(report.percent, 2) << " %";
  if (report.rule.corpus == nullptr)
    std::cout << "  (" << shortest(report.sum) << " of " << report.denominator << ")";
  std::cout << "\ngold rows   " << report.golds << "\npredictions " << report.predictions << ", scored "
            << report.scored << "\nMIF         " << share(report.followed, report.scored)
            << " % have the form asked for\n";
  if (report.second) std::cout << report.scorer.second_name << ": " << fixed(*report.second, 2) << " %\n";
  for (const auto& [name, value] : report.parts) std::cout << name << ": " << fixed(value, 2) << '\n';
  for (const auto& [note, count] : report.notes) std::cout << note << ": " << count << '\n';
  if (!report.groups.empty()) {
    Table table({{"group", false}, {"rows", true}, {"score", true}});
    for (const auto& [name, group] : report.groups)
      table.row({{name},
                 {std::to_string(group.rows)},
                 {fixed(100 * group.sum / static_cast<double>(group.rows), 2)}});
    print_table(table);
  }
  print_faults(report.faults);
}

Json report_json(const ScoreReport& report) {
  Json json{{"scorer", report.scorer.name},
            {"profile", report.rule.profile},
            {"as_strict", report.rule.as_strict},
            {"rule", report.rule.says},
            {"score", report.percent},
            {"sum", report.sum},
            {"denominator", report.denominator},
            {"golds", report.golds},
            {"predictions", report.predictions},
            {"scored", report.scored},
            {"mif", report.scored == 0 ? Json(nullptr)
                                       : Json(100.0 * static_cast<double>(report.followed) /
                                              static_cast<double>(report.scored))}};
  if (report.second) json["second"] = {{"name", report.scorer.second_name}, {"percent", *report.second}};
  for (const auto& [name, value] : report.parts) json["parts"][name] = value;
  json["notes"] = report.notes;
  json["groups"] = Json::object();
  for (const auto& [name, group] : report.groups)
    json["groups"][name] = {{"score", 100 * group.sum / static_cast<double>(group.rows)},
                            {"rows", group.rows}};
  json["faults"] = Json::array();
  for (const Fault& fault : report.faults.all())
    json["faults"].push_back({{"kind", fault.kind}, {"count", fault.count}, {"first", fault.first}});
  return json;
}

void run_score(const Options& options) {
  if (options.list) return print_list();
  if (options.request.predictions.empty()) throw CLI::RequiredError("--pred");
  std::uint64_t bytes = 0, told = 0;
  std::error_code ignored;
  for (const auto& file : options.request.predictions)
    if (const auto size = std::filesystem::file_size(file, ignored); !ignored) bytes += size;
  constexpr std::uint64_t kStep = std::uint64_t{1} << 20;
  Progress progress("scoring", static_cast<std::int64_t>(bytes / kStep), "MiB");
  const ScoreReport report = score_files(options.request, [&](std::uint64_t read) {
    if (read < told) told = read;  // a second pass over the same files
    progress.advance(static_cast<std::int64_t>(read / kStep - told / kStep));
    told = read;
  });
  if (options.json)
    std::cout << dump_json(report_json(report), 2) << '\n';
  else
    print_report(report);
}

}  // namespace

void add_score(CLI::App& app) {
  auto options = std::make_shared<Options>();
  ScoreRequest& request = options->request;
  CLI::App* command = app.add_subcommand(
      "score", "Score answers of any project, by strict rules or by those of its own files");
  command
      ->add_option(
          "--gold", request.gold,
          "Test file with the gold answers: JSON array or lines, TextVQA, VQA, GQA, ScienceQA, COCO captions")
      ->type_name("FILE");
  command
      ->add_option(
          "--pred", request.predictions,
          "Answers: lines or an array of {question_id, text}, {questionId, prediction} or {image_id, "
          "caption}; several files are the shards of one. Without --gold they carry their golds, as "
          "RUN/predictions/*.jsonl do")
      ->type_name("FILE");
  command->add_option("--scorer", request.scorer, "What kind of answer it is (--list)")
      ->capture_default_str();
  command
      ->add_option("--profile", request.profile,
                   "strict, or the project whose evaluation files to follow: coin, "
                   "sefe, mcitlib, prism, hide")
      ->capture_default_str();
  command
      ->add_option("--splits", request.split.file,
                   "ScienceQA: pid_splits.json; by default the one beside --gold")
      ->type_name("FILE");
  command->add_option("--split", request.split.name, "ScienceQA: the split that counts")
      ->capture_default_str();
  command->add_flag("--by-position", request.by_position, "Row n answers gold row n, whatever the ids say");
  command->add_option("--rows", request.rows, "Write id, text, golds and score of each row")
      ->type_name("FILE");
  command->add_flag("--json", options->json, "Print everything as JSON");
  command->add_flag("--list", options->list, "Print all scorers and what each profile does differently");
  command->footer(
      "Rows that cannot be scored are counted and named, never dropped in silence.\n\n"
      "Example: answers of CoIN's GQA, first by its own rule, then by ours\n"
      "  mcit score --gold GQA/test.json --pred answers.jsonl --scorer gqa --profile coin\n"
      "  mcit score --gold GQA/test.json --pred answers.jsonl --scorer gqa");
  command->callback([options] { run_score(*options); });
}

}  // namespace mcit
