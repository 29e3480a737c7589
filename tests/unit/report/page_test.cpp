#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/json.hpp"
#include "core/run_dir.hpp"
#include "report/forgetting.hpp"
#include "report/report_page.hpp"
#include "unit/core/temporary.hpp"
#include "unit/report/page_reader.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using test::read_page;

struct Row {
  std::string id, text;
  double score;
  bool well_formed = true;
  std::string prompt = "<image> which one ?", gold = "g";
};

void write_rows(const std::filesystem::path& run, std::int64_t stage, const std::string& task,
                const std::vector<Row>& rows) {
  std::string lines;
  for (const Row& row : rows)
    lines += dump_json({{"question_id", row.id},
                        {"prompt", row.prompt},
                        {"text", row.text},
                        {"gold", row.gold},
                        {"score", row.score},
                        {"well_formed", row.well_formed}}) +
             "\n";
  write_atomic(predictions_file(run, stage, task), lines);
}

/// A finished run over two tasks, whose folder `run` need not exist.
ComparedRun finished(const std::filesystem::path& run, const std::string& strategy, std::uint64_t seed = 1,
                     const std::vector<std::string>& tasks = {"a", "b"}, const std::string& suite = "two") {
  RunResult result = make_result(suite, strategy, seed, {{tasks[0], 4, 10.0}, {tasks[1], 4, 25.0}},
                                 {{tasks[0], {0}}, {tasks[1], {1}}});
  result.matrix.set_row(0, {10.0, 20.0});
  result.matrix.set_row(1, {60.0, 22.0});
  result.matrix.set_row(2, {40.0, 56.0});
  result.complete = true;
  result.stages[0].cost = {1500000, 2000000, 10, 100, 4000, 5.0, 1.0, 100.0};
  result.stages[1].cost = {1500000, 2500000, 10, 100, 4000, 5.0, 1.0, 120.0};
  result.provenance.config = "seed = " + std::to_string(seed);
  return {run.string(), std::move(result)};
}

TEST_CASE("a row that was right when learned is kept, out of form, or lost") {
  const test::TemporaryFolder folder;
  const ComparedRun run = finished(folder / "run", "s");
  write_rows(folder / "run", 1, "a",
             {{"1", "g", 1}, {"2", "g", 1}, {"3", "g", 0.5}, {"4", "x", 0.49}, {"1", "x", 0}});
  write_rows(folder / "run", 2, "a",
             {{"4", "g", 1}, {"3", "?!", 0, false}, {"2", "x", 0}, {"1", "g", 1}, {"new", "x", 0}});
  write_rows(folder / "run", 2, "b", {{"1", "g", 1}});
  int files = 0;
  const RunFates fates = read_fates(run.result, folder / "run", [&] { ++files; });
  CHECK(files == 1);  // task b has no stage after its own
  REQUIRE(fates.tasks.size() == 2);
  CHECK_FALSE(fates.tasks[0].stages[0].has_value());
  const FateCount learned = fates.tasks[0].stages[1].value(), last = fates.tasks[0].stages[2].value();
  CHECK(learned.rows == 4);
  CHECK(learned.learned == 3);  // a score of one half is right
  CHECK(last.learned == 3);
  CHECK(last.kept() == 1);
  CHECK(last.knowledge_loss == 1);
  CHECK(last.format_drift == 1);
  CHECK(fates.repeated == 1);
  REQUIRE(fates.tasks[0].flips.size() == 2);
  CHECK(fates.tasks[0].flips[0].id == "2");
  CHECK(fates.tasks[0].flips[0].fate == Fate::knowledge_loss);
  CHECK(fates.tasks[0].flips[1].stage == 2);
  CHECK_FALSE(fates.empty());
  CHECK(read_fates(run.result, folder / "nothing").empty());
}

TEST_CASE("lines that are no predictions are counted and named") {
  const test::TemporaryFolder folder;
  const auto file = folder / "p.jsonl";
  test::write(file,
              "{\"question_id\": 7, \"score\": 1, \"text\": 3}\nnonsense\n\n[1]\n{\"score\": 1}\n"
              "{\"question_id\": \"x\"}\n{\"question_id\": \"x\", \"score\": 7}\n{\"question_id\": \"x\", "
              "\"score\": null}\n" +
                  std::string(100, '[') + "\n{\"question_id\": \"last\", \"score\": 0}");
  std::vector<std::string> ids;
  const AnswerFaults faults = read_answers(file, [&](Answer&& a) { ids.push_back(a.id + a.text); });
  CHECK(ids == std::vector<std::string>{"73", "last"});
  CHECK(faults.lines == 7);
  CHECK_THAT(faults.first, ContainsSubstring("p.jsonl:2"));
  CHECK(read_answers(folder / "absent", [](Answer&&) { FAIL(); }).lines == 0);
}

