#pragma once
/// One connection to a SuperLink: protobuf in the body of a POST, every request signed. Not for use outside
/// of the library.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "fed/flower/key.hpp"
#include "fed/flower/node.hpp"

namespace mcit::flower {

class Http {
 public:
  /// @throws Failure for an address that is neither https nor loopback
  Http(const Address& address, const Key& key);
  ~Http();

  /// POST /v1/fleet/<call>. @return the body of the answer @throws Unreachable, Refused
  std::string post(const std::string& call, const std::string& body);
  void timeout(double seconds);  ///< of one call, when nothing moves
  /// Ends a call that is under way, soon after it says true.
  void stop_when(std::function<bool()> stop);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// ISO 8601 with microseconds and "+00:00", as Python's datetime.fromisoformat reads it.
std::string timestamp();

}  // namespace mcit::flower
