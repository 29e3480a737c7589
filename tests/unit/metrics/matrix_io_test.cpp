#include "metrics/matrix_io.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <nlohmann/json.hpp>

#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;

using Cell = AccuracyMatrix::Cell;
const Cell kNone;

AccuracyMatrix text(std::string_view bytes) { return matrix_from_text(bytes, "m.txt"); }

TEST_CASE("a lower triangle as papers print it") {
  const AccuracyMatrix m = text("90.97\n90.38 92.60\n73.90 86.33 59.54\n");
  REQUIRE(m.tasks() == 3);
  CHECK(m.stages() == 3);
  CHECK(m.names() == std::vector<std::string>{"task 1", "task 2", "task 3"});
  CHECK(m.at(0, 0) == kNone);
  CHECK(m.at(1, 0) == 90.97);
  CHECK(m.at(1, 1) == kNone);
  CHECK(m.at(3, 2) == 59.54);
}

TEST_CASE("the same matrix in every dress") {
  const AccuracyMatrix plain = text("a b\n50 -\n40 60\n");
  CHECK(plain.names() == std::vector<std::string>{"a", "b"});
  CHECK(plain.at(1, 1) == kNone);
  CHECK(text("a,b\n50,\n40,60\n") == plain);
  CHECK(text("a;b\n50\n40;60\n") == plain);
  CHECK(text("a\tb\r\n50\t-\r\n40\t60\r\n") == plain);
  CHECK(text("\xef\xbb\xbf"
             "a, b\n50.0 %, nan\n+40, 60%\n\n# from table 3\n") == plain);
  CHECK(text("| after | a | b |\n|---|---:|---:|\n| a | 50 | – |\n| b | 40 | **60** |\n") == plain);
  CHECK(text("stage,a,b\n1,50,\n2,40,60\n") == plain);
  CHECK(text(",a,b\nfirst,50,\nsecond,40,60\n") == plain);
  CHECK(matrix_from_json(parse_json("{\"tasks\": [\"a\", \"b\"], \"matrix\": [[50, null], [40, 60]]}", "m"),
                         "m") == plain);
  CHECK(matrix_from_json(
            parse_json("{\"tasks\": [{\"name\": \"a\"}, {\"name\": \"b\"}], \"matrix\": [[50], [40, 60]]}",
                       "m"),
            "m") == plain);
  CHECK(text("-5 1\n\u22125 2\n").at(2, 0) == -5.0);  // a typographic minus
}

TEST_CASE("the untrained base is the first row when there is one row more, or when it is named") {
  const AccuracyMatrix more = text("10 20\n50 25\n40 60\n");
  CHECK(more.at(0, 1) == 20.0);
  CHECK(more.at(2, 1) == 60.0);
  CHECK(text("zero-shot 10 20\none 50 25\ntwo 40 60\n").at(0, 0) == 10.0);
  const AccuracyMatrix early = text("stage a b\nbase 10 20\n1 50 25\n");  // a stream that is still on its way
  CHECK(early.at(0, 0) == 10.0);
  CHECK(early.at(1, 1) == 25.0);
  CHECK(early.at(2, 0) == kNone);
  CHECK(matrix_from_json(parse_json("[[1, 2], [3, 4], [5, 6]]", "m"), "m").at(0, 1) == 2.0);
}

TEST_CASE("a column of zeros is no column of names") {
  const AccuracyMatrix m = text("0 50\n0 60\n");
  CHECK(m.tasks() == 2);
  CHECK(m.at(2, 1) == 60.0);
}

TEST_CASE("a single row is the first stage") {
  const AccuracyMatrix m = text("91.67 90.83 57.87\n");
  CHECK(m.tasks() == 3);
  CHECK(m.at(1, 2) == 57.87);
}