TEST_CASE("the page shows every section that the runs have something for") {
  const test::TemporaryFolder folder;
  std::vector<ComparedRun> runs = {finished(folder / "r1", "first", 1), finished(folder / "r2", "first", 2),
                                   finished(folder / "r3", "second", 1)};
  runs[1].result.matrix.set(2, 0, 50.0);
  for (const char* run : {"r1", "r3"}) {
    write_rows(folder / run, 1, "a", {{"1", "g", 1}, {"2", "g", 1}});
    write_rows(folder / run, 2, "a", {{"1", "g", 1}, {"2", "wrong", 0}});
  }
  ResultTable table{{"m.x", "m.y"}, {"1", "2"}, {{0, 50}, {100, 25}}, false};
  runs[2].result.stages[1].tables["experts"] = table;
  const auto picture = [](const ComparedRun&, const std::string& task, const std::string& id) {
    return task == "a" && id == "2" ? std::string("JPEG") : std::string();
  };
  const std::string html = report_page(runs, {.title = "", .picture = picture});
  const auto page = read_page(html);
  for (const char* section :
       {"scores", "matrices", "metrics", "curves", "drift", "costs", "routing", "gallery", "provenance"})
    CHECK_THAT(html, ContainsSubstring("<section id=\"s1-" + std::string(section) + "\""));
  CHECK(page.elements.at("article") == 1);
  CHECK(page.elements.at("h1") == 1);
  CHECK_THAT(html, ContainsSubstring("2 strategies on two"));
  CHECK_THAT(
      html, ContainsSubstring("48.00 ± 0.00") || ContainsSubstring("50.50 ± 3.54"));  // 48 and 53: mean, 5/√2
  CHECK_THAT(html, ContainsSubstring("src=\"data:image/jpeg;base64,SlBFRw==\""));
  CHECK(page.elements.at("img") == 2);  // one row of each strategy turned
  CHECK_THAT(html, ContainsSubstring("lost with stage <b>b</b>"));
  for (const auto& [name, value] : page.attributes)  // nothing is loaded
    if (name == "src" || name == "href")
      CHECK((value.starts_with("#") || value.starts_with("data:image/jpeg;base64,")));
}

TEST_CASE("the same runs give the same bytes, and a run alone needs no predictions") {
  const std::vector<ComparedRun> runs = {finished("nowhere/run", "only")};
  const std::string html = report_page(runs, {});
  CHECK(html == report_page(runs, {}));
  read_page(html);
  CHECK(html.find("id=\"s1-gallery\"") == std::string::npos);
  CHECK(html.find("id=\"s1-drift\"") == std::string::npos);
  CHECK_THAT(html, ContainsSubstring("only on two"));
}

/// What the page's script draws.
Json data_of(const std::string& html) {
  const std::string mark = "<script type=\"application/json\" id=\"data\">";
  const std::size_t at = html.find(mark) + mark.size();
  return Json::parse(html.substr(at, html.find("</script>", at) - at));
}

TEST_CASE("joint training is a level among the curves, a task trained alone a point") {
  RunResult joint = make_result("two", "joint", 1, {{"a", 4, 10.0}, {"b", 4, 25.0}}, {{"joint", {0, 1}}});
  joint.matrix.set_row(0, {10.0, 20.0});
  joint.matrix.set_row(1, {70.0, 80.0});
  joint.complete = true;
  const std::vector<ComparedRun> runs = {
      finished("nowhere/s", "sequential"), finished("nowhere/single", "single"), {"nowhere/joint", joint}};
  const std::string html = report_page(runs, {});
  read_page(html);
  const Json charts = data_of(html).at("charts");
  REQUIRE(charts.size() == 3);
  CHECK(charts[0].at("lines").size() == 1);  // the mean over learned tasks is that of the stream alone
  CHECK(charts[0].at("lines")[0].at("values") == Json({nullptr, 60.0, 48.0}));
  const Json& of_a = charts[1];
  CHECK(of_a.at("mark") == 1);
  CHECK(of_a.at("level") == 10.0);
  CHECK(of_a.at("x") == Json({"base", "a", "b"}));
  CHECK(of_a.at("lines")[0].at("values") == Json({10.0, 60.0, 40.0}));
  CHECK(of_a.at("lines")[1].at("values") == Json({nullptr, 60.0, nullptr}));
  CHECK(of_a.at("lines")[2].at("values") == Json({70.0, 70.0, 70.0}));
  CHECK(of_a.at("lines")[2].at("colour") == -1);  // bounds are grey
}

