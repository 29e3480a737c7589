#pragma once
/// Gold answers of any published form, found by id or by position.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "score/faults.hpp"
#include "score/row_reader.hpp"
#include "score/scorers.hpp"

namespace mcit {

struct GoldRow {
  std::string id;
  std::vector<std::string> golds;
  std::string prompt, image, category;
  std::vector<std::string> options;
  double scale = 1;      ///< larger side of the picture, from "size"
  bool balanced = true;  ///< GQA

  ScoreContext context() const {
    return {.options = options, .prompt = prompt, .image = image, .category = category, .scale = scale};
  }
};

/// Which pids of ScienceQA's problems.json count.
struct GoldSplit {
  std::filesystem::path file{};  ///< empty: pid_splits.json beside the problems, if it is there
  std::string name = "test";
};

/// Understands
///   [{question_id | id, text, answer | answers | answer_bbox, …}] as an array or one a line (CoIN, UCIT,
///   MLLM-CL); rows with "conversations", their last turn being the gold answer; rows of our own predictions,
///   which carry their golds;
///   {"data": [{question_id, answers}]} (TextVQA);
///   {"annotations": [{image_id, caption}]} (COCO captions), {"annotations": [{question_id, answers}]} (VQA);
///   {id: {question, answer, isBalanced, …}} (GQA); {pid: {choices, answer: index, …}} (ScienceQA).
/// Rows of an array or of lines stay in the file: 28 bytes of memory each.
class GoldFile {
 public:
  /// @throws DataError when the file as a whole has none of these forms; ids that come twice are told to
  /// `faults`
  GoldFile(const std::filesystem::path& file, const GoldSplit& split, Faults& faults);

  std::size_t size() const { return places_.size(); }
  /// The row with this id. Ids are compared as texts.
  std::optional<std::size_t> find(std::string_view id);
  /// @param boxes take answer_bbox where the row has one. @throws DataError naming the line
  GoldRow row(std::size_t index, bool boxes);
  /// Rows whose id an earlier row has.
  const std::vector<std::uint32_t>& duplicates() const { return duplicates_; }
  /// For messages.
  std::string where(std::size_t index) const;

 private:
  struct Place {
    std::uint64_t offset = 0;
    std::uint32_t length = 0, line = 0;
  };
  void read_rows(const std::filesystem::path& file);
  void read_document(const std::filesystem::path& file, const GoldSplit& split);
  void add(std::string_view id, const Place& place);
  void finish(Faults& faults);
  std::string_view text_of(const Place& place);

  InputFile file_;
  std::string document_;  ///< rows of a form that is not read from the file itself, one a line
  bool in_memory_ = false;
  std::vector<Place> places_;
  std::vector<std::uint64_t> hashes_;   ///< of each row's id
  std::vector<std::uint32_t> by_hash_;  ///< rows sorted by the hash
  std::vector<std::uint32_t> duplicates_;
  std::string buffer_;  ///< a piece of the file around the last row
  std::uint64_t buffer_offset_ = 0;
  std::size_t expected_ = 0;  ///< the row behind the last one found
};

/// One row, from its JSON. @throws DataError, std::exception of the JSON library
GoldRow parse_gold(std::string_view json, const std::function<std::string()>& where, bool boxes);

}  // namespace mcit
