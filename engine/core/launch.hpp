#pragma once
/// How this process was started: alone, or as one of a group that torchrun, Slurm or a script started.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace mcit {

struct Launch {
  std::int64_t rank = 0, size = 1;              ///< of the group
  std::int64_t local_rank = 0, local_size = 1;  ///< among its processes on this machine
  std::string address;                          ///< where the processes meet: that of the first one
  std::uint16_t port = 0;
  bool agent_store = false;  ///< torchrun keeps the meeting point: none of the processes opens it
  std::int64_t restart = 0;  ///< how often torchrun has started the group anew

  bool alone() const { return size == 1; }

  /// A variable of the environment; nothing where it is not set.
  using Variables = std::function<std::optional<std::string>(const char* name)>;
  /// By RANK and WORLD_SIZE, which torchrun sets; else, inside srun and with MASTER_ADDR, by Slurm's
  /// variables. @throws ConfigError naming the variable that is missing or makes no sense
  static Launch read(const Variables& variables);
  /// Of this process.
  static Launch from_environment();
};

}  // namespace mcit
