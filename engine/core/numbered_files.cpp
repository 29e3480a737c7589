#include "core/numbered_files.hpp"

#include <string_view>
#include <utility>

namespace mcit {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view kEnding = ".safetensors";
constexpr std::size_t kKept = 2, kMostDigits = 9;

}  // namespace

NumberedFiles::NumberedFiles(fs::path folder, std::string name)
    : folder_(std::move(folder)), name_(std::move(name)) {}

fs::path NumberedFiles::at(std::int64_t number) const {
  return folder_ / (name_ + "-" + std::to_string(number) + std::string(kEnding));
}

std::map<std::int64_t, fs::path> NumberedFiles::all() const {
  std::map<std::int64_t, fs::path> out;
  std::error_code ignored;
  const std::string beginning = name_ + "-";
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const std::string file = entry.path().filename().string();
    if (!file.starts_with(beginning) || !file.ends_with(kEnding)) continue;
    const std::string digits = file.substr(beginning.size(), file.size() - beginning.size() - kEnding.size());
    if (!digits.empty() && digits.size() <= kMostDigits &&
        digits.find_first_not_of("0123456789") == std::string::npos)
      out[std::stoll(digits)] = entry.path();
  }
  return out;
}

void NumberedFiles::prune() const {
  auto files = all();
  for (; files.size() > kKept; files.erase(files.begin())) fs::remove(files.begin()->second);
}

std::optional<fs::path> NumberedFiles::newest(std::int64_t number) const {
  auto files = all();
  for (auto later = files.upper_bound(number); later != files.end(); later = files.erase(later))
    fs::remove(later->second);
  if (files.empty()) return std::nullopt;
  return files.rbegin()->second;
}

}  // namespace mcit
