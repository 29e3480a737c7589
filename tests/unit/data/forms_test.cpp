// The forms of rows that published benchmarks have, and rows one at a time.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <ctime>
#include <nlohmann/json.hpp>

#include "core/json_rows.hpp"
#include "core/random.hpp"
#include "data/records.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

namespace mcit::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;
using Texts = std::vector<std::string>;
using Turns = std::vector<std::pair<std::string, std::string>>;

std::vector<Record> parse(RecordKind kind, const RecordForm& form, const std::string& text,
                          const std::string& name = "rows.json") {
  const TemporaryFolder folder;
  write(folder / name, text);
  return read_records(folder / name, kind, form);
}

/// What the first faulty row of this text is told to be.
std::string fault(const RecordForm& form, const std::string& row) {
  const TemporaryFolder folder;
  write(folder / "rows.json", "[" + row + "]");
  try {
    read_records(folder / "rows.json", RecordKind::test, form);
  } catch (const DataError& e) {
    const std::string what = e.what(), before = (folder / "rows.json").string() + ": row 1: ";
    return what.starts_with(before) ? what.substr(before.size()) : what;
  }
  return "no error";
}

TEST_CASE("TRACE's rows have a prompt and an answer, and are called by their number") {
  // The form that TRACE's README shows.
  const std::string text = R"([{"prompt": " Is it? ", "answer": "A"}, {"prompt": "And?", "answer": 12}])";
  const auto train = parse(RecordKind::train, {.name = "prompt_answer"}, text);
  REQUIRE(train.size() == 2);
  CHECK(train[0].id == "1");
  CHECK(train[0].turns == Turns{{"Is it?", "A"}});
  CHECK(train[1].id == "2");
  CHECK(train[1].turns == Turns{{"And?", "12"}});
  const auto test = parse(RecordKind::test, {.name = "prompt_answer"}, text);
  CHECK(test[0].turns == Turns{{"Is it?", ""}});
  CHECK(test[0].golds == Texts{"A"});
  CHECK(test[1].golds == Texts{"12"});
  CHECK_THROWS_MATCHES(
      parse(RecordKind::train, {.name = "prompt_answer"}, R"([{"prompt": "q", "answer": " "}])"), DataError,
      MessageMatches(ContainsSubstring("row 1: answer: is empty")));
}

TEST_CASE("InternVL's lines are questions, choices and boxes") {
  // The keys that D-MoLE's evaluation reads (eval/vqa, eval/refcoco).
  const auto asked = parse(RecordKind::test, {.name = "question_answer"},
                           "{\"image\": \"a.jpg\", \"question\": \"What?\", \"question_id\": 3, \"answer\": "
                           "\"x\"}\n\n{\"question\": \"Who?\", \"question_id\": \"b\", \"answer\": [\"y\", "
                           "\"z\"]}\n",
                           "rows.jsonl");
  REQUIRE(asked.size() == 2);
  CHECK(asked[0].id == "3");
  CHECK(asked[0].image == "a.jpg");
  CHECK(asked[0].golds == Texts{"x"});
  CHECK(asked[1].golds == Texts{"y", "z"});
  CHECK(asked[1].row == 3);  // the line

  const auto chosen =
      parse(RecordKind::test, {.name = "choices", .ends = {{{}, "\nThe letter."}}},
            R"([{"image": "a.png", "question": "What?", "choices": ["red", "blue", 3], "answer": 1}])");
  CHECK(chosen[0].id == "1");
  CHECK(chosen[0].turns == Turns{{"What?\nA. red\nB. blue\nC. 3\nThe letter.", ""}});
  CHECK(chosen[0].golds == Texts{"B"});

  const auto boxed =
      parse(RecordKind::test, {.name = "boxes", .question = "Given {knowledge}. Where is {sent}?"},
            R"([{"image": "a.png", "sent": "Tom", "knowledge": "K", "bbox": [64, 96, 320, 480], "width": 640,
           "height": 480}])");
  CHECK(boxed[0].turns == Turns{{"Given K. Where is Tom?", ""}});
  CHECK(boxed[0].golds == Texts{"[[100, 200, 500, 1000]]"});  // 64/640 and 96/480 in thousandths
}

TEST_CASE("COCO's captions are a row a picture") {
  const std::string text = R"({"images": [{"id": 7, "file_name": "7.jpg"}, {"id": 2, "image": "2.jpg"}],
    "annotations": [{"image_id": 2, "caption": "a"}, {"image_id": 7, "caption": "b"},
                    {"image_id": 2, "caption": "c"}]})";
  const auto rows = parse(RecordKind::test, {.name = "captions", .question = "Describe."}, text);
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].id == "7");
  CHECK(rows[0].image == "7.jpg");
  CHECK(rows[0].turns == Turns{{"Describe.", ""}});
  CHECK(rows[0].golds == Texts{"b"});
  CHECK(rows[1].golds == Texts{"a", "c"});
  const RecordForm form{.name = "captions", .question = "Describe."};
  CHECK_THROWS_MATCHES(
      parse(RecordKind::test, form, R"({"images": [{"id": 1, "image": "a"}], "annotations": []})"), DataError,
      MessageMatches(ContainsSubstring("row 1: image 1 has no caption")));
  CHECK_THROWS_MATCHES(parse(RecordKind::test, form, "[]"), DataError,
                       MessageMatches(ContainsSubstring("expected an object")));
}

