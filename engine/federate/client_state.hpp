#pragma once
/// What a client keeps between its rounds, and the files it lies in.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "mcit/strategy.hpp"

namespace mcit {

/// What a client keeps between its rounds.
struct ClientState {
  std::int64_t task = -1;  ///< it is training; -1 before the first
  std::vector<std::int64_t> met;
  StateDict strategy;                  ///< without what travels
  std::vector<std::string> trainable;  ///< parameters that require a gradient
  std::map<std::string, std::vector<double>> residual, control;

  bool empty() const { return strategy.empty() && residual.empty() && control.empty(); }
};
/// One file for a round, in the client's folder. Files of rounds that are not committed are not read.
void write_client(const std::filesystem::path& folder, std::int64_t round, const ClientState& state);
/// The newest of rounds up to `committed`; a fresh state when there is none. Later files are removed.
ClientState read_client(const std::filesystem::path& folder, std::int64_t committed);

}  // namespace mcit
