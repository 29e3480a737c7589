#include "core/launch.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

constexpr std::int64_t kMost = 1 << 16;  ///< processes, and one more than the last port

/// A whole number from `least` to below kMost; `fallback` where the variable is not set.
std::int64_t number(const Launch::Variables& variables, const char* name, std::int64_t least,
                    std::optional<std::int64_t> fallback = {}) {
  const std::optional<std::string> text = variables(name);
  if (!text || text->empty()) {
    if (fallback) return *fallback;
    throw ConfigError(name, "is not set, which a group of processes needs",
                      "torchrun sets it; see docs/guide/data_parallel.md");
  }
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc() || end != text->data() + text->size() || value < least || value >= kMost)
    throw ConfigError(
        name, "is '" + *text + "'",
        "it must be a whole number from " + std::to_string(least) + " to " + std::to_string(kMost - 1));
  return value;
}

void check_rank(const char* name, std::int64_t rank, std::int64_t size) {
  if (rank >= size)
    throw ConfigError(name, "is " + std::to_string(rank) + " in a group of " + std::to_string(size),
                      "ranks count from 0");
}

}  // namespace

Launch Launch::read(const Variables& variables) {
  const bool rank = variables("RANK").has_value(), size = variables("WORLD_SIZE").has_value();
  // Inside srun only: a batch script has the other variables too, and starts a single process.
  const bool slurm =
      !rank && !size && variables("SLURM_STEP_ID") && variables("SLURM_PROCID") && variables("MASTER_ADDR");
  Launch out;
  if (!rank && !size && !slurm) return out;
  if (!slurm && rank != size)
    throw ConfigError(rank ? "RANK" : "WORLD_SIZE",
                      std::string("is set without ") + (rank ? "WORLD_SIZE" : "RANK"), "set both or neither");
  out.size = number(variables, slurm ? "SLURM_NTASKS" : "WORLD_SIZE", 1);
  out.rank = number(variables, slurm ? "SLURM_PROCID" : "RANK", 0);
  check_rank(slurm ? "SLURM_PROCID" : "RANK", out.rank, out.size);
  out.restart = number(variables, "TORCHELASTIC_RESTART_COUNT", 0, 0);
  if (out.alone()) return out;
  // By hand and without these, all processes are on this machine.
  out.local_rank = number(variables, slurm ? "SLURM_LOCALID" : "LOCAL_RANK", 0, out.rank);
  out.local_size = slurm ? out.local_rank + 1 : number(variables, "LOCAL_WORLD_SIZE", 1, out.size);
  if (slurm) {  // "4" or, on several machines, "4(x2),3"
    const std::string each = variables("SLURM_TASKS_PER_NODE").value_or("");
    const bool alike = each.find(',') == std::string::npos;
    std::int64_t count = 0;
    if (alike && std::from_chars(each.data(), each.data() + each.size(), count).ec == std::errc())
      out.local_size = std::max(out.local_size, count);
  } else {
    check_rank("LOCAL_RANK", out.local_rank, out.local_size);
  }
  const std::optional<std::string> address = variables("MASTER_ADDR");
  if (!address || address->empty())
    throw ConfigError("MASTER_ADDR", "is not set, which a group of processes needs",
                      "it is the address of the machine with rank 0, on one machine 127.0.0.1");
  out.address = *address;
  out.port = static_cast<std::uint16_t>(number(variables, "MASTER_PORT", 1));
  out.agent_store = variables("TORCHELASTIC_USE_AGENT_STORE") == "True";
  return out;
}

Launch Launch::from_environment() {
  return read([](const char* name) -> std::optional<std::string> {
    const char* value = std::getenv(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  });
}

}  // namespace mcit
