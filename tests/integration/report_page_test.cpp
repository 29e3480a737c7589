// mcit report on folders that runs left: the page, its pictures, the tables beside it, and what it refuses.

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

/// Says that all answers of a cell are right, or that none is: what a model of a few steps says is chance.
void set_scores(const fs::path& file, double score) {
  std::string lines;
  for (const std::string& line : lines_of(slurp(file))) {
    Json row = Json::parse(line);
    row["score"] = score;
    lines += row.dump() + "\n";
  }
  write(file, lines);
}

/// One short run, in which everything about vqa was forgotten in the second stage.
class Run : public Workplace {
 public:
  Run() {
    succeeded(mcit(small_run(*this, "sequential", *this / "run", 2)));
    set_scores(*this / "run/predictions/01_vqa.jsonl", 1.0);
    set_scores(*this / "run/predictions/02_vqa.jsonl", 0.0);
    set_scores(*this / "run/predictions/03_vqa.jsonl", 0.0);
  }
};

const Run& place() {
  static const Run one;
  return one;
}

TEST_CASE("A run becomes a page with the pictures of what it forgot") {
  const fs::path page = place() / "page.html", tables = place() / "tables";
  const Ended ended = place().mcit({"report", (place() / "run").string(), "-o", page.string(), "--gallery",
                                    "5", "--tables", tables.string()});
  succeeded(ended);
  CHECK(ended.warnings().empty());
  CHECK(ended.out.empty());
  const std::string html = slurp(page);
  CHECK(html.starts_with("<!doctype html>"));
  CHECK(html.find("sequential on small") != std::string::npos);
  CHECK(count(html, "class=\"card\"") == 5);
  CHECK(count(html, "src=\"data:image/jpeg;base64,/9j/") == 5);  // FF D8 FF: the first bytes of a JPEG
  CHECK(count(html, "lost with stage <b>geo</b>") >= 1);
  CHECK(names_in(tables) ==
        std::vector<std::string>{"comparison.csv", "comparison.json", "comparison.md", "comparison.tex"});
  CHECK(Json::parse(slurp(tables / "comparison.json")).at("comparisons").size() == 1);
}

TEST_CASE("Pictures may be left out, and text stands where they cannot be found") {
  const Arguments report = {"report", (place() / "run").string(), "-o", "-", "--gallery", "5"};
  const Ended without = place().mcit(report + Arguments{"--picture-mb", "0"});
  succeeded(without);
  CHECK(count(without.out, "class=\"card\"") == 5);
  CHECK(count(without.out, "data:image/jpeg") == 0);

  const Ended elsewhere = place().mcit(report + Arguments{"--data", (place() / "no such folder").string()});
  succeeded(elsewhere);
  CHECK(count(elsewhere.out, "class=\"card\"") == 5);
  CHECK(count(elsewhere.out, "data:image/jpeg") == 0);
  REQUIRE(elsewhere.warnings().size() == 1);  // once, not for each picture
  CHECK(elsewhere.warnings().front().find("no such folder") != std::string::npos);
}

TEST_CASE("What is no run is one clear error") {
  failed(place().mcit({"report", (place() / "absent").string()}), {"absent"});
  write(place() / "other.json", "{\"tasks\": []}");
  failed(place().mcit({"report", (place() / "other.json").string()}), {"other.json", "schema"});
  CHECK(place().mcit({"report"}).code == 2);
  CHECK(place().mcit({"report", (place() / "run").string(), "--gallery", "-1"}).code == 2);
}

}  // namespace
}  // namespace mcit::test
