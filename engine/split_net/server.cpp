#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "mcit/errors.hpp"
#include "parts.hpp"
#include "split.grpc.pb.h"

namespace mcit::split::net {
namespace {

using Stream = grpc::ServerReaderWriter<Envelope, Envelope>;

/// One client's stream. Its reader is the thread that gRPC calls Talk() on; what is sent to it goes through a
/// queue and a thread of its own, so that a client that does not read holds up nobody.
struct Connection {
  grpc::ServerContext* context = nullptr;
  std::deque<Envelope> outgoing;
  bool closed = false;
  std::uint64_t due = 0;             ///< number of the request that it has not answered; 0: none
  std::optional<std::string> reply;  ///< to the newest request
};

class Service final : public Split::Service {
 public:
  explicit Service(ServeOptions options) : options_(std::move(options)) {}

  grpc::Status Talk(grpc::ServerContext* context, Stream* stream) override;
  std::vector<std::string> online();
  std::vector<std::string> arrived();
  Mail ask(const Mail& requests, double seconds);
  void finish(double seconds);

 private:
  grpc::Status greet(grpc::ServerContext& context, Stream& stream, std::string& id);
  void write(Stream& stream, Connection& connection);
  bool refused(const std::string& id) const {
    return std::find(options_.clients.begin(), options_.clients.end(), id) == options_.clients.end();
  }

  ServeOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::shared_ptr<Connection>> connections_;
  std::set<std::string> arrived_;
  std::uint64_t number_ = 0;
};

/// Who it is, and whether it belongs here.
grpc::Status Service::greet(grpc::ServerContext& context, Stream& stream, std::string& id) {
  Envelope hello;
  if (!stream.Read(&hello)) return {grpc::StatusCode::CANCELLED, "no greeting"};
  const std::string start = std::string(kHello) + " ";
  const std::string& note = hello.note();
  const std::size_t space = note.rfind(' ');
  if (!note.starts_with(start) || space < start.size())
    return {grpc::StatusCode::FAILED_PRECONDITION,
            "it speaks '" + note.substr(0, 64) + "', this server " + kHello};
  id = note.substr(start.size(), space - start.size());
  if (!options_.credentials.ca.empty()) {
    const auto names = context.auth_context()->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
    const std::string name = names.empty() ? "" : std::string(names[0].data(), names[0].size());
    if (name != id)
      return {grpc::StatusCode::PERMISSION_DENIED,
              "the certificate is for '" + name + "', not for '" + id + "'"};
  }
  if (refused(id))
    return {grpc::StatusCode::PERMISSION_DENIED, "'" + id + "' is not among this run's clients"};
  if (note.substr(space + 1) != options_.agreement)
    return {grpc::StatusCode::FAILED_PRECONDITION,
            "settings, model or answers are not the server's: both must read the same configuration"};
  return grpc::Status::OK;
}

void Service::write(Stream& stream, Connection& connection) {
  for (;;) {
    Envelope next;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return connection.closed || !connection.outgoing.empty(); });
      if (connection.closed) return;
      next = std::move(connection.outgoing.front());
      connection.outgoing.pop_front();
    }
    if (!stream.Write(next)) return;
  }
}

grpc::Status Service::Talk(grpc::ServerContext* context, Stream* stream) {
  std::string id;
  if (const grpc::Status status = greet(*context, *stream, id); !status.ok()) return status;
  const auto mine = std::make_shared<Connection>();
  mine->context = context;
  Envelope welcome;
  welcome.set_note(kWelcome);
  mine->outgoing.push_back(std::move(welcome));
  {
    const std::lock_guard lock(mutex_);
    if (const auto before = connections_.find(id); before != connections_.end()) {
      before->second->closed =
          true;  // a client that came again: the old stream is dead, or somebody's mistake
      before->second->context->TryCancel();
    }
    connections_[id] = mine;
    arrived_.insert(id);
    changed_.notify_all();
  }
  std::thread writer([&] { write(*stream, *mine); });
  for (Envelope reply; stream->Read(&reply);) {
    const std::lock_guard lock(mutex_);
    if (mine->due == 0 || reply.number() != mine->due) continue;
    mine->due = 0;  // from now on it can be asked again, late or not
    mine->reply = std::move(*reply.mutable_blob());
    changed_.notify_all();
  }
  {
    const std::lock_guard lock(mutex_);
    mine->closed = true;
    if (const auto now = connections_.find(id); now != connections_.end() && now->second == mine)
      connections_.erase(now);
    changed_.notify_all();
  }
  context->TryCancel();  // a write that waits for a client that has gone
  writer.join();
  return grpc::Status::OK;
}

std::vector<std::string> Service::online() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> out;
  for (const auto& [id, connection] : connections_)
    if (!connection->closed && connection->due == 0) out.push_back(id);
  return out;
}

