#pragma once
/// A node of a Flower federation: it is known by its key, is given messages one at a time, and answers them.
///
///   Node node({.url = "https://server:8000", .ca_file = "ca.pem"}, key, {});
///   node.join();
///   while (...)
///     if (auto request = node.pull())
///       if (auto content = node.content(*request)) node.reply(*request, answer(*content));
///   node.leave();
///
/// The SuperLink cannot send code: a node reads what its messages say and nothing else.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "fed/flower/key.hpp"
#include "fed/flower/objects.hpp"

namespace mcit::flower {

struct Address {
  std::string url;                      ///< https://HOST:PORT; http only where HOST is this machine
  std::string ca_file;                  ///< PEM; empty: the system's
  std::string client_cert, client_key;  ///< PEM, for a terminator that wants them
};

struct NodeOptions {
  bool self_register = true;   ///< false where the SuperLink has a list of keys
  double heartbeat = 30.0;     ///< seconds, 10 .. 1800; the SuperLink forgets a node after two of them
  double patience = 600.0;     ///< seconds that a SuperLink may be away
  double object_wait = 120.0;  ///< seconds that an object may be announced and not there yet
  std::uint64_t limit = std::uint64_t{8} << 30;  ///< bytes of arrays in one message
  std::function<bool()> stop;  ///< true ends every wait; asked from this thread and the heartbeat's
  std::function<void(const std::string&)> notice;  ///< what a person may want to know; from both threads
};

/// A message as it was pulled; its content is still at the SuperLink.
struct Request {
  std::uint64_t run = 0;
  std::string id, type, group;
  std::uint64_t from = 0, to = 0;
  std::optional<std::uint64_t> from_task, to_task;
  double created = 0.0, ttl = 0.0;  ///< seconds since 1970, and from then on
};

/// One thread, besides the heartbeat's own.
class MCIT_FLOWER_EXPORT Node {
 public:
  Node(const Address& address, const Key& key, NodeOptions options);
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node();  ///< leaves, without errors

  /// Registers where need be, activates, and begins to send heartbeats. @throws Failure, Refused
  void join();
  std::uint64_t id() const;

  /// The next message, if there is one. Goes on after an outage, and joins again where the SuperLink does not
  /// know the node any more. @throws Unreachable after `patience`, Refused
  std::optional<Request> pull();
  /// All that a message says; then the SuperLink may forget it. Nothing where its run is over: no answer is
  /// wanted any more. @throws Failure
  std::optional<Content> content(const Request& request);
  /// @return false where the run is over and the SuperLink wants no answer any more
  bool reply(const Request& request, const Content& content);
  bool reply_error(const Request& request, const std::string& reason);
  /// Deactivates: no more messages until the next join. @param forget also unregisters a node that had
  /// registered itself
  void leave(bool forget = false) noexcept;

  /// Waits, or returns false at once where `stop` says so.
  bool sleep(double seconds) const;

  /// For tests: what is done to an object's bytes before they are sent.
  std::function<void(std::string& bytes)> damage;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mcit::flower
