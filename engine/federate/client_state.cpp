#include "federate/client_state.hpp"

#include <torch/types.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kBeginning = "round-", kEnding = ".safetensors";

std::string file_name(std::int64_t round) {
  return std::string(kBeginning) + std::to_string(round) + std::string(kEnding);
}

/// Round in the name of a file; -1 for any other name.
std::int64_t round_of(const std::string& name) {
  if (!name.starts_with(kBeginning) || !name.ends_with(kEnding)) return -1;
  const std::string digits = name.substr(kBeginning.size(), name.size() - kBeginning.size() - kEnding.size());
  constexpr std::size_t kMostDigits = 9;
  if (digits.empty() || digits.size() > kMostDigits ||
      digits.find_first_not_of("0123456789") != std::string::npos)
    return -1;
  return std::stoll(digits);
}

void put_vectors(StateDict& out, const std::string& prefix,
                 const std::map<std::string, std::vector<double>>& vectors) {
  for (const auto& [name, values] : vectors)
    out[prefix + name] = at::tensor(values, at::TensorOptions().dtype(at::kDouble));
}

}  // namespace

void write_client(const fs::path& folder, std::int64_t round, const ClientState& state) {
  StateDict tensors;
  for (const auto& [name, tensor] : state.strategy) tensors["strategy/" + name] = tensor;
  put_vectors(tensors, "residual/", state.residual);
  put_vectors(tensors, "control/", state.control);
  fs::create_directories(folder);
  write_safetensors(folder / file_name(round), tensors,
                    {{"task", std::to_string(state.task)},
                     {"met", nlohmann::json(state.met).dump()},
                     {"trainable", nlohmann::json(state.trainable).dump()}});
  std::vector<std::int64_t> rounds;
  for (const auto& entry : fs::directory_iterator(folder))
    if (const std::int64_t r = round_of(entry.path().filename().string()); r >= 0) rounds.push_back(r);
  std::sort(rounds.rbegin(), rounds.rend());
  for (std::size_t i = 2; i < rounds.size(); ++i) fs::remove(folder / file_name(rounds[i]));
}

ClientState read_client(const fs::path& folder, std::int64_t committed) {
  ClientState out;
  std::int64_t newest = -1;
  std::vector<fs::path> ahead;
  if (fs::is_directory(folder))
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::int64_t round = round_of(entry.path().filename().string());
      if (round > committed) ahead.push_back(entry.path());
      if (round <= committed) newest = std::max(newest, round);
    }
  for (const fs::path& file : ahead) fs::remove(file);
  if (newest < 0) return out;
  const fs::path file = folder / file_name(newest);
  SafetensorsFile read = read_safetensors(file);
  for (auto& [name, tensor] : read.tensors) {
    const std::string rest = name.substr(name.find('/') + 1);
    if (name.starts_with("strategy/")) {
      out.strategy[rest] = tensor.clone();
    } else {
      const Tensor flat = tensor.to(at::kDouble).contiguous();
      std::vector<double>& values = (name.starts_with("control/") ? out.control : out.residual)[rest];
      values.assign(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
    }
  }
  try {
    out.task = std::stoll(read.metadata.at("task"));
    out.met = parse_json(read.metadata.at("met"), file.string()).get<std::vector<std::int64_t>>();
    out.trainable = parse_json(read.metadata.at("trainable"), file.string()).get<std::vector<std::string>>();
  } catch (const std::exception&) {
    throw CheckpointError(file.string(), "is not what this program writes");
  }
  return out;
}

}  // namespace mcit
