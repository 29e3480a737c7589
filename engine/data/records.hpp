#pragma once
/// Rows of record files: training conversations and test questions, in the forms that benchmarks publish.

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
  std::int64_t row = 0;            ///< 1-based place in its file
};

enum class RecordKind { train, test };

/// What stands behind a test question, for rows with one of these answers.
struct QuestionEnd {
  std::vector<std::string> answers;  ///< empty: any
  std::string text;
};

/// How the rows of a file are written. Names of train forms:
///   conversations    {id | question_id, image?, conversations: [{from: "human", value}, {from: "gpt",
///   value},
///                    ...]}: LLaVA, CoIN, InternVL
///   prompt_answer    {prompt, answer}: TRACE; rows have no id, and are called by their number
/// of test forms:
///   questions        {question_id | id, image?, text, answer: text | number | [texts]}: CoIN; a box of the
///   key
///                    answer_bbox (text or 4 numbers) comes before an answer, and rows without `text` may
///                    have conversations, whose first turn is asked
///   question_answer  {question_id | id, image?, question, answer: as above}: InternVL
///   choices          {question_id? | id?, image?, question, choices: [texts], answer: index from 0}: asked
///   with
///                    lettered lines, the gold is the letter
///   boxes            {image, bbox: [x1, y1, x2, y2] in pixels, width, height, ...}: the gold is
///                    "[[x1, y1, x2, y2]]" in thousandths of the picture; `question` says what is asked
///   captions         COCO's object {images: [{id, file_name | image}], annotations: [{image_id, caption}]}:
///                    a row a picture with all its captions; `question` says what is asked
///   prompt_answer    as for training
struct RecordForm {
  std::string name{};  ///< empty: conversations for training, questions for the test
  /// Test: what is asked; {key} is the row's text under that key. Empty: as the form has it.
  std::string question{};
  std::vector<QuestionEnd> ends{};  ///< test: the first that fits is appended to the question
  /// Test: annotation file with the answers of people, instead of those in the rows: {data | annotations:
  /// [{question_id, answers: [text | {answer}]}]}, as TextVQA and VQA v2 have it.
  std::filesystem::path golds{};
};

/// Names of the forms of this kind of file.
const std::vector<std::string>& record_forms(RecordKind kind);

/// A JSON array of such rows, or a row a line where the name ends in .jsonl.
/// @throws DataError naming file, row (1-based; of .jsonl, the line) and key; also for a file without rows.
std::vector<Record> read_records(const std::filesystem::path& file, RecordKind kind,
                                 const RecordForm& form = {});

/// The same, telling every faulty row instead of throwing at the first; faulty rows are left out.
/// @throws DataError when the file as a whole cannot be read.
using RecordFault = std::function<void(std::int64_t row, const std::string& what)>;
std::vector<Record> read_records(const std::filesystem::path& file, RecordKind kind, const RecordForm& form,
                                 const RecordFault& fault);

}  // namespace mcit
