#pragma once
/// The answers that a run left in predictions/<stage>_<task>.jsonl, read without trust.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "metrics/result.hpp"

namespace mcit {

struct Answer {
  std::string id, prompt, text, gold;
  double score = 0.0;        ///< 0 to 1
  bool well_formed = false;  ///< of the form that the task's scorer asks for, and of the task's answer set
};

/// Lines that could not be used.
struct AnswerFaults {
  std::int64_t lines = 0;
  std::string first;  ///< "file:line: what"; empty for none
};

/// Calls see() for each row of the file, line by line, so that memory stays flat. Rows without question_id or
/// score, and lines that are no JSON, are counted and left out. An absent file has no rows.
AnswerFaults read_answers(const std::filesystem::path& file, const std::function<void(Answer&&)>& see);

/// A run's folder. @param path as the user named it, the folder or its result.json
std::filesystem::path folder_of(const std::filesystem::path& path);

}  // namespace mcit
