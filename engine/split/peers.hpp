#pragma once
/// Whoever holds the clients' ends: objects of this process, or connections to others.

#include <map>
#include <string>
#include <vector>

namespace mcit::split {

using Mail = std::map<std::string, std::string>;  ///< client -> encoded message

class Peers {
 public:
  virtual ~Peers() = default;
  /// Clients that can be asked now, in alphabetical order.
  virtual std::vector<std::string> online() = 0;
  /// Sends each client its request and returns what came back within `seconds`; who fell away is not in it.
  virtual Mail ask(const Mail& requests, double seconds) = 0;
  /// Clients that came since this was asked last (all, the first time): what they keep is of another place.
  virtual std::vector<std::string> arrived() = 0;
};

}  // namespace mcit::split
