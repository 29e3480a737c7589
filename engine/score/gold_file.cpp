#include "score/gold_file.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "score/json_fields.hpp"

namespace mcit {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 15;
constexpr std::size_t kMostRows = std::size_t{1} << 32;

std::uint64_t hash_of(std::string_view id) { return std::hash<std::string_view>{}(id); }

std::string text_of_value(const Json& value, const char* key) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number()) return value.dump();
  throw std::runtime_error(std::string("'") + key + "': expected a text or a number");
}

const Json* member(const Json& object, std::initializer_list<const char*> keys) {
  for (const char* key : keys)
    if (const auto found = object.find(key); found != object.end() && !found->is_null()) return &*found;
  return nullptr;
}

std::string optional_text(const Json& object, std::initializer_list<const char*> keys) {
  const Json* value = member(object, keys);
  return value != nullptr && (value->is_string() || value->is_number()) ? text_of_value(*value, "")
                                                                        : std::string();
}

std::vector<std::string> texts(const Json& value, const char* key) {
  std::vector<std::string> out;
  if (!value.is_array()) return {text_of_value(value, key)};
  for (const Json& one : value)  // VQA's annotations have objects
    out.push_back(text_of_value(one.is_object() && one.contains("answer") ? one["answer"] : one, key));
  return out;
}

std::string box_text(const Json& value) {
  return value.is_array() ? value.dump() : text_of_value(value, "answer_bbox");
}

void read_conversations(const Json& turns, GoldRow& out) {
  if (!turns.is_array() || turns.empty()) throw std::runtime_error("'conversations': expected turns");
  for (const Json& turn : turns) {
    const std::string from = optional_text(turn, {"from"}), value = optional_text(turn, {"value"});
    if (from == "gpt") {
      out.golds = {value};
    } else if (out.golds.empty()) {
      out.prompt = value;
    }
  }
}

void read_golds(const Json& row, GoldRow& out, bool boxes) {
  if (const Json* box = boxes ? member(row, {"answer_bbox"}) : nullptr) {
    out.golds = {box_text(*box)};
  } else if (const Json* own = member(row, {"golds", "gold"})) {
    out.golds = texts(*own, "gold");
  } else if (const Json* answers = member(row, {"answers", "answer"})) {
    if (!out.options.empty() && answers->is_number_integer()) {
      const auto index = answers->get<std::int64_t>();
      if (index < 0 || index >= static_cast<std::int64_t>(out.options.size()))
        throw std::runtime_error("'answer': " + answers->dump() + " is none of the choices");
      out.golds = {std::string(1, static_cast<char>('A' + index))};
    } else {
      out.golds = texts(*answers, "answer");
    }
  } else if (const Json* turns = member(row, {"conversations"})) {
    read_conversations(*turns, out);
  }
  if (out.golds.empty()) throw std::runtime_error("has no gold answer");
}

void read_size(const Json& row, GoldRow& out) {
  const Json* size = member(row, {"size"});
  if (size == nullptr) return;
  if (!size->is_array() || size->size() != 2 || !(*size)[0].is_number() || !(*size)[1].is_number())
    throw std::runtime_error("'size': expected [width, height]");
  out.scale = std::max((*size)[0].get<double>(), (*size)[1].get<double>());
}

GoldRow gold_of(const Json& row, bool boxes) {
  if (!row.is_object()) throw std::runtime_error("expected an object");
  GoldRow out;
  out.id = optional_text(row, {"question_id", "questionId", "id", "image_id"});
  const bool ours = row.contains("gold");
  out.prompt = ours ? optional_text(row, {"prompt"}) : optional_text(row, {"text", "question", "prompt"});
  out.image = optional_text(row, {"image"});
  out.category = optional_text(row, {"answer_type", "task", "type"});
  if (const Json* types = member(row, {"types"}); types != nullptr && types->is_object())
    out.category = optional_text(*types, {"structural"});
  if (const Json* choices = member(row, {"choices"}); choices != nullptr && choices->is_array())
    out.options = texts(*choices, "choices");
  if (const Json* balanced = member(row, {"isBalanced"}); balanced != nullptr && balanced->is_boolean())
    out.balanced = balanced->get<bool>();
  read_size(row, out);
  read_golds(row, out, boxes);
  return out;
}

/// One reference a line of the file becomes one row a picture.
std::vector<Json> grouped_captions(const Json& annotations) {
  std::vector<Json> rows;
  std::map<std::string, std::size_t> known;
  for (const Json& one : annotations) {
    const std::string id = optional_text(one, {"image_id"}), caption = optional_text(one, {"caption"});
    const auto [at, added] = known.try_emplace(id, rows.size());
    if (added) rows.push_back({{"question_id", id}, {"answer", Json::array()}});
    rows[at->second]["answer"].push_back(caption);
  }
  return rows;
}

