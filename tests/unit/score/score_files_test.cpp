#include "score/score_files.hpp"

#include <sys/resource.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <fstream>
#include <string>

#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using Catch::Matchers::WithinAbs;
using mcit::score_files;
using mcit::ScoreReport;
using mcit::ScoreRequest;

namespace {

class Files : public mcit::test::TemporaryFolder {
 public:
  std::filesystem::path add(const std::string& name, const std::string& text) const {
    std::ofstream(path() / name) << text;
    return path() / name;
  }
  ScoreReport score(const std::string& gold, const std::string& pred, const std::string& scorer = "exact",
                    const std::string& profile = "strict") const {
    ScoreRequest request;
    request.gold = add("gold.json", gold);
    request.predictions = {add("pred.jsonl", pred)};
    request.scorer = scorer;
    request.profile = profile;
    return score_files(request);
  }
};

std::string first(const ScoreReport& report, std::string_view kind) {
  for (const mcit::Fault& fault : report.faults.all())
    if (fault.kind == kind) return fault.first.front();
  return "none";
}

const std::string kGold = R"([{"question_id": 1, "text": "?", "answer": "red"},
 {"question_id": "2", "text": "?", "answer": "blue"}, {"question_id": 3, "text": "?", "answer": "green"}])";

}  // namespace

TEST_CASE("rows are paired by id as text, in any order", "[score][files]") {
  const Files files;
  const ScoreReport report = files.score(kGold, R"({"question_id": "3", "text": "Green."}
{"question_id": 1, "text": "blue"}

{"question_id": 2, "text": "blue", "metadata": {"text": "red", "id": 9}}
)");
  CHECK_THAT(report.percent, WithinAbs(200.0 / 3.0, 1e-12));
  CHECK(report.denominator == 3);
  CHECK(report.scored == 3);
  CHECK(report.faults.all().empty());
}

TEST_CASE("every faulty row is counted and named", "[score][files]") {
  const Files files;
  const std::string gold = R"([{"question_id": 1, "text": "?", "answer": "red"},
{"question_id": 1, "text": "?", "answer": "blue"},
{"question_id": 2, "text": "?"},
{"question_id": 4, "text": "?", "answer": []},
{"text": "?", "answer": "red"},
7,
{"question_id": 5, "text": "?", "answer": "red"},
{"question_id": 6, "text": "?", "answer": "red"}])";
  const ScoreReport report = files.score(gold, R"({"question_id": 1, "text": "red"}
{"question_id": 1, "text": "red"}
{"question_id": 99, "text": "red"}
not json
{"question_id": 5, "text": "red"
{"question_id": 2, "text": "red"}
{"text": "red"}
{"question_id": 6}
[1, 2]
)");
  CHECK(first(report, "duplicate gold id").ends_with("gold.json:2"));
  CHECK_THAT(first(report, "duplicate prediction"), ContainsSubstring("pred.jsonl:2: '1'"));
  CHECK_THAT(first(report, "unknown id"), ContainsSubstring("pred.jsonl:3: '99'"));
  CHECK(report.faults.count("malformed prediction") == 3);
  CHECK_THAT(first(report, "malformed prediction"), ContainsSubstring("pred.jsonl:4"));
  CHECK(first(report, "prediction without id").ends_with("pred.jsonl:7"));
  CHECK(first(report, "prediction without text").ends_with("pred.jsonl:8"));
  CHECK(report.faults.count("unusable gold row") == 4);
  CHECK_THAT(first(report, "unusable gold row"), ContainsSubstring("gold.json:3: has no gold answer"));
  CHECK(report.faults.count("missing prediction") == 2);  // 5 and 6
  CHECK(report.golds == 8);
  CHECK(report.denominator == 3);  // 1, 5, 6
  CHECK_THAT(report.percent, WithinAbs(100.0 / 3.0, 1e-12));
}

// By the forks' files: CoIN divides ScienceQA by all pids, SEFE by the predictions; a dictionary keeps the
// last of two predictions of one id, a list scores both.
TEST_CASE("profiles differ in what they divide by and in second predictions", "[score][files]") {
  const Files files;
  const std::string gold =
      R"([{"question_id": 1, "text": "?", "answer": "A"}, {"question_id": 2, "text": "?", "answer": "B"},
{"question_id": 3, "text": "?", "answer": "B"}, {"question_id": 4, "text": "?", "answer": "B"}])";
  const std::string pred = R"({"question_id": 1, "text": "B"}
{"question_id": 2, "text": "B"}
{"question_id": 1, "text": "A"})";
  CHECK(files.score(gold, pred, "letter", "coin").percent == 50.0);
  CHECK(files.score(gold, pred, "letter", "sefe").percent == 100.0);
  CHECK(files.score(gold, pred, "letter").percent == 25.0);  // the first of two, all rows
  CHECK_THAT(files.score(gold, pred, "exact", "coin").percent, WithinAbs(200.0 / 3.0, 1e-12));
  const ScoreReport strict = files.score(gold, pred, "first_char", "coin");
  CHECK(strict.rule.as_strict);
}

