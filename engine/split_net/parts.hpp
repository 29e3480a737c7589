#pragma once
/// Private to this library.

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <string>

#include "split/network.hpp"

namespace mcit::split::net {

/// Deleter of what OpenSSL hands out.
template <auto release>
struct Free {
  template <class T>
  void operator()(T* pointer) const {
    release(pointer);
  }
};

/// How a greeting and what comes after it begin.
inline constexpr const char *kHello = "hello mcit.split.1", *kWelcome = "welcome", *kDone = "done";

/// A message and its frame.
inline int frame_limit(std::size_t most_bytes) { return static_cast<int>(most_bytes + 4096); }

/// "127.0.0.1:80" -> "127.0.0.1"; "[::1]:80" -> "::1". @throws ConfigError unless it is HOST:PORT
std::pair<std::string, std::string> host_and_port(const std::string& address);
bool is_loopback(const std::string& host);

/// Why a server does not take this client, found out by a handshake of its own.
struct Refusal {
  bool final = false;  ///< trying again will not help
  std::string what;
};
Refusal why_refused(const JoinOptions& options);

std::unique_ptr<NetworkPeers> serve(const ServeOptions& options);
bool join(const JoinOptions& options, const std::function<std::string(std::string_view)>& answer);
std::map<std::string, std::string> certificates(const std::vector<std::string>& hosts,
                                                const std::vector<std::string>& clients);

}  // namespace mcit::split::net
