#include "data/records.hpp"

#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

/// Ids and answers may be numbers in published files.
std::string as_text(const Json& value, const char* key) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_unsigned()) return std::to_string(value.get<std::uint64_t>());
  if (value.is_number_integer()) return std::to_string(value.get<std::int64_t>());
  if (value.is_number()) return value.dump();
  throw std::runtime_error(std::string(key) + ": expected a text or a number");
}

const Json& member(const Json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end()) throw std::runtime_error(std::string("lacks '") + key + "'");
  return *found;
}

/// The literal <image> marks where a picture stands; the prompt template puts it back once, in front.
std::string without_image_mark(std::string text) {
  static const std::string kMark = "<image>";
  for (std::size_t at = text.find(kMark); at != std::string::npos; at = text.find(kMark))
    text.erase(at, kMark.size());
  const auto blank = [](char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.front())) text.erase(text.begin());
  while (!text.empty() && blank(text.back())) text.pop_back();
  return text;
}

void read_turns(const Json& row, Record& out) {
  const Json& conversations = member(row, "conversations");
  if (!conversations.is_array() || conversations.empty())
    throw std::runtime_error("conversations: expected a non-empty array");
  if (conversations.size() % 2 != 0) throw std::runtime_error("conversations: a question has no answer");
  for (std::size_t i = 0; i < conversations.size(); i += 2) {
    std::string texts[2];
    for (std::size_t k = 0; k < 2; ++k) {
      const Json& turn = conversations[i + k];
      const std::string key = "conversations[" + std::to_string(i + k) + "]";
      if (!turn.is_object()) throw std::runtime_error(key + ": expected an object");
      const std::string from = as_text(member(turn, "from"), "from"), expected = k == 0 ? "human" : "gpt";
      if (from != expected)
        throw std::runtime_error(key + ": from is '" + from + "', expected '" + expected + "'");
      texts[k] = without_image_mark(as_text(member(turn, "value"), "value"));
    }
    if (texts[1].empty())
      throw std::runtime_error("conversations[" + std::to_string(i + 1) + "]: the answer is empty");
    out.turns.emplace_back(std::move(texts[0]), std::move(texts[1]));
  }
}

void read_question(const Json& row, Record& out) {
  out.turns.emplace_back(without_image_mark(as_text(member(row, "text"), "text")), "");
  const Json& answer = member(row, "answer");
  if (answer.is_array()) {
    for (const Json& one : answer) out.golds.push_back(as_text(one, "answer"));
  } else {
    out.golds.push_back(as_text(answer, "answer"));
  }
  if (out.golds.empty()) throw std::runtime_error("answer: the list is empty");
}

Record read_row(const Json& row, RecordKind kind) {
  if (!row.is_object()) throw std::runtime_error("expected an object");
  Record out;
  const char* first = kind == RecordKind::train ? "id" : "question_id";
  const char* second = kind == RecordKind::train ? "question_id" : "id";
  if (!row.contains(first) && !row.contains(second))
    throw std::runtime_error(std::string("lacks '") + first + "'");
  const char* id = row.contains(first) ? first : second;
  out.id = as_text(row[id], id);
  if (row.contains("image") && !row["image"].is_null()) {
    if (!row["image"].is_string()) throw std::runtime_error("image: expected a text");
    out.image = row["image"].get<std::string>();
  }
  kind == RecordKind::train ? read_turns(row, out) : read_question(row, out);
  return out;
}

}  // namespace

std::vector<Record> read_records(const std::filesystem::path& file, RecordKind kind) {
  return read_records(file, kind, [&](std::int64_t row, const std::string& what) {
    throw DataError(file.string() + ": row " + std::to_string(row), what);
  });
}

std::vector<Record> read_records(const std::filesystem::path& file, RecordKind kind,
                                 const std::function<void(std::int64_t, const std::string&)>& fault) {
  const Json rows = read_json(file);
  if (!rows.is_array()) throw DataError(file.string(), "expected a JSON array of rows");
  if (rows.empty()) throw DataError(file.string(), "holds no row", "a task needs training and test rows");
  std::vector<Record> out;
  out.reserve(rows.size());
  std::int64_t number = 0;
  for (const Json& row : rows) {
    ++number;
    std::string what;
    try {
      out.push_back(read_row(row, kind));
    } catch (const std::exception& e) {
      what = e.what();
    }
    if (!what.empty()) fault(number, what);
  }
  return out;
}

}  // namespace mcit
