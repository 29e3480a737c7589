#include "app/node_service.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <optional>
#include <thread>
#include <utility>

#include "fed/arrays.hpp"

namespace mcit {
namespace {

using Steady = std::chrono::steady_clock;

struct Answered {
  std::string model;  ///< SHA-256
  std::string update;
};

const std::string& model_of(const flower::Content& content) {
  if (content.arrays.size() != 1 || content.arrays[0].second.size() != 1 ||
      content.arrays[0].second[0].second.stype != "safetensors")
    throw flower::Failure("a message to train has no model in it; is the server mcit's?");
  return content.arrays[0].second[0].second.data;
}

flower::Content who(const NodeClient& client) {
  flower::ConfigRecord record = {{"client", client.id}, {"examples", client.examples}};
  std::string rounds;
  for (const std::int64_t round : client.rounds)
    rounds += (rounds.empty() ? "" : ",") + std::to_string(round);
  if (!rounds.empty()) record.emplace_back("rounds", std::move(rounds));
  return {{{"who", std::move(record)}}, {}};
}

flower::Content update_of(const NodeClient& client, const std::string& blob) {
  flower::Content out = who(client);
  const auto size = static_cast<std::int64_t>(blob.size());
  out.arrays.push_back({"update", {{"blob", {"uint8", {size}, "safetensors", blob}}}});
  return out;
}

enum class Answer { none, update, error };

/// @return what was sent of a training
Answer answer(flower::Node& node, const NodeClient& client, const flower::Request& request,
              std::optional<Answered>& last) {
  std::string why;
  try {
    const std::optional<flower::Content> content = node.content(request);
    if (!content) return Answer::none;
    if (request.type == "query") {
      node.reply(request, who(client));
      return Answer::none;
    }
    if (request.type != "train")
      throw flower::Failure("nothing is known of messages of the kind " + request.type);
    const std::string& model = model_of(*content);
    const std::string name = fed::sha256(model);
    if (!last || last->model != name) {
      last.reset();
      last = Answered{name, client.train(model)};
    }
    return node.reply(request, update_of(client, last->update)) ? Answer::update : Answer::none;
  } catch (const flower::Unreachable&) {
    throw;
  } catch (const flower::Refused&) {
    throw;
  } catch (const std::exception& error) {
    why = error.what();
  }
  return node.reply_error(request, client.id + ": " + why.substr(0, 500)) ? Answer::error : Answer::none;
}

}  // namespace

std::int64_t serve(flower::Node& node, const NodeClient& client, const ServiceOptions& options) {
  const auto stopped = [&] { return options.stop && options.stop(); };
  std::optional<Answered> last;
  std::optional<Steady::time_point> sent_at;
  std::int64_t sent = 0;
  node.join();
  if (options.notice) options.notice(client.id + " is node " + std::to_string(node.id()));
  while (!stopped()) {
    try {
      if (const auto request = node.pull()) {
        const Answer given = answer(node, client, *request, last);
        if (given == Answer::update) ++sent;
        if (given != Answer::none) sent_at = Steady::now();
        if (client.broken && client.broken()) break;
        continue;  // there may be more
      }
    } catch (const flower::Unreachable&) {
      if (!stopped()) throw;
    }
    if (options.idle) options.idle();
    node.sleep(options.poll);
  }
  if (sent_at) {
    const auto until = *sent_at + std::chrono::duration_cast<Steady::duration>(
                                      std::chrono::duration<double>(options.linger));
    std::this_thread::sleep_until(std::min(until, Steady::now() + std::chrono::seconds(30)));
  }
  node.leave();
  return sent;
}

}  // namespace mcit
