#include "report/predictions.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/json.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

std::string text_of(const Json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end() || found->is_null()) return {};
  return found->is_string() ? found->get<std::string>() : dump_json(*found);
}

Answer answer_of(std::string_view line, const std::string& where) {
  constexpr JsonLimits kLimits{.max_bytes = std::uint64_t{16} << 20, .max_depth = 16};
  const Json row = parse_json(line, where, kLimits);
  if (!row.is_object() || !row.contains("question_id")) throw DataError(where, "is no row of predictions");
  Answer out{text_of(row, "question_id"), text_of(row, "prompt"), text_of(row, "text"), text_of(row, "gold")};
  out.score = json_number(row, "score", where);
  if (!(out.score >= 0.0 && out.score <= 1.0)) throw DataError(where, "the score is not between 0 and 1");
  const auto holds = [&](const char* key) {
    const auto found = row.find(key);
    return found == row.end() || !found->is_boolean() || found->get<bool>();
  };
  out.well_formed = holds("well_formed") && holds("in_set");
  return out;
}

}  // namespace

AnswerFaults read_answers(const fs::path& file, const std::function<void(Answer&&)>& see) {
  AnswerFaults faults;
  std::error_code error;
  if (!fs::exists(file, error)) return faults;
  const MappedFile mapped(file);
  std::string_view rest(reinterpret_cast<const char*>(mapped.data()), mapped.size());
  for (std::int64_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (trimmed(line).empty()) continue;
    try {
      see(answer_of(line, file.string() + ":" + std::to_string(number)));
    } catch (const DataError& e) {
      if (faults.lines++ == 0) faults.first = e.what();
    }
  }
  return faults;
}

fs::path folder_of(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error) ? path : path.parent_path();
}

}  // namespace mcit