TEST_CASE("ImageNet of CoIN goes by position", "[score][files]") {
  const Files files;
  const ScoreReport report = files.score(kGold, R"({"question_id": 3, "text": "red"}
{"question_id": 2, "text": ""}
{"question_id": 1, "text": "red"}
{"question_id": 4, "text": "red"})",
                                         "imagenet", "coin");
  CHECK_THAT(report.percent, WithinAbs(200.0 / 3.0, 1e-12));
  CHECK(report.faults.count("prediction behind the last gold row") == 1);
  CHECK(report.faults.count("id is not that of the gold row at its place") == 2);
}

TEST_CASE("published forms of gold files", "[score][files]") {
  const Files files;
  SECTION("TextVQA's annotations") {
    const ScoreReport report = files.score(
        R"({"dataset": "val", "data": [{"question_id": 34602, "answers": ["a","a","a","b","b","b","b","b","b","b"]}]})",
        R"({"question_id": 34602, "text": "A b"})", "vqa_soft");
    CHECK(report.percent == 100.0);
  }
  SECTION("VQA's annotations") {
    const ScoreReport report = files.score(
        R"({"annotations": [{"question_id": 5, "answers": [{"answer": "no"}, {"answer": "yes"}]}]})",
        R"([{"question_id": 5, "text": "Yes"}])", "exact_any");
    CHECK(report.percent == 100.0);
  }
  SECTION("GQA's questions, with rows that are not balanced") {
    const std::string gold =
        R"({"01": {"question": "q", "answer": "left", "isBalanced": true, "types": {"structural": "query"}},
 "02": {"question": "q", "answer": "yes", "isBalanced": false, "types": {"structural": "verify"}},
 "03": {"question": "q", "answer": "yes", "isBalanced": true, "types": {"structural": "verify"}}})";
    const std::string pred =
        R"([{"questionId": "01", "prediction": "left"}, {"questionId": "02", "prediction": "no"}])";
    const ScoreReport report = files.score(gold, pred, "gqa", "coin");
    CHECK(report.denominator == 2);
    CHECK(report.percent == 50.0);
    CHECK(report.groups.at("query").sum == 1.0);
    CHECK(files.score(gold, pred, "gqa", "sefe").percent == 100.0);
    CHECK_THAT(files.score(gold, pred, "gqa").percent, WithinAbs(100.0 / 3.0, 1e-12));
  }
  SECTION("ScienceQA's problems") {
    files.add("pid_splits.json", R"({"test": ["7", "9"], "train": ["8"]})");
    const ScoreReport report = files.score(R"({"7": {"choices": ["x", "y"], "answer": 1, "question": "?"},
"8": {"choices": ["x"], "answer": 0}, "9": {"choices": ["x", "y"], "answer": 0}})",
                                           R"({"question_id": "7", "text": "B"}
{"question_id": "9", "text": "C"})",
                                           "letter", "coin");
    CHECK(report.golds == 2);
    CHECK(report.percent == 50.0);
    CHECK(report.notes.at("letter beyond the options") == 1);
  }
  SECTION("COCO captions, references gathered by picture") {
    const ScoreReport report = files.score(
        R"({"images": [{"id": 1}, {"id": 2}], "annotations": [{"id": 1, "image_id": 1, "caption": "A red bus on the road"},
{"id": 2, "image_id": 2, "caption": "Two dogs in the snow."}, {"id": 3, "image_id": 1, "caption": "A bus that is red"}]})",
        R"([{"image_id": 1, "caption": "a red bus on the road"}, {"image_id": 2, "caption": "two dogs in the snow"}])",
        "caption");
    CHECK(report.golds == 2);
    CHECK(report.scored == 2);
    CHECK_THAT(report.parts.at(0).second, WithinAbs(100.0, 1e-4));  // BLEU-1
  }
  SECTION("rows with conversations, boxes, and rows of a run that carry their golds") {
    CHECK(
        files
            .score(
                R"({"id": 1, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "red"}]}
{"id": 2, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "blue"}]})",
                R"({"question_id": 1, "text": "red"}
{"question_id": 2, "text": "red"})")
            .percent == 50.0);
    CHECK(
        files
            .score(
                R"([{"question_id": 1, "text": "q", "answer": "wrong", "answer_bbox": "[0.1, 0.1, 0.5, 0.5]", "size": [640, 480]}])",
                R"({"question_id": 1, "text": "[0.1, 0.1, 0.5, 0.5]"})", "iou")
            .percent == 100.0);
    ScoreRequest own;
    own.predictions = {
        files.add("00_vqa.jsonl", R"({"question_id":"1","prompt":"p","text":"red","gold":"red","score":0}
{"question_id":"2","prompt":"p","text":"red","gold":"blue","golds":["blue","red"],"score":0}
)")};
    own.scorer = "exact_any";
    CHECK(score_files(own).percent == 100.0);
  }
}

