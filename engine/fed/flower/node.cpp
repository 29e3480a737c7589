#include "fed/flower/node.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <random>
#include <thread>

#include "fed/flower/http.hpp"
#include "fleet.pb.h"

namespace mcit::flower {

namespace {

namespace wire = flwr::proto;
using Steady = std::chrono::steady_clock;

constexpr int kKeyInUse = 23, kRunNotAllowed = 2007;  // ApiErrorCode of flwr; the drift test compares them

double since(Steady::time_point begin) {
  return std::chrono::duration<double>(Steady::now() - begin).count();
}
double unix_now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// 0.5 .. 1.5 of `seconds`, so that nodes that lost their SuperLink together do not come back together. No
/// result depends on it.
double jittered(double seconds) {
  thread_local std::minstd_rand generator(std::random_device{}());
  return seconds * std::uniform_real_distribution<double>(0.5, 1.5)(generator);
}

template <class Response, class Message>
Response call(Http& http, const std::string& name, const Message& request) {
  Response response;
  if (!response.ParseFromString(http.post(name, request.SerializeAsString())))
    throw Failure(name +
                  ": the SuperLink's answer is not what the call promises; is it flwr >= 1.40 and < 1.43?");
  return response;
}

/// What was asked belongs to a run that is over, or this node was forgotten: pull() finds out which.
bool run_has_ended(const Refused& refused) { return refused.code == kRunNotAllowed || refused.status == 401; }

void tree_of(const Packed& packed, const std::string& id, wire::ObjectTree& tree) {
  tree.set_object_id(id);
  for (const std::string& child : packed.at(id).children) tree_of(packed, child, *tree.add_children());
}

}  // namespace

struct Node::State {
  State(const Address& to, const Key& with, NodeOptions chosen)
      : options(std::move(chosen)), public_key(with.public_pem()), http(to, with), beat_http(to, with) {
    if (!(options.heartbeat >= 10.0 && options.heartbeat <= 1800.0))
      throw Failure("heartbeat: Flower takes 10 to 1800 seconds");
    http.stop_when([this] { return stopped(); });
    beat_http.stop_when([this] { return stopped() || ending(); });
    beat_http.timeout(5.0);
  }

  NodeOptions options;
  std::string public_key;
  Http http, beat_http;
  std::uint64_t id = 0;
  std::mutex mutex;
  std::condition_variable changed;
  std::thread beat;
  bool end = false, lost = false;  // under the mutex

  bool stopped() const { return options.stop && options.stop(); }
  bool ending() {
    const std::lock_guard lock(mutex);
    return end;
  }
  void say(const std::string& text) const {
    if (options.notice) options.notice(text);
  }

  /// Tries again while the SuperLink is away.
  template <class Response, class Message>
  Response insist(const std::string& name, const Message& request) {
    const auto begin = Steady::now();
    for (double pause = 0.5;; pause = std::min(2.0 * pause, 15.0)) {
      try {
        return call<Response>(http, name, request);
      } catch (const Unreachable& error) {
        if (stopped() || since(begin) > options.patience) throw;
        if (pause == 0.5) say(std::string(error.what()) + "; trying again");
      }
      wait(jittered(pause));
    }
  }

  bool wait(double seconds) const {
    const auto begin = Steady::now();
    while (since(begin) < seconds) {
      if (stopped()) return false;
      std::this_thread::sleep_for(std::chrono::duration<double>(std::min(0.1, seconds)));
    }
    return !stopped();
  }

  void end_heartbeat() {
    {
      const std::lock_guard lock(mutex);
      end = true;
    }
    changed.notify_all();
    if (beat.joinable()) beat.join();
    end = lost = false;
  }

  void heartbeat() noexcept {
    wire::SendNodeHeartbeatRequest request;
    request.mutable_node()->set_node_id(id);
    request.set_heartbeat_interval(options.heartbeat);
    double pause = 0.6 * options.heartbeat;
    for (std::unique_lock lock(mutex);;) {
      if (changed.wait_for(lock, std::chrono::duration<double>(pause), [this] { return end; })) return;
      lock.unlock();
      bool known = true;
      pause = 0.6 * options.heartbeat;
      try {
        known = call<wire::SendNodeHeartbeatResponse>(beat_http, "send-node-heartbeat", request).success();
      } catch (const Refused&) {
        known = false;
      } catch (const std::exception&) {
        pause = jittered(2.0);
      }
      lock.lock();
      if (!known) lost = true;
    }
  }