std::vector<std::string> Service::arrived() {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> out(arrived_.begin(), arrived_.end());
  arrived_.clear();
  return out;
}

Mail Service::ask(const Mail& requests, double seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::unique_lock lock(mutex_);
  std::map<std::string, std::shared_ptr<Connection>> asked;
  for (const auto& [id, request] : requests) {
    const auto found = connections_.find(id);
    if (found == connections_.end() || found->second->closed || found->second->due != 0) continue;
    Connection& connection = *found->second;
    Envelope next;
    next.set_number(++number_);
    next.set_blob(request);
    connection.due = number_;
    connection.reply.reset();
    connection.outgoing.push_back(std::move(next));
    asked[id] = found->second;
  }
  changed_.notify_all();
  const auto settled = [&] {
    return std::all_of(asked.begin(), asked.end(),
                       [](const auto& each) { return each.second->due == 0 || each.second->closed; });
  };
  changed_.wait_until(lock, std::chrono::time_point_cast<std::chrono::steady_clock::duration>(until),
                      settled);
  Mail out;
  for (const auto& [id, connection] : asked)
    if (connection->due == 0 && connection->reply) out[id] = std::move(*connection->reply);
  return out;
}

/// Clients hang up when they are told; who does not within `seconds` is cut off by the server's shutdown.
void Service::finish(double seconds) {
  std::unique_lock lock(mutex_);
  for (const auto& [id, connection] : connections_) {
    Envelope done;
    done.set_note(kDone);
    connection->outgoing.push_back(std::move(done));
  }
  changed_.notify_all();
  changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return connections_.empty(); });
}

class GrpcPeers final : public NetworkPeers {
 public:
  explicit GrpcPeers(const ServeOptions& options) : service_(options) {
    const auto [host, port] = host_and_port(options.address);
    std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
    if (options.credentials.ca.empty()) {
      if (!is_loopback(host))
        throw ConfigError("--address",
                          "'" + options.address + "' is not a loopback address, and there is no TLS",
                          "give --ca, --cert and --key; mcit split certs makes them");
    } else {
      grpc::SslServerCredentialsOptions tls(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
      tls.pem_root_certs = options.credentials.ca;
      tls.pem_key_cert_pairs.push_back({options.credentials.key, options.credentials.certificate});
      credentials = grpc::SslServerCredentials(tls);
    }
    int taken = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort(options.address, credentials, &taken);
    builder.RegisterService(&service_);
    builder.SetMaxReceiveMessageSize(frame_limit(options.most_bytes));
    builder.SetMaxSendMessageSize(-1);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                               10000);  // finds machines that have gone without a word
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || taken == 0)
      throw ConfigError("--address", "cannot listen on '" + options.address + "'",
                        "is the port taken, or do certificate and key not belong together?");
    address_ = (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + std::to_string(taken);
  }
  ~GrpcPeers() override {
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
    server_->Wait();
  }

  std::string address() const override { return address_; }
  std::vector<std::string> online() override { return service_.online(); }
  std::vector<std::string> arrived() override { return service_.arrived(); }
  Mail ask(const Mail& requests, double seconds) override { return service_.ask(requests, seconds); }
  void finish() override { service_.finish(5.0); }

 private:
  Service service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

class GrpcTransport final : public Transport {
 public:
  std::unique_ptr<NetworkPeers> serve(const ServeOptions& options) override {
    return std::make_unique<GrpcPeers>(options);
  }
  bool join(const JoinOptions& options, const std::function<std::string(std::string_view)>& answer) override {
    return net::join(options, answer);
  }
  std::map<std::string, std::string> certificates(const std::vector<std::string>& hosts,
                                                  const std::vector<std::string>& clients) override {
    return net::certificates(hosts, clients);
  }
};

}  // namespace

std::pair<std::string, std::string> host_and_port(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  const std::string port = colon == std::string::npos ? "" : address.substr(colon + 1);
  std::string host = address.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty() || port.empty() || port.size() > 5 ||
      port.find_first_not_of("0123456789") != std::string::npos || std::stoi(port) > 65535)
    throw ConfigError("--address", "'" + address + "' is not HOST:PORT", "for example 127.0.0.1:7070");
  return {host, port};
}

bool is_loopback(const std::string& host) {
  const bool number = host.find_first_not_of("0123456789.") == std::string::npos;
  return host == "localhost" || host == "::1" || (number && host.starts_with("127."));
}

}  // namespace mcit::split::net

extern "C" __attribute__((visibility("default"))) mcit::split::Transport* mcit_split_transport() {
  static auto* const transport = new mcit::split::net::GrpcTransport;  // outlives every thread of gRPC
  return transport;
}
