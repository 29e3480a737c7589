#pragma once
/// Rows of CoIN-format files: training conversations and test questions.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace mcit {

/// One row. Training rows have answered turns; test rows one turn without an answer, and golds.
struct Record {
  std::string id;     ///< question_id or id, numbers as text
  std::string image;  ///< as written, relative to the image root; empty for a text-only row
  std::vector<std::pair<std::string, std::string>>
      turns;                       ///< question and answer; "<image>" removed from the text
  std::vector<std::string> golds;  ///< accepted answers of a test row, at least one
};

enum class RecordKind { train, test };

/// A JSON array of objects:
///   train  {id | question_id, image?, conversations: [{from: "human", value}, {from: "gpt", value}, ...]}
///   test   {question_id | id, image?, text, answer: text | number | [texts]}
/// @throws DataError naming file, row (1-based) and key; also for an empty array.
std::vector<Record> read_records(const std::filesystem::path& file, RecordKind kind);

/// The same, telling every faulty row instead of throwing at the first; faulty rows are left out.
/// @throws DataError when the file as a whole cannot be read.
std::vector<Record> read_records(const std::filesystem::path& file, RecordKind kind,
                                 const std::function<void(std::int64_t row, const std::string& what)>& fault);

}  // namespace mcit