  bool push(const Request& request, Packed& packed, const wire::Error* error,
            const std::function<void(std::string&)>& spoil);
};

Node::Node(const Address& address, const Key& key, NodeOptions options)
    : state_(std::make_unique<State>(address, key, std::move(options))) {}
Node::~Node() { leave(); }
std::uint64_t Node::id() const { return state_->id; }
bool Node::sleep(double seconds) const { return state_->wait(seconds); }

void Node::join() {
  State& s = *state_;
  s.end_heartbeat();
  if (s.options.self_register) {
    wire::RegisterNodeFleetRequest request;
    request.set_public_key(s.public_key);
    try {
      s.insist<wire::RegisterNodeFleetResponse>("register-node", request);
    } catch (const Refused& error) {
      if (error.code != kKeyInUse) throw;  // else this node was here before
    }
  }
  wire::ActivateNodeRequest request;
  request.set_public_key(s.public_key);
  request.set_heartbeat_interval(s.options.heartbeat);
  s.id = s.insist<wire::ActivateNodeResponse>("activate-node", request).node_id();
  s.beat = std::thread([&s] { s.heartbeat(); });
}

std::optional<Request> Node::pull() {
  State& s = *state_;
  bool lost = false;
  {
    const std::lock_guard lock(s.mutex);
    lost = s.lost;
  }
  wire::PullMessagesRequest request;
  request.mutable_node()->set_node_id(s.id);
  wire::PullMessagesResponse response;
  if (!lost) {
    try {
      response = s.insist<wire::PullMessagesResponse>("pull-messages", request);
    } catch (const Refused& error) {
      if (error.status != 401) throw;
      lost = true;
    }
  }
  if (lost) {
    s.say("the SuperLink does not know this node any more; joining again");
    join();
    return std::nullopt;
  }
  if (response.messages_list_size() == 0) return std::nullopt;
  const wire::Metadata& from = response.messages_list(0).metadata();
  Request out{from.run_id(),
              from.message_id(),
              from.message_type(),
              from.group_id(),
              from.src_node_id(),
              from.dst_node_id(),
              {},
              {},
              from.created_at(),
              from.ttl()};
  if (from.has_src_task_id()) out.from_task = from.src_task_id();
  if (from.has_dst_task_id()) out.to_task = from.dst_task_id();
  return out;
}

std::optional<Content> Node::content(const Request& request) try {
  State& s = *state_;
  const Fetch fetch = [&](const std::string& id) {
    wire::PullObjectRequest ask;
    ask.mutable_node()->set_node_id(s.id);
    ask.set_run_id(request.run);
    ask.set_object_id(id);
    const auto begin = Steady::now();
    for (double pause = 0.2;; pause = std::min(2.0 * pause, 5.0)) {
      auto answer = s.insist<wire::PullObjectResponse>("pull-object", ask);
      if (!answer.object_found())
        throw Failure("object " + id.substr(0, 12) + ": the SuperLink does not have it");
      if (answer.object_available()) return std::move(*answer.mutable_object_content());
      if (since(begin) > s.options.object_wait || !s.wait(pause))
        throw Failure("object " + id.substr(0, 12) + ": announced, and not there after " +
                      std::to_string(static_cast<int>(since(begin))) + " s");
    }
  };
  const std::string bytes = fetch(request.id);
  const Object message = read_object(bytes, request.id);
  if (message.type != "Message" || message.children.size() != 1)
    throw Failure("message " + request.id.substr(0, 12) + ": has no content");
  Content out = unpack(message.children[0], fetch, s.options.limit);
  wire::ConfirmMessageReceivedRequest confirm;
  confirm.mutable_node()->set_node_id(s.id);
  confirm.set_run_id(request.run);
  confirm.set_message_object_id(request.id);
  s.insist<wire::ConfirmMessageReceivedResponse>("confirm-message-received", confirm);
  return out;
} catch (const Refused& refused) {
  if (!run_has_ended(refused)) throw;
  state_->say(std::string("a message is not wanted any more: ") + refused.what());
  return std::nullopt;
}

bool Node::State::push(const Request& request, Packed& packed, const wire::Error* error,
                       const std::function<void(std::string&)>& spoil) {
  wire::Message message;
  wire::Metadata& to = *message.mutable_metadata();
  to.set_run_id(request.run);
  to.set_src_node_id(request.to);
  to.set_dst_node_id(request.from);
  to.set_reply_to_message_id(request.id);
  to.set_group_id(request.group);
  to.set_message_type(request.type);
  to.set_created_at(unix_now());
  to.set_ttl(request.created + request.ttl - to.created_at());  // never longer than the question lives
  if (request.to_task) to.set_src_task_id(*request.to_task);
  if (request.from_task) to.set_dst_task_id(*request.from_task);
  if (to.ttl() <= 0.0) {
    say("an answer is too late: the question has expired");
    return false;
  }
  if (error != nullptr) *message.mutable_error() = *error;
  const std::vector<std::string> children =
      error != nullptr ? std::vector<std::string>{} : std::vector<std::string>{packed.root()};
  to.set_message_id(packed.add("Message", children, message.SerializeAsString()));
  if (error == nullptr)
    message.mutable_content();  // not part of the object: flwr takes it out before it hashes

  wire::PushMessagesRequest ask;
  ask.mutable_node()->set_node_id(id);
  *ask.add_messages_list() = message;
  tree_of(packed, to.message_id(), *ask.add_message_object_trees());
  try {
    const auto wanted = insist<wire::PushMessagesResponse>("push-messages", ask);
    for (const std::string& object : wanted.objects_to_push()) {
      const Packed::Piece& piece = packed.at(object);
      wire::PushObjectRequest put;
      put.mutable_node()->set_node_id(id);
      put.set_run_id(request.run);
      put.set_object_id(object);
      put.set_session_id(wanted.session_id());
      std::string& bytes = *put.mutable_object_content();
      bytes.reserve(piece.head.size() + piece.body.size());
      bytes.append(piece.head).append(piece.body);
      if (spoil) spoil(bytes);
      if (!insist<wire::PushObjectResponse>("push-object", put).stored())
        say("object " + object.substr(0, 12) +
            " was not stored: the SuperLink has it, or its bytes are damaged");
    }
  } catch (const Refused& refused) {
    if (!run_has_ended(refused)) throw;
    say(std::string("an answer is not wanted any more: ") + refused.what());
    return false;
  }
  return true;
}

bool Node::reply(const Request& request, const Content& content) {
  Packed packed(content);
  return state_->push(request, packed, nullptr, damage);
}

bool Node::reply_error(const Request& request, const std::string& reason) {
  Packed packed;
  wire::Error error;
  error.set_code(0);  // ErrorCode.UNKNOWN: the reason says more than Flower's own codes could
  error.set_reason(reason);
  return state_->push(request, packed, &error, {});
}

void Node::leave(bool forget) noexcept {
  State& s = *state_;
  try {
    s.end_heartbeat();
    if (s.id == 0) return;
    const std::uint64_t id = std::exchange(s.id, 0);
    s.http.stop_when({});  // a node that was told to stop still says goodbye
    s.http.timeout(5.0);
    wire::DeactivateNodeRequest deactivate;
    deactivate.set_node_id(id);
    call<wire::DeactivateNodeResponse>(s.http, "deactivate-node", deactivate);
    if (!forget || !s.options.self_register) return;
    wire::UnregisterNodeFleetRequest unregister;
    unregister.set_node_id(id);
    call<wire::UnregisterNodeFleetResponse>(s.http, "unregister-node", unregister);
  } catch (const std::exception& error) {
    try {
      s.say(std::string("leaving: ") + error.what());
    } catch (...) {  // nothing more can be said
    }
  }
}

}  // namespace mcit::flower