TEST_CASE("pictures and examples are bounded") {
  const test::TemporaryFolder folder;
  const std::vector<ComparedRun> runs = {finished(folder / "run", "s")};
  std::vector<Row> right, wrong;
  for (int i = 0; i < 50; ++i) {
    right.push_back({std::to_string(i), "g", 1});
    wrong.push_back({std::to_string(i), "x", 0});
  }
  write_rows(folder / "run", 1, "a", right);
  write_rows(folder / "run", 2, "a", wrong);
  const auto kilobyte = [](const ComparedRun&, const std::string&, const std::string&) {
    return std::string(1000, 'j');
  };
  const auto page =
      read_page(report_page(runs, {.title = "t", .gallery = 10, .picture_bytes = 3500, .picture = kilobyte}));
  const auto is_card = [](const auto& a) { return a.first == "class" && a.second == "card"; };
  CHECK(std::count_if(page.attributes.begin(), page.attributes.end(), is_card) == 10);
  CHECK(page.elements.at("img") == 3);
  CHECK_THAT(report_page(runs, {.title = "t", .gallery = 0, .picture = {}}),
             !ContainsSubstring("id=\"s1-gallery\""));
}

/// Everything that a run may hold is hostile.
TEST_CASE("nothing that a run holds becomes markup") {
  const test::TemporaryFolder folder;
  const std::vector<std::string> evils = {"</script><script>alert(1)</script>",
                                          "\"><img src=x onerror=alert(1)>",
                                          "' onmouseover='alert(1)",
                                          "<!--",
                                          "]]><svg onload=alert(1)>",
                                          "</style></title></textarea><iframe src=//evil>",
                                          "\xff\xfe\xc0\xbcscript\xc0\xbe",
                                          std::string("nul\0nul", 7),
                                          "\xe2\x80\xae"
                                          "gnirts",
                                          std::string(200000, 'A') + "<b>"};
  for (const std::string& evil : evils) {
    INFO(evil.substr(0, 60));
    // a task's name is part of a file's
    std::vector<ComparedRun> runs = {
        finished(folder / "run", evil, 1, {evil.substr(0, 100), "b" + evil.substr(0, 100)}, evil)};
    RunResult& r = runs[0].result;
    r.stages[0].tables[evil] = {{evil, evil + "2"}, {evil}, {{1.0}, {2.0}}, false};
    r.stages[1].tables[evil + "lines"] = {{evil}, {evil, "x"}, {{1.0, 2.0}}, true};
    r.stages[1].selector_accuracy = 50.0;
    r.matrix_selector.set(2, 0, 50.0);
    Provenance& p = r.provenance;
    p.command = p.build = p.plugin_file = p.plugin_hash = p.model = p.model_hash = p.device = p.dtype = evil;
    p.started = p.finished = p.hardware.cpu = p.hardware.system = evil;
    p.data[evil] = evil;
    p.config = "label = '''" + std::string(evil.size() < 1000 ? evil : "x") + "'''\n# " + evil;
    write_rows(folder / "run", 1, r.tasks[0].name, {{evil, evil, 1, true, "<image>" + evil, evil}});
    write_rows(folder / "run", 2, r.tasks[0].name, {{evil, evil, 0, false, "<image>" + evil, evil}});
    const std::string html = report_page(runs, {.title = evil, .picture = {}});
    const auto page = read_page(html);
    CHECK(page.elements.at("script") == 3);
    CHECK(page.elements.at("style") == 1);
    for (const char* element : {"img", "iframe", "b1"}) CHECK_FALSE(page.elements.contains(element));
    for (const auto& [name, value] : page.attributes) {
      INFO(name << "=" << value.substr(0, 60));
      CHECK_FALSE(name.starts_with("on"));
      if (name == "href") CHECK(value.starts_with("#"));
    }
    CHECK(test::is_utf8(html));
    CHECK(html.find('\0') == std::string::npos);
    CHECK(html.find("\xe2\x80\xae") == std::string::npos);
    CHECK(html.size() < 600000);  // long texts are cut
    std::filesystem::remove_all(folder / "run");
  }
}

}  // namespace
}  // namespace mcit
