#include "data/records.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/json.hpp"
#include "core/json_rows.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

/// Ids and answers may be numbers in published files.
std::string as_text(const Json& value, std::string_view key) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_unsigned()) return std::to_string(value.get<std::uint64_t>());
  if (value.is_number_integer()) return std::to_string(value.get<std::int64_t>());
  if (value.is_number()) return value.dump();
  throw std::runtime_error(std::string(key) + ": expected a text or a number");
}

const Json& member(const Json& row, std::string_view key) {
  const auto found = row.find(std::string(key));
  if (found == row.end()) throw std::runtime_error("lacks '" + std::string(key) + "'");
  return *found;
}

std::string text_of(const Json& row, std::string_view key) { return as_text(member(row, key), key); }

/// The literal <image> marks where a picture stands; the prompt template puts it back once, in front.
std::string without_image_mark(std::string text) {
  static const std::string kMark = "<image>";
  for (std::size_t at = text.find(kMark); at != std::string::npos; at = text.find(kMark))
    text.erase(at, kMark.size());
  return std::string(trimmed(text));
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
      const std::string from = text_of(turn, "from"), expected = k == 0 ? "human" : "gpt";
      if (from != expected)
        throw std::runtime_error(key + ": from is '" + from + "', expected '" + expected + "'");
      texts[k] = without_image_mark(text_of(turn, "value"));
    }
    if (texts[1].empty())
      throw std::runtime_error("conversations[" + std::to_string(i + 1) + "]: the answer is empty");
    out.turns.emplace_back(std::move(texts[0]), std::move(texts[1]));
  }
}

/// "[0.1, 0.2, 0.3, 0.4]", whether it is written as a text or as numbers.
std::string read_box(const Json& value, std::string_view key) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array() || value.size() != 4)
    throw std::runtime_error(std::string(key) + ": expected a text or four numbers");
  std::string out;
  for (const Json& number : value) out += (out.empty() ? "[" : ", ") + as_text(number, key);
  return out + "]";
}

std::vector<std::string> read_answers(const Json& row) {
  if (row.contains("answer_bbox")) return {read_box(row["answer_bbox"], "answer_bbox")};
  const Json& answer = member(row, "answer");
  std::vector<std::string> out;
  if (!answer.is_array()) {
    out.push_back(as_text(answer, "answer"));
  } else {
    for (const Json& one : answer) out.push_back(as_text(one, "answer"));
  }
  if (out.empty()) throw std::runtime_error("answer: the list is empty");
  return out;
}

using Golds = std::unordered_map<std::string, std::vector<std::string>>;

Golds read_golds(const std::filesystem::path& file) {
  const Json all = read_json(file);
  const char* key = all.is_object() && all.contains("data") ? "data" : "annotations";
  Golds out;
  std::int64_t number = 0;
  for (const Json& one : json_array(all, key, file.string())) {
    ++number;
    try {
      if (!one.is_object()) throw std::runtime_error("expected an object");
      std::vector<std::string>& answers = out[text_of(one, "question_id")];
      for (const Json& answer : member(one, "answers"))
        answers.push_back(answer.is_object() ? text_of(answer, "answer") : as_text(answer, "answers"));
      if (answers.empty()) throw std::runtime_error("answers: the list is empty");
    } catch (const std::runtime_error& e) {
      throw DataError(file.string() + ": " + key + "[" + std::to_string(number - 1) + "]", e.what());
    }
  }
  return out;
}

/// One reading of a file: how its rows become records.
class RowReader {
 public:
  RowReader(RecordKind kind, const RecordForm& form) : kind_(kind), form_(form) {
    const std::vector<std::string>& known = record_forms(kind);
    name_ = form.name.empty() ? known.front() : form.name;
    if (std::find(known.begin(), known.end(), name_) == known.end())
      throw ConfigError("record form", "unknown form '" + name_ + "'", suggestion(name_, known));
    if (!form.golds.empty()) golds_ = read_golds(form.golds);
  }

  const std::string& name() const { return name_; }

