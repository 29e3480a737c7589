#include "split/client_files.hpp"

#include <algorithm>
#include <map>

#include "model/safetensors.hpp"

namespace mcit::split {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kDigits = 9;
constexpr std::string_view kEnding = ".safetensors";

std::map<std::int64_t, fs::path> files_of(const fs::path& folder, const std::string& client) {
  std::map<std::int64_t, fs::path> out;
  if (!fs::is_directory(folder)) return out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.size() != client.size() + 1 + kDigits + kEnding.size() || !name.starts_with(client + "-") ||
        !name.ends_with(kEnding))
      continue;
    const std::string digits = name.substr(client.size() + 1, kDigits);
    if (std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; }))
      out[std::stoll(digits)] = entry.path();
  }
  return out;
}

}  // namespace

void write_kept(const fs::path& folder, const std::string& client, std::int64_t place,
                const StateDict& tensors) {
  std::string digits = std::to_string(place);
  digits.insert(0, kDigits - std::min(kDigits, digits.size()), '0');
  fs::create_directories(folder);
  write_safetensors(folder / (client + "-" + digits + std::string(kEnding)), tensors);
  auto files = files_of(folder, client);
  for (; files.size() > 2; files.erase(files.begin())) fs::remove(files.begin()->second);
}

std::optional<StateDict> read_kept(const fs::path& folder, const std::string& client, std::int64_t place) {
  auto files = files_of(folder, client);
  for (auto at = files.upper_bound(place); at != files.end(); at = files.erase(at)) fs::remove(at->second);
  if (files.empty()) return std::nullopt;
  return read_safetensors(files.rbegin()->second).tensors;
}

}  // namespace mcit::split