TEST_CASE("NaN boxes are no boxes", "[score][files]") {
  const Files files;
  const std::string gold =
      R"([{"question_id": 1, "text": "q", "answer": "[0, 0, 1, 1]"}, {"question_id": 2, "text": "q", "answer": "[nan, 0, 1, 1]"}])";
  const ScoreReport report = files.score(gold, R"({"question_id": 1, "text": "[nan, nan, nan, nan]"}
{"question_id": 2, "text": "[0, 0, 1, 1]"})",
                                         "iou");
  CHECK(report.percent == 0.0);
  CHECK(report.notes.at("no box") == 1);
  CHECK(report.faults.count("unusable gold row") == 1);
  CHECK(report.denominator == 1);
}

TEST_CASE("files that cannot be read as a whole are errors", "[score][files]") {
  const Files files;
  CHECK_THROWS_AS(files.score("", "{}"), mcit::DataError);
  CHECK_THROWS_AS(files.score("[]", "{}"), mcit::DataError);
  CHECK_THROWS_AS(files.score("{\"a\": 1", "{}"), mcit::DataError);
  CHECK_THROWS_MATCHES(files.score("{\"a\": 1}", "{}"), mcit::DataError,
                       MessageMatches(ContainsSubstring("no form")));
  CHECK_THROWS_AS(files.score(kGold, "{}", "exat"), mcit::ConfigError);
  CHECK_THROWS_AS(files.score(kGold, "{}", "exact", "coinn"), mcit::ConfigError);
  ScoreRequest missing;
  missing.gold = files.path() / "none.json";
  missing.predictions = {files.path() / "none.jsonl"};
  CHECK_THROWS_AS(score_files(missing), mcit::DataError);
}

TEST_CASE("a row is found whatever its brackets and quotes", "[score][files]") {
  const Files files;
  const ScoreReport report = files.score(
      "\xEF\xBB\xBF [ {\"question_id\": 1, \"text\": \"]}\\\"[\", \"answer\": \"}{\\\\\"} "
      ",\n\n{\"question_id\":2,\"answer\":\"x\"} ] ",
      "{\"question_id\": 1, \"text\": \"}{\\\\\"}\n{\"question_id\": 2, \"text\": \"\\u0078\"}");
  CHECK(report.percent == 100.0);
  // A file that ends in the middle: the rows before it count.
  CHECK(files
            .score(R"([{"question_id": 1, "answer": "a"}, {"question_id": 2, "answer": "b")",
                   R"({"question_id": 1, "text": "a"})")
            .percent == 100.0);
}

TEST_CASE("rows are written, and shards are read in order", "[score][files]") {
  const Files files;
  ScoreRequest request;
  request.gold = files.add("gold.json", kGold);
  request.predictions = {files.add("0.jsonl", "{\"question_id\": 1, \"text\": \"red\"}\n"),
                         files.add("1.jsonl", "{\"question_id\": 3, \"text\": \"red\"}")};
  request.rows = files.path() / "rows.jsonl";
  CHECK(score_files(request).scored == 2);
  std::ifstream in(request.rows);
  std::string one, two;
  std::getline(in, one);
  std::getline(in, two);
  CHECK(one == R"({"question_id":"1","text":"red","golds":["red"],"score":1.0})");
  CHECK(two == R"({"question_id":"3","text":"red","golds":["green"],"score":0.0})");
}

TEST_CASE("100,000 predictions take little memory", "[score][files]") {
  const Files files;
  constexpr int kRows = 100000;
  const std::string padding(300, 'x');
  {
    std::ofstream gold(files.path() / "gold.json"), pred(files.path() / "pred.jsonl");
    gold << "[";
    for (int i = 0; i < kRows; ++i) {
      gold << (i > 0 ? ",\n" : "") << R"({"question_id": )" << i << R"(, "text": ")" << padding
           << R"(", "answer": "a)" << i % 7 << "\"}";
      pred << R"({"question_id": )" << kRows - 1 - i << R"(, "prompt": ")" << padding << R"(", "text": "A)"
           << i % 7 << "\"}\n";
    }
    gold << "]";
  }
  const auto peak_kib = [] {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
  };
  ScoreRequest request;
  request.gold = files.path() / "gold.json";
  request.predictions = {files.path() / "pred.jsonl"};
  [[maybe_unused]] const long before = peak_kib();
  const ScoreReport report = score_files(request);
  CHECK(report.scored == kRows);
  // i % 7 == (kRows - 1 - i) % 7 for one residue of seven, by counting
  int right = 0;
  for (int i = 0; i < kRows; ++i) right += i % 7 == (kRows - 1 - i) % 7 ? 1 : 0;
  CHECK_THAT(report.sum, WithinAbs(right, 1e-9));
#ifndef __SANITIZE_ADDRESS__               // which keeps what was freed
  CHECK(peak_kib() - before < 16 * 1024);  // the two files together have 70 MiB
#endif
}
