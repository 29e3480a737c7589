#include "train/snapshot.hpp"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

constexpr std::size_t kKept = 2;

/// Newest last: names are zero-padded numbers, so their order is time's.
std::vector<std::filesystem::path> snapshots_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  if (!std::filesystem::is_directory(folder)) return files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

Snapshot read_one(const std::filesystem::path& file) {
  SafetensorsFile saved = read_safetensors(file);
  const auto note = saved.metadata.find("mcit_snapshot");
  if (note == saved.metadata.end()) throw CheckpointError(file.string(), "is no snapshot of a run");
  const std::string where = file.string();
  Json meta = parse_json(note->second, where);
  const std::string digest = json_text(meta, "digest", where);
  meta.erase("digest");
  if (digest != digest_of(saved.tensors, dump_json(meta))) throw CheckpointError(where, "is damaged");
  Snapshot out;
  out.stage = json_integer(meta, "stage", where);
  out.step = json_integer(meta, "step", where);
  out.trained = meta.value("trained", false);
  out.trainable = meta.at("trainable").get<std::vector<std::string>>();
  out.result = json_text(meta, "result", where);
  out.metrics_bytes = static_cast<std::uint64_t>(json_integer(meta, "metrics_bytes", where));
  out.costs = meta.at("costs").get<std::map<std::string, double>>();
  const std::string strategy = "strategy.", optimizer = "optimizer.";
  for (auto& [name, tensor] : saved.tensors) {
    // Clones: the run goes on to change what it loads, and the file may be deleted.
    if (name.starts_with(strategy))
      out.strategy[name.substr(strategy.size())] = tensor.clone();
    else if (name.starts_with(optimizer))
      out.optimizer[name.substr(optimizer.size())] = tensor.clone();
  }
  return out;
}

}  // namespace

std::string digest_of(const StateDict& tensors, const std::string& note) {
  Hasher hasher;
  hasher.field(note);
  for (const auto& [name, tensor] : tensors) {
    hasher.field(name).field(at::toString(tensor.scalar_type()));
    for (const std::int64_t size : tensor.sizes()) hasher.update(size);
    const Tensor flat = tensor.detach().to(at::kCPU).contiguous();
    hasher.update(std::string_view(static_cast<const char*>(flat.const_data_ptr()), flat.nbytes()));
  }
  return hasher.hex();
}

void write_snapshot(const std::filesystem::path& folder, const Snapshot& s) {
  StateDict tensors;
  for (const auto& [name, tensor] : s.strategy)
    tensors["strategy." + name] = tensor.detach().to(at::kCPU).contiguous();
  for (const auto& [name, tensor] : s.optimizer)
    tensors["optimizer." + name] = tensor.detach().to(at::kCPU).contiguous();
  Json meta = {{"stage", s.stage},         {"step", s.step},     {"trained", s.trained},
               {"trainable", s.trainable}, {"result", s.result}, {"metrics_bytes", s.metrics_bytes},
               {"costs", s.costs}};
  meta["digest"] = digest_of(tensors, dump_json(meta));
  char name[64];
  std::snprintf(name, sizeof name, "%04lld-%09lld.safetensors", static_cast<long long>(s.stage),
                static_cast<long long>(s.step) + (s.trained ? 1 : 0));
  write_safetensors(folder / name, tensors, {{"mcit_snapshot", dump_json(meta)}});
  std::vector<std::filesystem::path> files = snapshots_in(folder);
  for (std::size_t i = 0; i + kKept < files.size(); ++i) {
    std::error_code ignored;
    std::filesystem::remove(files[i], ignored);
  }
}

std::optional<Snapshot> read_newest_snapshot(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files = snapshots_in(folder);
  std::string failure;
  for (auto file = files.rbegin(); file != files.rend(); ++file) {
    try {
      return read_one(*file);
    } catch (const std::exception& e) {
      failure = e.what();
      if (file + 1 != files.rend()) log::warn(failure, "; the snapshot before it is taken");
    }
  }
  if (!files.empty()) throw CheckpointError(folder.string(), "holds no readable snapshot", failure);
  return std::nullopt;
}

}  // namespace mcit
