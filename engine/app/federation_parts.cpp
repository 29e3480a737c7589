#include "app/federation_parts.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/torch.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "core/log.hpp"
#include "core/random.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

struct Pair {
  at::ScalarType tensor;
  fed::Dtype array;
};
constexpr Pair kTypes[] = {{at::kDouble, fed::Dtype::f64},
                           {at::kFloat, fed::Dtype::f32},
                           {at::kHalf, fed::Dtype::f16},
                           {at::kBFloat16, fed::Dtype::bf16}};

std::string file_name(const std::string& id, std::int64_t round) {
  return id + "-" + std::to_string(round) + ".safetensors";
}

/// Round in the name of one of this client's files; -1 for any other name.
std::int64_t round_of(const std::string& name, const std::string& id) {
  constexpr std::string_view kEnding = ".safetensors";
  if (!name.starts_with(id + "-") || !name.ends_with(kEnding)) return -1;
  const std::string digits = name.substr(id.size() + 1, name.size() - id.size() - 1 - kEnding.size());
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

void FederatedTerms::on_gradients(Step& step) {
  inner_.on_gradients(step);
  for (const Parameter& p : step.trainable) {
    Tensor gradient = p.value.grad();
    if (!gradient.defined()) continue;
    if (const auto at = anchor.find(p.name); proximal > 0.0 && at != anchor.end())
      gradient.add_(p.value.detach() - at->second, proximal);  // ∇ μ/2 ‖w - w_round‖²
    if (const auto c = correction.find(p.name); c != correction.end()) gradient.add_(c->second);
  }
}

ClientHost::ClientHost(const std::vector<ExamplePtr>& probe, std::uint64_t seed)
    : probe_(probe), seed_(seed), generator_(at::make_generator<at::CPUGeneratorImpl>()) {}

void ClientHost::info(const std::string& message) { log::debug(client, ": ", message); }
void ClientHost::warn(const std::string& message) { log::warn(client, client.empty() ? "" : ": ", message); }

std::unique_ptr<Batches> ClientHost::probe() {
  if (probe_.empty())
    throw ConfigError("suite", "has no data like that of the model's pre-training",
                      "add probe = \"FILE\" to the suite, training records in CoIN's form");
  return std::make_unique<parts::ExampleBatches>(probe_);
}

at::Generator ClientHost::generator() {
  if (pending_) generator_.set_current_seed(*pending_);
  pending_.reset();
  return generator_;
}

ExamplePtr ClientHost::example(std::int64_t task, std::int64_t index) {
  if (rows != nullptr && met.contains(task))
    for (const ExamplePtr& row : (*rows)[static_cast<std::size_t>(task)])
      if (row->index == index) return row;
  throw Error("host.example", "client '" + client + "' has not met row " + std::to_string(index) +
                                  " of task " + std::to_string(task));
}

void ClientHost::enter(const char* hook) {
  pending_ = derive(seed_, {"federated strategy", hook, std::string_view(client), round, step});
}

void write_client(const fs::path& folder, const std::string& id, std::int64_t round,
                  const ClientState& state) {
  StateDict tensors;
  for (const auto& [name, tensor] : state.strategy) tensors["strategy/" + name] = tensor;
  put_vectors(tensors, "residual/", state.residual);
  put_vectors(tensors, "control/", state.control);
  fs::create_directories(folder);
  write_safetensors(folder / file_name(id, round), tensors,
                    {{"task", std::to_string(state.task)},
                     {"met", nlohmann::json(state.met).dump()},
                     {"trainable", nlohmann::json(state.trainable).dump()}});
  std::vector<std::int64_t> rounds;
  for (const auto& entry : fs::directory_iterator(folder))
    if (const std::int64_t r = round_of(entry.path().filename().string(), id); r >= 0) rounds.push_back(r);
  std::sort(rounds.rbegin(), rounds.rend());
  for (std::size_t i = 2; i < rounds.size(); ++i) fs::remove(folder / file_name(id, rounds[i]));
}

ClientState read_client(const fs::path& folder, const std::string& id, std::int64_t committed) {
  ClientState out;
  std::int64_t newest = -1;
  std::vector<fs::path> ahead;
  if (fs::is_directory(folder))
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::int64_t round = round_of(entry.path().filename().string(), id);
      if (round > committed) ahead.push_back(entry.path());
      if (round <= committed) newest = std::max(newest, round);
    }
  for (const fs::path& file : ahead) fs::remove(file);
  if (newest < 0) return out;
  const fs::path file = folder / file_name(id, newest);
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

fed::ArrayView view_of_tensor(const Tensor& tensor) {
  for (const Pair& pair : kTypes)
    if (tensor.scalar_type() == pair.tensor)
      return {pair.array,
              tensor.sizes().vec(),
              {static_cast<const std::byte*>(tensor.const_data_ptr()),
               static_cast<std::size_t>(tensor.nbytes())}};
  throw Error("federated",
              std::string("tensors of type ") + at::toString(tensor.scalar_type()) + " do not travel");
}

fed::Array array_of_tensor(const Tensor& tensor) {
  const Tensor flat = tensor.detach().to(at::kCPU).contiguous();
  const fed::ArrayView view = view_of_tensor(flat);
  return {view.dtype, view.shape, {view.bytes.begin(), view.bytes.end()}};
}

Tensor tensor_of_array(const fed::Array& array) {
  for (const Pair& pair : kTypes) {
    if (array.dtype != pair.array) continue;
    Tensor out = at::empty(array.shape, at::TensorOptions().dtype(pair.tensor));
    if (!array.bytes.empty()) std::memcpy(out.data_ptr(), array.bytes.data(), array.bytes.size());
    return out;
  }
  throw Error("federated", "a tensor is not of floating-point numbers");
}

void copy_into(const fed::Array& array, Tensor target) {
  if (target.sizes().vec() != array.shape) throw Error("federated", "a tensor has changed its shape");
  const at::NoGradGuard no_grad;
  for (const Pair& pair : kTypes) {
    if (array.dtype != pair.array) continue;
    if (target.is_cpu() && target.is_contiguous() && target.scalar_type() == pair.tensor) {
      if (!array.bytes.empty()) std::memcpy(target.data_ptr(), array.bytes.data(), array.bytes.size());
    } else {
      target.copy_(tensor_of_array(array));
    }
    return;
  }
  throw Error("federated", "a tensor is not of floating-point numbers");
}

}  // namespace mcit
