#pragma once
/// A round as a client is asked to take part in it. Without LibTorch.

#include <string>

#include "fed/round_engine.hpp"

namespace mcit::fed {

struct RoundRequest {
  UpdateInfo info;  ///< run, strategy, round and base; the client adds the rest
  Layout layout;    ///< what the update must hold
  Arrays model;     ///< what the client starts from
};

/// As an engine in this process asks a client.
RoundRequest request_of(RoundEngine& engine, const std::string& client);

/// As a server asks, which has sent this blob. It is from outside: everything in it is checked but whether
/// its tensors are those that the client trains. @param layout of the client's own rule
/// @throws DataError for a blob that is malformed or of another run
RoundRequest request_of(const std::string& model, const FederationSettings& settings, const Layout& layout);

}  // namespace mcit::fed