std::vector<Json> science_questions(const Json& problems, const std::filesystem::path& file,
                                    const GoldSplit& split) {
  const std::filesystem::path beside = file.parent_path() / "pid_splits.json";
  const std::filesystem::path splits = !split.file.empty() ? split.file : beside;
  if (!std::filesystem::exists(splits))
    throw DataError(file.string(), "holds the questions of all splits",
                    "name pid_splits.json with --splits, and the split with --split");
  std::vector<Json> rows;
  const Json names = read_json(splits);
  for (const Json& pid : json_array(names, split.name, splits.string())) {
    const std::string id = text_of_value(pid, "pid");
    const auto found = problems.find(id);
    if (found == problems.end()) throw DataError(file.string(), "lacks '" + id + "' of " + splits.string());
    Json row = {{"question_id", id}};
    row.update(*found);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Json> rows_of_document(Json document, const std::filesystem::path& file, const GoldSplit& split) {
  const std::string where = file.string();
  if (const Json* data = member(document, {"data"}); data != nullptr && data->is_array())
    return {data->begin(), data->end()};
  if (const Json* notes = member(document, {"annotations"}); notes != nullptr && notes->is_array()) {
    if (notes->empty() || !notes->front().contains("caption")) return {notes->begin(), notes->end()};
    return grouped_captions(*notes);
  }
  if (!document.is_object() || document.empty() || !document.front().is_object())
    throw DataError(where, "holds gold answers in no form that is known here",
                    "docs/reference/scoring.md lists them");
  if (document.front().contains("choices")) return science_questions(document, file, split);
  std::vector<Json> rows;
  for (auto& [id, question] : document.items()) {
    Json row = {{"question_id", id}};
    row.update(question);
    rows.push_back(std::move(row));
  }
  return rows;
}

/// Whether the file is a row a line or an array, and not one document.
bool has_rows(const std::filesystem::path& file) {
  RowReader reader(file);
  try {
    const std::optional<Row> first = reader.next();
    if (!first) throw DataError(file.string(), "holds no row");
    return reader.is_array() || read_fields(first->text).id.has_value();
  } catch (const std::exception&) {
    if (reader.offset() == 0) throw;
    return false;
  }
}

}  // namespace

GoldRow parse_gold(std::string_view json, const std::function<std::string()>& where, bool boxes) {
  const Json row = Json::parse(json.begin(), json.end(), nullptr, false);
  if (row.is_discarded()) parse_json(json, where());  // throws, saying what is wrong
  try {
    return gold_of(row, boxes);
  } catch (const Json::exception& e) {
    throw DataError(where(), e.what());
  } catch (const std::runtime_error& e) {
    throw DataError(where(), e.what());
  }
}

GoldFile::GoldFile(const std::filesystem::path& file, const GoldSplit& split, Faults& faults) : file_(file) {
  has_rows(file) ? read_rows(file) : read_document(file, split);
  if (places_.empty()) throw DataError(file.string(), "holds no row that can be read");
  finish(faults);
}

void GoldFile::read_rows(const std::filesystem::path& file) {
  RowReader reader(file);
  while (const std::optional<Row> row = reader.next()) {
    const Place place{row->offset, static_cast<std::uint32_t>(row->text.size()),
                      static_cast<std::uint32_t>(row->line)};
    try {
      add(read_id(row->text).value_or(""), place);
    } catch (const DataError&) {
      add("", place);  // keeps its position; whoever asks for the row learns what is wrong with it
    }
    if (places_.size() == kMostRows - 1) throw DataError(file.string(), "has too many rows");
  }
}

void GoldFile::read_document(const std::filesystem::path& file, const GoldSplit& split) {
  in_memory_ = true;
  for (const Json& row : rows_of_document(read_json(file), file, split)) {
    const std::string text = dump_json(row);
    add(row.is_object() ? optional_text(row, {"question_id", "questionId", "id", "image_id"}) : "",
        {document_.size(), static_cast<std::uint32_t>(text.size()),
         static_cast<std::uint32_t>(places_.size() + 1)});
    document_ += text + "\n";
  }
}

void GoldFile::add(std::string_view id, const Place& place) {
  places_.push_back(place);
  hashes_.push_back(hash_of(id));
}

void GoldFile::finish(Faults& faults) {
  by_hash_.resize(places_.size());
  std::iota(by_hash_.begin(), by_hash_.end(), std::uint32_t{0});
  std::sort(by_hash_.begin(), by_hash_.end(), [&](std::uint32_t a, std::uint32_t b) {
    return std::pair(hashes_[a], a) < std::pair(hashes_[b], b);
  });
  for (std::size_t i = 1; i < by_hash_.size(); ++i)
    if (hashes_[by_hash_[i]] == hashes_[by_hash_[i - 1]] && hashes_[by_hash_[i]] != hash_of("")) {
      duplicates_.push_back(by_hash_[i]);
      faults.add("duplicate gold id", where(by_hash_[i]));
    }
}

std::optional<std::size_t> GoldFile::find(std::string_view id) {
  const std::uint64_t hash = hash_of(id);
  if (expected_ < hashes_.size() && hashes_[expected_] == hash) return expected_++;
  const auto found = std::lower_bound(by_hash_.begin(), by_hash_.end(), hash,
                                      [&](std::uint32_t row, std::uint64_t h) { return hashes_[row] < h; });
  if (found == by_hash_.end() || hashes_[*found] != hash) return std::nullopt;
  expected_ = std::size_t{*found} + 1;
  return *found;
}

std::string_view GoldFile::text_of(const Place& place) {
  if (in_memory_) return std::string_view(document_).substr(place.offset, place.length);
  const bool known =
      place.offset >= buffer_offset_ && place.offset + place.length <= buffer_offset_ + buffer_.size();
  if (!known) {
    buffer_.resize(std::max<std::size_t>(kPiece, place.length));
    buffer_offset_ = place.offset;
    buffer_.resize(file_.read(place.offset, buffer_.data(), buffer_.size()));
  }
  return std::string_view(buffer_).substr(place.offset - buffer_offset_, place.length);
}

std::string GoldFile::where(std::size_t index) const {
  return file_.path().string() + (in_memory_ ? ": row " : ":") + std::to_string(places_[index].line);
}

GoldRow GoldFile::row(std::size_t index, bool boxes) {
  return parse_gold(
      text_of(places_.at(index)), [&] { return where(index); }, boxes);
}

}  // namespace mcit
