#pragma once
/// `mcit split serve`, `join` and `certs`: split learning between machines.

#include <string>
#include <vector>

#include "app/split_setup.hpp"
#include "core/run_dir.hpp"

namespace mcit {

struct NetworkFlags {
  std::string address = "127.0.0.1:7070", ca, certificate, key;
};

/// Runs the loop over clients that come to this address. What is shown at the end is the caller's.
RunResult serve_split(SplitSettings& settings, const NetworkFlags& network, RunDir& dir,
                      const std::string& command, split::Record& record);

struct JoinFlags {
  std::string client, state;
  bool own_data = false;  ///< the data folder is this client's alone
  double patience = 60.0;
};
void join_split(SplitSettings& settings, const NetworkFlags& network, const JoinFlags& flags);

/// Writes a certificate authority, a server's and clients' certificates into a new folder; keys are the
/// owner's alone to read.
void make_split_certificates(const std::string& folder, const std::vector<std::string>& hosts,
                             const std::vector<std::string>& clients);

}  // namespace mcit
