// Rows of CoIN-format files, and the order in which rows form batches.
#include "data/records.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <map>
#include <numeric>
#include <set>

#include "core/random.hpp"
#include "data/loader.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

namespace mcit::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;
using Turns = std::vector<std::pair<std::string, std::string>>;
using Texts = std::vector<std::string>;
using Rows = std::vector<std::int64_t>;

std::vector<Record> parse(RecordKind kind, const std::string& text) {
  const TemporaryFolder folder;
  write(folder / "rows.json", text);
  return read_records(folder / "rows.json", kind);
}

TEST_CASE("a training array of CoIN gives its turns, with the image mark taken out") {
  // The shape of CoIN's ScienceQA and VQAv2 instruction files.
  const auto records = parse(RecordKind::train, R"([
    {"id": "a/1", "image": "COCO/1.jpg", "conversations": [
      {"from": "human", "value": "<image>\nWhat is it?\nAnswer in one word."},
      {"from": "gpt", "value": "cat "},
      {"from": "human", "value": "And its colour?"}, {"from": "gpt", "value": "black"}]},
    {"question_id": 17, "conversations": [
      {"from": "human", "value": "Sum?\n<image>"}, {"from": "gpt", "value": 4}]},
    {"id": 18, "question_id": 5, "image": null, "model": "x", "conversations": [
      {"from": "human", "value": ""}, {"from": "gpt", "value": "2.5"}]}])");
  REQUIRE(records.size() == 3);
  CHECK(records[0].id == "a/1");
  CHECK(records[0].image == "COCO/1.jpg");
  CHECK(records[0].turns == Turns{{"What is it?\nAnswer in one word.", "cat"}, {"And its colour?", "black"}});
  CHECK(records[0].golds.empty());
  CHECK(records[1].id == "17");
  CHECK(records[1].image.empty());
  CHECK(records[1].turns == Turns{{"Sum?", "4"}});
  CHECK(records[2].id == "18");  // a training row is called by its id
  CHECK(records[2].image.empty());
  CHECK(records[2].turns == Turns{{"", "2.5"}});
}

TEST_CASE("a test array of CoIN gives one unanswered turn and the accepted answers") {
  const auto records = parse(RecordKind::test, R"([
    {"question_id": 0, "id": 9, "image": "a.png", "text": "<image>\nHow many?", "answer": 3},
    {"id": "t", "text": "Which?", "answer": ["yes", 1, 2.5, "Yes"]},
    {"question_id": "q-3", "text": " Where? ", "answer": "  "}])");
  REQUIRE(records.size() == 3);
  CHECK(records[0].id == "0");  // a test row is called by its question_id
  CHECK(records[0].image == "a.png");
  CHECK(records[0].turns == Turns{{"How many?", ""}});
  CHECK(records[0].golds == Texts{"3"});
  CHECK(records[1].id == "t");
  CHECK(records[1].golds == Texts{"yes", "1", "2.5", "Yes"});
  CHECK(records[2].turns == Turns{{"Where?", ""}});
}

TEST_CASE("a numeric id keeps all its digits") {
  const auto records = parse(RecordKind::test, R"([
    {"question_id": 262148000, "text": "a", "answer": -7},
    {"question_id": 9223372036854775807, "text": "a", "answer": "b"},
    {"question_id": 18446744073709551615, "text": "a", "answer": "b"}])");
  CHECK(records[0].id == "262148000");
  CHECK(records[0].golds == Texts{"-7"});
  CHECK(records[1].id == "9223372036854775807");
  CHECK(records[2].id == "18446744073709551615");
}

