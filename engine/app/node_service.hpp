#pragma once
/// What a client of a federation does all day: say its name, train when it is asked to, answer. Without
/// LibTorch.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fed/flower/node.hpp"

namespace mcit {

struct NodeClient {
  std::string id;                    ///< logical: the same after a restart
  std::int64_t examples = 0;         ///< said when the server asks who is there
  std::vector<std::int64_t> rounds;  ///< that it has rows for; empty: all
  /// A model blob, as the round engine makes it, to an update blob. Throws what the server is to be told.
  std::function<std::string(const std::string& model)> train;
  std::function<bool()> broken;  ///< after a training that threw: whether none could succeed any more
};

struct ServiceOptions {
  double poll = 1.0;           ///< seconds between questions for work
  std::function<void()> idle;  ///< called between them; what it throws ends the node
  double linger = 10.0;        ///< seconds to stay after an answer, so that the server can fetch it
  std::function<bool()> stop;
  std::function<void(const std::string&)> notice;
};

/// Joins, and works until `stop` says so or the client is broken. A training that throws becomes an error
/// answer and the node goes on; the same model sent twice is trained once. @return updates that were sent
/// @throws flower::Failure
std::int64_t serve(flower::Node& node, const NodeClient& client, const ServiceOptions& options);

}  // namespace mcit