TEST_CASE("a grounding row's box comes before its answer, and conversations may stand in for text") {
  const auto rows = parse(RecordKind::test, {}, R"([
    {"question_id": 1, "text": "q", "answer": "x", "answer_bbox": "[0.1,0.2,0.3,0.4]", "size": [6, 4]},
    {"question_id": 2, "text": "q", "answer_bbox": [0.1, 0.2, 0.3, 0.4]},
    {"id": 3, "conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]}])");
  REQUIRE(rows.size() == 3);
  CHECK(rows[0].golds == Texts{"[0.1,0.2,0.3,0.4]"});
  CHECK(rows[1].golds == Texts{"[0.1, 0.2, 0.3, 0.4]"});
  CHECK(rows[2].turns == Turns{{"q", ""}});
  CHECK(rows[2].golds == Texts{"a"});
}

TEST_CASE("the answers of people stand in a file of their own") {
  const TemporaryFolder folder;
  write(folder / "test.json", R"([{"question_id": 5, "text": "q"}, {"question_id": "6", "text": "r"}])");
  RecordForm form{.golds = folder / "golds.json"};
  // TextVQA 0.5.1 and VQA v2.
  for (const char* golds : {R"({"data": [{"question_id": 5, "answers": ["a", "b"]},
                                          {"question_id": 6, "answers": ["c"]}]})",
                            R"({"annotations": [{"question_id": 6, "answers": [{"answer": "c"}]},
                                {"question_id": 5, "answers": [{"answer": "a"}, {"answer": "b"}]}]})"}) {
    write(folder / "golds.json", golds);
    const auto rows = read_records(folder / "test.json", RecordKind::test, form);
    CHECK(rows.at(0).golds == Texts{"a", "b"});
    CHECK(rows.at(1).golds == Texts{"c"});
  }
  const auto refused = [&](const std::string& golds, const std::string& what) {
    write(folder / "golds.json", golds);
    CHECK_THROWS_MATCHES(read_records(folder / "test.json", RecordKind::test, form), DataError,
                         MessageMatches(ContainsSubstring(what)));
  };
  refused(R"({"data": [{"question_id": 5, "answers": ["a"]}]})", "row 2: question_id: '6' is not in ");
  refused(R"({"data": [{"question_id": 5, "answers": []}]})", "data[0]: answers: the list is empty");
  refused(R"({"data": [4]})", "data[0]: expected an object");
  refused("[]", "expected an object");
}

TEST_CASE("what stands behind a question may depend on the answer") {
  const RecordForm form{.ends = {{{"Yes", "No"}, " Yes or no?"}, {{}, " A letter."}}};
  const auto rows = parse(RecordKind::test, form, R"([{"question_id": 1, "text": "q", "answer": "No"},
                                                      {"question_id": 2, "text": "r", "answer": "B"}])");
  CHECK(rows.at(0).turns == Turns{{"q Yes or no?", ""}});
  CHECK(rows.at(1).turns == Turns{{"r A letter.", ""}});
}

TEST_CASE("a row that has not its form is refused with its key") {
  const RecordForm choices{.name = "choices"}, boxes{.name = "boxes", .question = "{sent}"};
  CHECK(fault(choices, R"({"question": "q", "answer": 0})") == "lacks 'choices'");
  CHECK(fault(choices, R"({"question": "q", "choices": [], "answer": 0})") ==
        "choices: expected an array of 1 to 26 texts");
  CHECK(fault(choices, R"({"question": "q", "choices": ["a"], "answer": 1})") ==
        "answer: expected the index of a choice, from 0");
  CHECK(fault(choices, R"({"question": "q", "choices": ["a"], "answer": -1})") ==
        "answer: expected the index of a choice, from 0");
  CHECK(fault(boxes, R"({"sent": "s", "bbox": [1, 2, 3], "width": 4, "height": 4})") ==
        "bbox: expected four numbers");
  CHECK(fault(boxes, R"({"sent": "s", "bbox": [1, 2, 3, "4"], "width": 4, "height": 4})") ==
        "bbox: expected a number");
  CHECK(fault(boxes, R"({"sent": "s", "bbox": [1, 2, 3, 4], "width": 0, "height": 4})") ==
        "width, height: must be positive");
  CHECK(fault(boxes, R"({"bbox": [1, 2, 3, 4], "width": 4, "height": 4})") == "lacks 'sent'");
  CHECK(fault({.name = "question_answer"}, R"({"question": "q", "answer": "a"})") == "lacks 'question_id'");
  CHECK(fault({}, R"({"question_id": 1, "text": "q", "answer_bbox": [1, 2]})") ==
        "answer_bbox: expected a text or four numbers");
  CHECK(fault({}, R"({"question_id": 1})") == "lacks 'text'");
  CHECK_THROWS_MATCHES(parse(RecordKind::test, {.name = "choises"}, "[]"), ConfigError,
                       Message("record form: unknown form 'choises'; did you mean 'choices'?"));
}