TEST_CASE("a malformed row is refused with file, row and key") {
  const std::string good_train =
      R"({"id": 1, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]})";
  const std::string good_test = R"({"question_id": 1, "text": "q", "answer": "a"})";
  struct Fault {
    RecordKind kind;
    const char *row, *what;
  };
  const Fault faults[] = {
      {RecordKind::train, R"(3)", "expected an object"},
      {RecordKind::train, R"([])", "expected an object"},
      {RecordKind::train, R"({"conversations": []})", "lacks 'id'"},
      {RecordKind::train, R"({"id": true, "conversations": []})", "id: expected a text or a number"},
      {RecordKind::train, R"({"question_id": null, "conversations": []})",
       "question_id: expected a text or a number"},
      {RecordKind::train, R"({"id": 1})", "lacks 'conversations'"},
      {RecordKind::train, R"({"id": 1, "conversations": "q"})", "conversations: expected a non-empty array"},
      {RecordKind::train, R"({"id": 1, "conversations": []})", "conversations: expected a non-empty array"},
      {RecordKind::train, R"({"id": 1, "conversations": [{"from": "human", "value": "q"}]})",
       "conversations: a question has no answer"},
      {RecordKind::train, R"({"id": 1, "conversations": [{"from": "human", "value": "q"}, "a"]})",
       "conversations[1]: expected an object"},
      {RecordKind::train,
       R"({"id": 1, "conversations": [{"from": "gpt", "value": "q"}, {"from": "human", "value": "a"}]})",
       "conversations[0]: from is 'gpt', expected 'human'"},
      {RecordKind::train,
       R"({"id": 1, "conversations": [{"from": "human", "value": "q"}, {"from": "human", "value": "a"}]})",
       "conversations[1]: from is 'human', expected 'gpt'"},
      {RecordKind::train, R"({"id": 1, "conversations": [{"value": "q"}, {"from": "gpt", "value": "a"}]})",
       "lacks 'from'"},
      {RecordKind::train, R"({"id": 1, "conversations": [{"from": "human"}, {"from": "gpt", "value": "a"}]})",
       "lacks 'value'"},
      {RecordKind::train,
       R"({"id": 1, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": ["a"]}]})",
       "value: expected a text or a number"},
      {RecordKind::train,
       R"({"id": 1, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": " \n"}]})",
       "conversations[1]: the answer is empty"},
      {RecordKind::train,
       R"({"id": 1, "image": 5, "conversations": [{"from": "human", "value": 1}, {"from": "gpt",
           "value": 2}]})",
       "image: expected a text"},
      {RecordKind::test, R"({"text": "q", "answer": "a"})", "lacks 'question_id'"},
      {RecordKind::test, R"({"question_id": {}, "text": "q", "answer": "a"})",
       "question_id: expected a text or a number"},
      {RecordKind::test, R"({"question_id": 1, "answer": "a"})", "lacks 'text'"},
      {RecordKind::test, R"({"question_id": 1, "text": null, "answer": "a"})",
       "text: expected a text or a number"},
      {RecordKind::test, R"({"question_id": 1, "text": "q"})", "lacks 'answer'"},
      {RecordKind::test, R"({"question_id": 1, "text": "q", "answer": []})", "answer: the list is empty"},
      {RecordKind::test, R"({"question_id": 1, "text": "q", "answer": [["a"]]})",
       "answer: expected a text or a number"},
      {RecordKind::test, R"({"question_id": 1, "text": "q", "answer": false})",
       "answer: expected a text or a number"},
      {RecordKind::test, R"({"question_id": 1, "text": "q", "answer": "a", "image": ["x.png"]})",
       "image: expected a text"},
  };
  const TemporaryFolder folder;
  const auto file = folder / "rows.json";
  for (const Fault& fault : faults) {
    INFO(fault.row);
    const std::string& good = fault.kind == RecordKind::train ? good_train : good_test;
    write(file, "[" + good + ", " + fault.row + "]");
    CHECK_THROWS_MATCHES(read_records(file, fault.kind), DataError,
                         Message(file.string() + ": row 2: " + fault.what));
  }
}