  Record read(const Json& row, std::int64_t number) const {
    if (!row.is_object()) throw std::runtime_error("expected an object");
    Record out;
    read_id(row, number, out);
    if (row.contains("image") && !row["image"].is_null()) {
      if (!row["image"].is_string()) throw std::runtime_error("image: expected a text");
      out.image = row["image"].get<std::string>();
    }
    kind_ == RecordKind::train ? read_train(row, out) : read_test(row, out);
    return out;
  }

  /// COCO's caption files, which are an object.
  std::vector<Record> read_captions(const std::filesystem::path& file) const;

 private:
  void read_id(const Json& row, std::int64_t number, Record& out) const {
    const char* first = kind_ == RecordKind::train ? "id" : "question_id";
    const char* second = kind_ == RecordKind::train ? "question_id" : "id";
    const bool named = name_ == "conversations" || name_ == "questions" || name_ == "question_answer";
    const char* key = row.contains(first) ? first : second;
    if (row.contains(key)) {
      out.id = as_text(row[key], key);
    } else if (named) {
      throw std::runtime_error(std::string("lacks '") + first + "'");
    } else {
      out.id = std::to_string(number);
    }
  }

  void read_train(const Json& row, Record& out) const {
    if (name_ == "conversations") return read_turns(row, out);
    out.turns.emplace_back(trimmed(text_of(row, "prompt")), trimmed(text_of(row, "answer")));
    if (out.turns.front().second.empty()) throw std::runtime_error("answer: is empty");
  }

  void read_test(const Json& row, Record& out) const {
    std::string question = read_question(row, out);
    if (!form_.question.empty()) question = filled(row);
    if (!form_.golds.empty()) {
      const auto found = golds_.find(out.id);
      if (found == golds_.end())
        throw std::runtime_error("question_id: '" + out.id + "' is not in " + form_.golds.string());
      out.golds = found->second;
    }
    finish(std::move(question), out);
  }

  /// The question as the form has it; fills the golds but for those of an annotation file.
  std::string read_question(const Json& row, Record& out) const {
    const bool given = form_.golds.empty();
    if (name_ == "choices") return read_choices(row, out);
    if (name_ == "boxes") {
      out.golds = {box_in_thousandths(row)};
      return {};
    }
    if (name_ == "questions" && !row.contains("text") && row.contains("conversations")) {
      Record turns;
      read_turns(row, turns);
      out.golds = {turns.turns.front().second};
      return turns.turns.front().first;
    }
    const char* key = name_ == "questions" ? "text" : name_ == "prompt_answer" ? "prompt" : "question";
    std::string question = text_of(row, key);
    if (given) out.golds = read_answers(row);
    return question;
  }

  static std::string read_choices(const Json& row, Record& out) {
    std::string question = text_of(row, "question");
    const Json& choices = member(row, "choices");
    if (!choices.is_array() || choices.empty() || choices.size() > 26)
      throw std::runtime_error("choices: expected an array of 1 to 26 texts");
    char letter = 'A';
    for (const Json& choice : choices)
      question += std::string("\n") + letter++ + ". " + as_text(choice, "choices");
    const Json& answer = member(row, "answer");
    if (!answer.is_number_unsigned() || answer.get<std::uint64_t>() >= choices.size())
      throw std::runtime_error("answer: expected the index of a choice, from 0");
    out.golds = {std::string(1, static_cast<char>('A' + answer.get<int>()))};
    return question;
  }

  static std::string box_in_thousandths(const Json& row) {
    const auto number = [&](const Json& value, const char* key) {
      if (!value.is_number()) throw std::runtime_error(std::string(key) + ": expected a number");
      return value.get<double>();
    };
    const Json& box = member(row, "bbox");
    if (!box.is_array() || box.size() != 4) throw std::runtime_error("bbox: expected four numbers");
    const std::array<double, 2> size = {number(member(row, "width"), "width"),
                                        number(member(row, "height"), "height")};
    if (!(size[0] > 0 && size[1] > 0)) throw std::runtime_error("width, height: must be positive");
    std::string out;
    for (std::size_t i = 0; i < 4; ++i)
      out += (i == 0 ? "[[" : ", ") + shortest(1000.0 * number(box[i], "bbox") / size[i % 2]);
    return out + "]]";
  }

