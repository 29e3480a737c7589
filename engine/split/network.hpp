#pragma once
/// Split learning between machines. The transport is a library of its own, libmcit_split_net.so, that is
/// opened when a server or a client asks for it: it brings gRPC, which nothing else here wants.

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "split/peers.hpp"

namespace mcit::split {

/// PEM texts. All empty: no TLS, which is for loopback addresses alone.
struct Credentials {
  std::string ca, certificate, key;
};

struct ServeOptions {
  std::string address;               ///< host:port; port 0 takes a free one
  Credentials credentials;           ///< clients must show a certificate of `ca`; its common name is their id
  std::vector<std::string> clients;  ///< who may come
  std::string agreement;             ///< of settings: a client with another one is refused
  std::size_t most_bytes = 0;        ///< of a message
};

struct JoinOptions {
  std::string address;
  Credentials credentials;  ///< `ca` is that of the server
  std::string id, agreement;
  std::size_t most_bytes = 0;
  double patience = 60.0;  ///< seconds to look for a server that is away
  std::function<bool()> stopping;
  std::function<void(const std::string&)> say;  ///< what happens to the connection
};

class NetworkPeers : public Peers {
 public:
  virtual std::string address() const = 0;  ///< with the port that was taken
  virtual void finish() = 0;                ///< tells all clients that the run is done
};

class Transport {
 public:
  virtual ~Transport() = default;
  /// @throws ConfigError when it cannot listen there
  virtual std::unique_ptr<NetworkPeers> serve(const ServeOptions& options) = 0;
  /// Answers the server's requests until it says that the run is done; looks for it again when it goes away.
  /// @return false when `stopping` ended it @throws ConfigError when it is refused, Error when nobody is
  /// there
  virtual bool join(const JoinOptions& options,
                    const std::function<std::string(std::string_view)>& answer) = 0;
  /// File name -> PEM: a certificate authority, a server for these hosts, and clients by id. P-256, ten
  /// years.
  virtual std::map<std::string, std::string> certificates(const std::vector<std::string>& hosts,
                                                          const std::vector<std::string>& clients) = 0;
};

/// @throws ConfigError when the library is not there
Transport& transport();

inline constexpr const char* kTransportEntry = "mcit_split_transport";

}  // namespace mcit::split
