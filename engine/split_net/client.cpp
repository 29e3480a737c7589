#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "mcit/errors.hpp"
#include "parts.hpp"
#include "split.grpc.pb.h"

namespace mcit::split::net {
namespace {

using Clock = std::chrono::steady_clock;

std::shared_ptr<grpc::Channel> open_channel(const JoinOptions& options) {
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (!options.credentials.ca.empty()) {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = options.credentials.ca;
    tls.pem_cert_chain = options.credentials.certificate;
    tls.pem_private_key = options.credentials.key;
    credentials = grpc::SslCredentials(tls);
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(frame_limit(options.most_bytes));
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL,
                   1);  // a new try is not held up by the last one's failure
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(options.address, credentials, arguments);
}

/// Cancels a call when the program is asked to stop: reads block.
class Watch {
 public:
  Watch(const JoinOptions& options, grpc::ClientContext& context)
      : thread_([this, &options, &context] {
          while (!done_.load()) {
            if (options.stopping && options.stopping()) context.TryCancel();
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
          }
        }) {}
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch() {
    done_.store(true);
    thread_.join();
  }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;
};

enum class End { done, lost, stopped };

/// One connection, from the greeting to its end. @param met set once the server has let the client in
End talk(const JoinOptions& options, const std::function<std::string(std::string_view)>& answer, bool& met,
         grpc::Status& status) {
  const std::unique_ptr<Split::Stub> stub = Split::NewStub(open_channel(options));
  grpc::ClientContext context;
  const Watch watch(options, context);
  const auto stream = stub->Talk(&context);
  Envelope hello;
  hello.set_note(std::string(kHello) + " " + options.id + " " + options.agreement);
  bool done = false;
  if (stream->Write(hello))
    for (Envelope request; stream->Read(&request);) {
      if (request.note() == kWelcome) {
        met = true;
        options.say("connected to " + options.address);
        continue;
      }
      if (request.note() == kDone) {
        done = true;
        break;
      }
      Envelope reply;
      reply.set_number(request.number());
      reply.set_blob(answer(request.blob()));
      if (!stream->Write(reply)) break;
    }
  stream->WritesDone();
  status = stream->Finish();
  if (done) return End::done;
  return options.stopping && options.stopping() ? End::stopped : End::lost;
}

/// @throws ConfigError for an answer that trying again will not change
std::string reason(const JoinOptions& options, const grpc::Status& status) {
  const std::string who = "server at " + options.address;
  switch (status.error_code()) {
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::PERMISSION_DENIED:
      throw ConfigError(who, "refuses '" + options.id + "': " + status.error_message());
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      throw ConfigError(who, "sent or was sent more than one message may hold: " + status.error_message(),
                        "raise network.largest_message_mb on both sides");
    default:
      break;
  }
  const Refusal refusal = why_refused(options);
  if (refusal.final) throw ConfigError(who, refusal.what);
  return refusal.what;
}

}  // namespace

bool join(const JoinOptions& options, const std::function<std::string(std::string_view)>& answer) {
  host_and_port(options.address);
  constexpr double kFirst = 0.2, kMost = 5.0;  // seconds between tries
  std::minstd_rand jitter(std::random_device{}());
  auto last_seen = Clock::now();
  double pause = kFirst;
  for (;;) {
    bool met = false;
    grpc::Status status;
    const End end = talk(options, answer, met, status);
    if (end != End::lost) return end == End::done;
    if (met) {
      last_seen = Clock::now();
      pause = kFirst;
    }
    const std::string why = reason(options, status);
    if (std::chrono::duration<double>(Clock::now() - last_seen).count() > options.patience)
      throw Error("server at " + options.address, "is away: " + why, "start it, or give --patience SECONDS");
    options.say("the server is away (" + why + "); trying again");
    // Between half and all of the pause: clients that lost one server together do not come back together.
    const double wait = pause * (0.5 + 0.5 * static_cast<double>(jitter() % 1000) / 1000.0);
    for (const auto until = Clock::now() + std::chrono::duration<double>(wait); Clock::now() < until;) {
      if (options.stopping && options.stopping()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    pause = std::min(kMost, 2.0 * pause);
  }
}

}  // namespace mcit::split::net
