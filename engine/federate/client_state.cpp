#include "federate/client_state.hpp"

#include <torch/types.h>

#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "core/numbered_files.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

NumberedFiles files_in(const fs::path& folder) { return {folder, "round"}; }

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
  write_safetensors(files_in(folder).at(round), tensors,
                    {{"task", std::to_string(state.task)},
                     {"met", nlohmann::json(state.met).dump()},
                     {"trainable", nlohmann::json(state.trainable).dump()}});
  files_in(folder).prune();
}

ClientState read_client(const fs::path& folder, std::int64_t committed) {
  ClientState out;
  const std::optional<fs::path> file = files_in(folder).newest(committed);
  if (!file) return out;
  SafetensorsFile read = read_safetensors(*file);
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
    out.met = parse_json(read.metadata.at("met"), file->string()).get<std::vector<std::int64_t>>();
    out.trainable = parse_json(read.metadata.at("trainable"), file->string()).get<std::vector<std::string>>();
  } catch (const std::exception&) {
    throw CheckpointError(file->string(), "is not what this program writes");
  }
  return out;
}

}  // namespace mcit