TEST_CASE("a file that is no array of rows is refused") {
  const TemporaryFolder folder;
  const auto file = folder / "rows.json";
  const auto refused = [&](const std::string& text, const std::string& what) {
    write(file, text);
    INFO(text);
    CHECK_THROWS_MATCHES(read_records(file, RecordKind::train), DataError,
                         MessageMatches(ContainsSubstring(file.string()) && ContainsSubstring(what)));
  };
  refused("[]", "holds no row");
  refused("{}", "expected a JSON array of rows");
  refused("\"rows\"", "expected a JSON array of rows");
  refused("", "");
  refused("[{\"id\": 1,\n ]", ":2:");  // the line
  refused("[1] []", "");
  CHECK_THROWS_MATCHES(read_records(folder / "none.json", RecordKind::test), DataError,
                       MessageMatches(ContainsSubstring("none.json")));
}

TEST_CASE("a listener hears of every faulty row and the good ones are kept") {
  const TemporaryFolder folder;
  const auto file = folder / "rows.json";
  write(file, R"([7, {"id": 2, "text": "q", "answer": "a"}, {"id": 3, "text": "q"},
                  {"id": 4, "text": "q", "answer": "b"}, {"text": "q", "answer": "b"}])");
  std::vector<std::pair<std::int64_t, std::string>> heard;
  const auto records =
      read_records(file, RecordKind::test, {},
                   [&](std::int64_t row, const std::string& what) { heard.emplace_back(row, what); });
  REQUIRE(records.size() == 2);
  CHECK(records[0].id == "2");
  CHECK(records[1].id == "4");
  CHECK(heard == std::vector<std::pair<std::int64_t, std::string>>{
                     {1, "expected an object"}, {3, "lacks 'answer'"}, {5, "lacks 'question_id'"}});
}

// ---- batches
// -----------------------------------------------------------------------------------------------

/// Lengths between 5 and 64 in no order.
Rows lengths_of(std::size_t count) {
  Rows out(count);
  Rng rng(11);
  for (std::int64_t& length : out) length = 5 + static_cast<std::int64_t>(rng.below(60));
  return out;
}

Rows epoch(const BatchOrder& order, std::int64_t number) {
  Rows out;
  for (std::int64_t s = 0; s < order.batches_per_epoch(); ++s) {
    const Rows batch = order.batch(number * order.batches_per_epoch() + s);
    out.insert(out.end(), batch.begin(), batch.end());
  }
  return out;
}

/// Share of cells that are padding when these batches are padded to their longest row.
double padding_of(const std::vector<Rows>& batches, const Rows& lengths) {
  std::int64_t real = 0, cells = 0;
  for (const Rows& batch : batches) {
    std::int64_t longest = 0;
    for (const std::int64_t row : batch) {
      const std::int64_t length = lengths[static_cast<std::size_t>(row)];
      real += length;
      longest = std::max(longest, length);
    }
    cells += longest * static_cast<std::int64_t>(batch.size());
  }
  return 1.0 - static_cast<double>(real) / static_cast<double>(cells);
}

TEST_CASE("a batch depends on its number alone, not on the calls before it") {
  const Rows lengths = lengths_of(301);
  const BatchOrder order(lengths, 8, 5);
  std::vector<Rows> forwards;
  for (std::int64_t s = 0; s < 130; ++s) forwards.push_back(order.batch(s));
  for (std::int64_t s = 129; s >= 0; --s) CHECK(order.batch(s) == forwards[static_cast<std::size_t>(s)]);
  for (const std::int64_t s : {77, 3, 129, 3, 40, 41}) {
    CHECK(BatchOrder(lengths, 8, 5).batch(s) == forwards[static_cast<std::size_t>(s)]);
    CHECK(order.batch(s) == forwards[static_cast<std::size_t>(s)]);
  }
  BatchOrder other(lengths, 8, 6);
  other = order;  // a copy is as good as the one it was made of
  CHECK(other.batch(55) == forwards[55]);
}