  /// form.question with the row's texts in place of {key}.
  std::string filled(const Json& row) const {
    std::string out;
    const std::string& pattern = form_.question;
    for (std::size_t at = 0; at < pattern.size();) {
      const std::size_t open = pattern.find('{', at), close = pattern.find('}', open);
      if (close == std::string::npos) return out + pattern.substr(at);
      out += pattern.substr(at, open - at) + text_of(row, pattern.substr(open + 1, close - open - 1));
      at = close + 1;
    }
    return out;
  }

  void finish(std::string question, Record& out) const {
    for (const QuestionEnd& end : form_.ends) {
      const bool fits =
          end.answers.empty() || std::any_of(end.answers.begin(), end.answers.end(),
                                             [&](const std::string& a) { return a == out.golds.front(); });
      if (!fits) continue;
      question += end.text;
      break;
    }
    out.turns.emplace_back(without_image_mark(std::move(question)), "");
  }

  RecordKind kind_;
  const RecordForm& form_;
  std::string name_;
  Golds golds_;
};

std::vector<Record> RowReader::read_captions(const std::filesystem::path& file) const {
  const Json all = read_json(file);
  const std::string where = file.string();
  std::map<std::string, std::vector<std::string>> captions;
  try {
    for (const Json& one : json_array(all, "annotations", where))
      captions[text_of(one, "image_id")].push_back(text_of(one, "caption"));
  } catch (const std::runtime_error& e) {
    if (dynamic_cast<const DataError*>(&e) != nullptr) throw;
    throw DataError(where + ": annotations", e.what());
  }
  std::vector<Record> out;
  for (const Json& one : json_array(all, "images", where)) {
    const std::string place = where + ": row " + std::to_string(out.size() + 1);
    Record record;
    try {
      record.id = text_of(one, "id");
      record.image = text_of(one, one.contains("file_name") ? "file_name" : "image");
    } catch (const std::runtime_error& e) {
      throw DataError(place, e.what());
    }
    record.golds = captions[record.id];
    if (record.golds.empty()) throw DataError(place, "image " + record.id + " has no caption");
    finish(form_.question, record);
    record.row = std::ssize(out) + 1;
    out.push_back(std::move(record));
  }
  return out;
}

}  // namespace

const std::vector<std::string>& record_forms(RecordKind kind) {
  static const std::vector<std::string> train = {"conversations", "prompt_answer"};
  static const std::vector<std::string> test = {"questions", "question_answer", "choices",
                                                "boxes",     "captions",        "prompt_answer"};
  return kind == RecordKind::train ? train : test;
}

std::vector<Record> read_records(const std::filesystem::path& file, RecordKind kind, const RecordForm& form) {
  return read_records(file, kind, form, [&](std::int64_t row, const std::string& what) {
    throw DataError(file.string() + ": row " + std::to_string(row), what);
  });
}

std::vector<Record> read_records(const std::filesystem::path& file, RecordKind kind, const RecordForm& form,
                                 const RecordFault& fault) {
  const RowReader reader(kind, form);
  std::vector<Record> out;
  std::int64_t rows = 0;
  if (reader.name() == "captions") {
    out = reader.read_captions(file);
    rows = std::ssize(out);
  } else {
    const auto read = [&](std::int64_t number, const Json& row) {
      std::string what;
      try {
        out.push_back(reader.read(row, number));
        out.back().row = number;
      } catch (const std::exception& e) {
        what = e.what();
      }
      if (!what.empty()) fault(number, what);
    };
    rows = for_each_json_row(file, read, fault);
  }
  if (rows == 0) throw DataError(file.string(), "holds no row", "a task needs training and test rows");
  return out;
}

}  // namespace mcit