TEST_CASE("a faulty line is a fault of its row, and the others are kept") {
  const TemporaryFolder folder;
  write(folder / "rows.jsonl",
        "{\"prompt\": \"q\", \"answer\": \"a\"}\n{\"prompt\": \n\n{\"prompt\": \"r\"}\n");
  std::vector<std::int64_t> faulty;
  const auto rows = read_records(folder / "rows.jsonl", RecordKind::train, {.name = "prompt_answer"},
                                 [&](std::int64_t row, const std::string&) { faulty.push_back(row); });
  CHECK(rows.size() == 1);
  CHECK(faulty == std::vector<std::int64_t>{2, 4});
}

// ---- rows one at a time -----------------------------------------------------------------------------------

Texts split(const std::string& text) {
  Texts out;
  split_json_array(text, "rows", [&](std::string_view element) { out.emplace_back(element); });
  return out;
}

TEST_CASE("an array is split at its own commas") {
  CHECK(split("[]").empty());
  CHECK(split(" [ ] \n").empty());
  CHECK(split("[1,2]") == Texts{"1", "2"});
  CHECK(split(R"([{"a": "]},[\"\\"}, [1, [2]], "x,y", null])") ==
        Texts{R"({"a": "]},[\"\\"})", "[1, [2]]", "\"x,y\"", "null"});
  for (const char* bad :
       {"", "[", "[1", "[1,]", "[,1]", "[1 2", "{}", "1", "[1] 2", "[1]]", "[}]", "[\"a]"}) {
    INFO(bad);
    CHECK_THROWS_AS(split(bad), DataError);
  }
  const std::string deep = "[" + std::string(70, '[') + std::string(70, ']') + "]";
  CHECK_THROWS_MATCHES(split(deep), DataError, MessageMatches(ContainsSubstring("nested deeper")));
}

TEST_CASE("rows are those of a parser that reads the whole text") {
  Rng rng(3);
  const TemporaryFolder folder;
  for (int round = 0; round < 200; ++round) {
    std::string text = "[";
    static const std::string kParts = "{}[]\",:\\ 1aé\n";
    if (rng.below(2) == 0) {  // a good array
      for (std::uint64_t i = 0; i < rng.below(5); ++i)
        text += std::string(i > 0 ? " , " : "") + R"({"k": ["a\"],[", )" + std::to_string(i) + "]}";
      text += "]";
    } else {
      for (std::uint64_t i = 0; i < rng.below(20); ++i) text += kParts[rng.below(kParts.size())];
    }
    write(folder / "rows.json", text);
    Json rows = Json::array();
    const Json whole = Json::parse(text, nullptr, false);
    INFO(text);
    try {
      const auto count = for_each_json_row(folder / "rows.json",
                                           [&](std::int64_t, const Json& row) { rows.push_back(row); }, {});
      CHECK(rows == whole);
      CHECK(count == std::ssize(rows));
      CHECK(count_json_rows(folder / "rows.json") == count);
    } catch (const DataError&) {
      CHECK((whole.is_discarded() || !whole.is_array()));
    }
  }
}

TEST_CASE("forty thousand rows are read in less than two seconds of one core") {
  // Rows as long as those of UCIT's training files; the bound is that of the user's patience.
  const TemporaryFolder folder;
  const std::string question(220, 'q'), answer(60, 'a');
  std::string text;
  for (int i = 0; i < 40000; ++i)
    text += std::string(i == 0 ? "[" : ",\n") + "{\"id\": \"" + std::to_string(i) +
            "\", \"image\": \"ArxivQA/images/" + std::to_string(i) +
            ".jpg\", \"conversations\": [{\"from\": \"human\", \"value\": \"<image>\\n" + question +
            "\"}, {\"from\": \"gpt\", \"value\": \"" + answer + "\"}]}";
  write(folder / "train.json", text + "]");
  const std::clock_t start = std::clock();
  const std::vector<Record> rows = read_records(folder / "train.json", RecordKind::train);
  const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  CHECK(rows.size() == 40000);
  CHECK(rows.back().turns.front().second == answer);
  INFO(seconds << " s");
  CHECK(seconds < 2.0);
}

}  // namespace
}  // namespace mcit::test