TEST_CASE("each epoch is a permutation of its own") {
  const BatchOrder order(lengths_of(96), 8, 5);
  CHECK(order.batches_per_epoch() == 12);
  std::set<Rows> different;
  Rows all(96);
  std::iota(all.begin(), all.end(), 0);
  for (std::int64_t e = 0; e < 4; ++e) {
    Rows rows = epoch(order, e);
    different.insert(rows);
    std::sort(rows.begin(), rows.end());
    CHECK(rows == all);
  }
  different.insert(epoch(BatchOrder(lengths_of(96), 8, 6), 0));
  CHECK(different.size() == 5);  // four epochs and another seed
}

TEST_CASE("an epoch that does not divide is filled up with rows of its own") {
  const BatchOrder order(lengths_of(101), 8, 5);
  CHECK(order.batches_per_epoch() == 13);
  for (std::int64_t e = 0; e < 3; ++e) {
    std::map<std::int64_t, int> seen;
    for (const std::int64_t row : epoch(order, e)) ++seen[row];
    CHECK(seen.size() == 101);
    const auto twice = std::count_if(seen.begin(), seen.end(), [](const auto& at) { return at.second == 2; });
    CHECK(twice == 3);  // 13 * 8 - 101
    for (const auto& [row, times] : seen) CHECK(times <= 2);
  }
  const BatchOrder few(lengths_of(3), 8, 5);
  CHECK(few.batches_per_epoch() == 1);
  std::map<std::int64_t, int> seen;
  for (const std::int64_t row : few.batch(4)) ++seen[row];
  CHECK(seen.size() == 3);
  for (const auto& [row, times] : seen) CHECK((times == 2 || times == 3));
}

TEST_CASE("rows of like length stand together, and the batches of a stretch in no order") {
  const Rows lengths = lengths_of(16 * 8);  // one stretch of sixteen batches
  const BatchOrder order(lengths, 8, 5);
  std::vector<std::pair<std::int64_t, std::int64_t>> spans;  // shortest and longest of each batch
  for (std::int64_t s = 0; s < 16; ++s) {
    std::vector<std::int64_t> own;
    for (const std::int64_t row : order.batch(s)) own.push_back(lengths[static_cast<std::size_t>(row)]);
    const auto [least, most] = std::minmax_element(own.begin(), own.end());
    spans.emplace_back(*least, *most);
  }
  CHECK_FALSE(std::is_sorted(spans.begin(), spans.end()));
  std::sort(spans.begin(), spans.end());
  for (std::size_t i = 1; i < spans.size(); ++i) CHECK(spans[i - 1].second <= spans[i].first);
}

TEST_CASE("padding is counted over the first epoch and is less than in random order") {
  const Rows lengths = lengths_of(1024);
  const BatchOrder order(lengths, 8, 5);
  std::vector<Rows> grouped, shuffled;
  const Rows random = Rng(3).permutation(lengths.size());
  for (std::int64_t s = 0; s < order.batches_per_epoch(); ++s) {
    grouped.push_back(order.batch(s));
    shuffled.emplace_back(random.begin() + s * 8, random.begin() + (s + 1) * 8);
  }
  CHECK(std::abs(order.padding() - padding_of(grouped, lengths)) < 1e-12);
  CHECK(padding_of(shuffled, lengths) > 0.3);  // the longest of eight uniform lengths against their mean
  CHECK(order.padding() < 0.25 * padding_of(shuffled, lengths));
  CHECK(BatchOrder(Rows(40, 9), 8, 5).padding() == 0.0);
}

TEST_CASE("no rows and no batch are refused") {
  CHECK_THROWS_MATCHES(BatchOrder({}, 8, 5), DataError, Message("batches: there is no training row"));
  CHECK_THROWS_MATCHES(BatchOrder({4, 5}, 0, 5), ConfigError,
                       MessageMatches(ContainsSubstring("train.batch: is 0")));
}

}  // namespace
}  // namespace mcit::test
