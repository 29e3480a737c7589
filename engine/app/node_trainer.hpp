#pragma once
/// What a node trains with, alone or as one of several processes.

#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <string>

#include "app/federate_settings.hpp"

namespace mcit {

/// The settings of a federation, of one file and the flags over it.
struct NodeSettings {
  explicit NodeSettings(const RunFlags& flags);
  Config config;
  FederateSettings settings;
};

/// Model, rows and strategy, ready to train.
struct NodeTrainer : NodeSettings, RunParts {
  explicit NodeTrainer(const RunFlags& flags, const Launch& launch = {}, const Group& group = no_group());

  /// Features of what client k trains on, before somebody waits for it.
  void prefetch(std::int64_t k) const;
  /// @param folder for what the client keeps @param model as the server sent it @return an update
  std::string train(std::int64_t k, const std::filesystem::path& folder, const std::string& model);

  FederatedClients clients;
  StrategyPtr strategy;
  fed::Layout layout;  ///< of updates

 private:
  ClientOptions options();
};

/// The processes that train a client together, often just one. The first speaks with the server and says what
/// is to be done; the others do it.
class NodeCrew {
 public:
  /// @param folder of this process for what the client keeps @param outage seconds that the first process may
  /// have no answer for the others
  NodeCrew(NodeTrainer& trainer, std::int64_t k, std::filesystem::path folder, const Group& group,
           double outage);

  /// The first process's members. A training that throws does so in all processes.
  std::string train(const std::string& model);
  void still_here() const;
  void end() const;
  /// Whether a process has ended or hangs: only new ones could go on.
  bool broken() const { return failure_ != nullptr; }
  void throw_if_broken() const;

  /// The other processes: until the first ends.
  void follow();

 private:
  void say(const std::string& what) const;
  std::string together(const std::string& model);

  NodeTrainer& trainer_;
  std::int64_t k_;
  std::filesystem::path folder_;
  const Group& group_;
  std::chrono::milliseconds working_, waiting_;
  std::exception_ptr failure_;
};

}  // namespace mcit