TEST_CASE("what is no matrix is told with its line") {
  CHECK_THROWS_MATCHES(text(""), DataError, Message("m.txt: there is no row of numbers in it"));
  CHECK_THROWS_MATCHES(text("a b\n"), DataError, Message("m.txt: there is a header but no row of numbers"));
  CHECK_THROWS_MATCHES(text("1 2\n3 4x\n"), DataError, Message("m.txt:2: '4x' is not a number"));
  CHECK_THROWS_MATCHES(text("a b\n1 2\n3 4 5\n"), DataError, Message("m.txt:3: 3 cells under 2 names"));
  CHECK_THROWS_MATCHES(text("1 2\n3 4\n5 6\n7 8\n"), DataError,
                       MessageMatches(ContainsSubstring("4 rows for 2 tasks")));
  CHECK_THROWS_MATCHES(text("1 inf\n3 4\n"), DataError,
                       MessageMatches(ContainsSubstring("'inf' is not a number")));
  CHECK_THROWS_MATCHES(text("stage\n0:base\n"), DataError, MessageMatches(ContainsSubstring("m.txt")));
  CHECK_THROWS_MATCHES(text(std::string(4000, ',')), DataError,
                       MessageMatches(ContainsSubstring("4001 tasks")));
  const auto json = [](const char* bytes) { return matrix_from_json(parse_json(bytes, "m"), "m.json"); };
  CHECK_THROWS_MATCHES(json("{}"), DataError, Message("m.json: 'matrix' is missing"));
  CHECK_THROWS_MATCHES(json("[]"), DataError, MessageMatches(ContainsSubstring("expected an array of rows")));
  CHECK_THROWS_MATCHES(json("[[1], [2, \"x\"]]"), DataError,
                       Message("m.json: row 2: expected a number or null, found \"x\""));
  CHECK_THROWS_MATCHES(json("[[1], 2]"), DataError, Message("m.json: row 2: expected an array of numbers"));
  CHECK_THROWS_MATCHES(json("{\"tasks\": [\"a\"], \"matrix\": [[1, 2]]}"), DataError,
                       MessageMatches(ContainsSubstring("rows of 2 cells for 1 tasks")));
  CHECK_THROWS_MATCHES(json("{\"tasks\": [\"a\"], \"stages\": [{\"tasks\": [1]}], \"matrix\": [[1], [2]]}"),
                       DataError, MessageMatches(ContainsSubstring("stage 1 trains 1, which is no task")));
  CHECK_THROWS_MATCHES(json("{\"tasks\": [\"a\"], \"stages\": [], \"matrix\": [[1], [2]]}"), DataError,
                       MessageMatches(ContainsSubstring("2 rows for 0 stages and the base")));
}

TEST_CASE("matrix.csv reads back as it was, missing cells and odd names included") {
  AccuracyMatrix m({"vqa", "a, \"b\"", "c"});
  m.set(0, 0, 1.0 / 3.0);
  m.set(1, 0, 100.0);
  m.set(3, 2, 1e-9);
  CHECK(matrix_from_text(matrix_to_csv(m), "m") == m);
  CHECK(matrix_to_csv(m) ==
        "stage,vqa,\"a, \"\"b\"\"\",c\n0:base,0.3333333333333333,,\n1:vqa,100,,\n\"2:a, "
        "\"\"b\"\"\",,,\n3:c,,,1e-09\n");
  AccuracyMatrix joint({"a", "b"}, 1, {1, 1});
  joint.set(1, 1, 50.0);
  CHECK(matrix_from_text(matrix_to_csv(joint, {"joint"}), "m") == joint);
  AccuracyMatrix swapped({"a", "b", "c"}, 2, {2, 1, 0});  // trained in another order, one task never
  swapped.set(2, 0, 5.0);
  CHECK(matrix_from_text(matrix_to_csv(swapped, {"b", "a"}), "m") == swapped);
}

TEST_CASE("files are told apart by content") {
  const test::TemporaryFolder folder;
  test::write(folder / "a", "  \n[[50], [40, 60]]\n");
  test::write(folder / "b", "50\n40 60\n");
  CHECK(read_matrix(folder / "a") == read_matrix(folder / "b"));
  CHECK_THROWS_AS(read_matrix(folder / "c"), DataError);
  CHECK_THROWS_MATCHES(read_matrix(folder.path()), DataError,
                       MessageMatches(ContainsSubstring("result.json")));
}

TEST_CASE("single-task scores are one row, or the diagonal of a run") {
  const test::TemporaryFolder folder;
  test::write(folder / "row", "91.67 90.83 57.87\n");
  test::write(folder / "square", "1 2 3\n4 5 6\n7 8 9\n");
  CHECK(read_scores(folder / "row", 3) == std::vector<std::optional<double>>{91.67, 90.83, 57.87});
  CHECK(read_scores(folder / "square", 3) == std::vector<std::optional<double>>{1.0, 5.0, 9.0});
  CHECK_THROWS_MATCHES(read_scores(folder / "row", 4), DataError,
                       MessageMatches(ContainsSubstring("has scores of 3 tasks, 4 are needed")));
}

}  // namespace
}  // namespace mcit
