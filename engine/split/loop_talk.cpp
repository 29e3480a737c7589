#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "core/log.hpp"
#include "core/system.hpp"
#include "federate/tensors.hpp"
#include "mcit/errors.hpp"
#include "split/loop_state.hpp"

namespace mcit::split {
namespace {

Mail same_to(const std::vector<std::string>& ids, const std::string& bytes) {
  Mail out;
  for (const std::string& id : ids) out[id] = bytes;
  return out;
}

}  // namespace

Message request_of(const std::string& kind, Fields fields) {
  Message out{kind, {}, {}};
  for (const auto& [name, value] : fields) out.set(name, value);
  return out;
}

void Loop::State::missed(const std::string& client, const std::string& why) {
  ++record.clients[client].missed;
  log::warn(client, " is left out of step ", place(), ": ", why);
}

/// Hands each answer of this kind to `read`, in the order of ids. Whoever does not answer in time, not with
/// `kind`, or so that `read` throws, is left out.
void Loop::State::exchange(const Mail& requests, const std::string& kind, bool evaluation,
                           const Reader& read) {
  const Mail answers = peers.ask(requests, options.deadline);
  for (const auto& [client, request] : requests) {
    ClientRecord& costs = record.clients[client];
    (evaluation ? costs.eval_bytes_down : costs.bytes_down) += request.size();
    const auto found = answers.find(client);
    if (found == answers.end()) {
      missed(client, "no answer in time");
      continue;
    }
    (evaluation ? costs.eval_bytes_up : costs.bytes_up) += found->second.size();
    try {
      const Message reply = Message::decode(found->second, client, options.most_bytes);
      expect_kind(reply, kind, client);
      if (read) read(client, reply);
    } catch (const Error& e) {
      missed(client, e.what());
    }
  }
}

void Loop::State::exchange(const std::vector<std::string>& ids, const Message& request,
                           const std::string& kind, bool evaluation, const Reader& read) {
  exchange(same_to(ids, request.encode()), kind, evaluation, read);
}

/// Clients that can take part now.
std::vector<std::string> Loop::State::there() {
  greet();
  std::vector<std::string> ids = peers.online();
  std::erase_if(ids, [&](const std::string& id) { return !known.contains(id); });
  return ids;
}

/// The same, at least the quorum. @throws Error when they do not come
std::vector<std::string> Loop::State::present() {
  const Stopwatch watch;
  const double patience = options.deadline * static_cast<double>(options.attempts);
  for (;;) {
    std::vector<std::string> ids = there();
    if (static_cast<std::int64_t>(ids.size()) >= options.quorum) return ids;
    if (interrupted()) throw Interrupted();
    if (watch.seconds() > patience)
      throw Error("split",
                  std::to_string(ids.size()) + " clients are there, " + std::to_string(options.quorum) +
                      " are needed; waited " + duration_text(patience),
                  "go on with --resume when they are back");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

/// Waits for all clients, but not for ever: a run that began without some is another run.
void Loop::State::gather() {
  const Stopwatch watch;
  const double patience = options.deadline * static_cast<double>(options.attempts);
  Progress progress("waiting for clients", options.expected, "clients");
  for (std::int64_t before = 0; before < options.expected && watch.seconds() <= patience && !interrupted();) {
    const auto now = static_cast<std::int64_t>(there().size());
    if (now > before) progress.advance(now - before);
    before = std::max(before, now);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

/// Clients that came bring themselves to this place of the run.
void Loop::State::greet() {
  const std::vector<std::string> arrived = peers.arrived();
  if (arrived.empty()) return;
  for (const std::string& id : arrived) known.erase(id);
  exchange(arrived, request_of("load", {{"place", place()}}), "done", true,
           [&](const std::string& id, const Message&) {
             known.insert(id);
             log::debug(id, " is here");
           });
}

/// @throws DataError unless it is what a client may send
Tokens Loop::State::tokens_of(const Message& reply, const std::string& who, std::int64_t most) const {
  Tokens out;
  const std::int64_t rows = reply.integer("rows");
  if (rows > most)
    throw DataError(
        who, "sent " + std::to_string(rows) + " rows, at most " + std::to_string(most) + " were asked for");
  if (rows == 0) return out;
  for (const auto& [name, array] : reply.arrays) {
    const Modality modality = modality_of(name);
    const std::vector<std::int64_t> shape = {rows, base.shape.tokens(modality), base.shape.width};
    out[modality] = tensor_of_array(expect_array(reply, name, shape, who), dtype);
  }
  if (out.empty()) throw DataError(who, "sent rows without tokens");
  return out;
}

/// The tokens of a step's rows, of all clients that have some.
std::map<std::string, Tokens> Loop::State::gather_tokens(const std::vector<std::string>& ids,
                                                         const Message& request, std::int64_t most,
                                                         bool evaluation) {
  std::map<std::string, Tokens> out;
  exchange(ids, request, "tokens", evaluation, [&](const std::string& id, const Message& reply) {
    Tokens sent = tokens_of(reply, id, most);
    if (sent.empty()) return;  // it has no rows of this task
    const auto same = [](const auto& a, const auto& b) { return a.first == b.first; };
    if (!out.empty() &&
        !std::equal(sent.begin(), sent.end(), out.begin()->second.begin(), out.begin()->second.end(), same))
      throw DataError(id, "sent other modalities than the clients before it");
    out.emplace(id, std::move(sent));
  });
  return out;
}

/// Predictions out, losses and their gradients back.
std::map<std::string, Server::Answer> Loop::State::gather_gradients(
    const std::map<std::string, Tokens>& tokens) {
  std::map<std::string, Server::Answer> out;
  if (tokens.empty()) return out;
  std::vector<Modality> present;
  for (const auto& [modality, tensor] : tokens.begin()->second) present.push_back(modality);
  Mail requests;
  std::int64_t rows = 0;
  for (const auto& [id, y] : server.predict(tokens, true)) {
    Message request = request_of("predictions", {{"stage", stage}, {"step", step}});
    request.arrays["y"] = array_of_tensor(y, wire());
    requests[id] = request.encode();
    rows += y.size(0);
  }
  record.server_flops +=
      static_cast<double>(rows) * flops_of(base.shape, present, training.trained, true).body();
  exchange(requests, "gradient", false, [&](const std::string& id, const Message& reply) {
    const std::vector<std::int64_t> shape = {tokens.at(id).begin()->second.size(0), base.shape.classes};
    const double loss = reply.number("loss");
    if (!std::isfinite(loss)) throw DataError(id, "sent a loss that is not finite");
    out[id] = {loss, tensor_of_array(expect_array(reply, "y", shape, id), dtype)};
  });
  return out;
}

/// One step of MPSL. @return the loss
double Loop::State::split_step(std::int64_t& clients) {
  const double start = cpu_seconds();
  std::map<std::string, Server::Answer> answers;
  for (std::int64_t attempt = 1; answers.empty(); ++attempt) {
    if (attempt > options.attempts) nobody();
    answers = gather_gradients(gather_tokens(
        present(), request_of("tokens", {{"stage", stage}, {"step", step}}), training.batch, false));
  }
  clients = static_cast<std::int64_t>(answers.size());
  const double loss = server.learn(answers, step);
  Mail requests;
  for (const auto& [id, gradients] : server.token_gradients()) {
    if (!answers.contains(id)) continue;
    Message request = request_of("token_gradient", {{"stage", stage}, {"step", step}});
    for (const auto& [modality, tensor] : gradients)
      request.arrays[name_of(modality)] = array_of_tensor(tensor, wire());
    requests[id] = request.encode();
  }
  if (!requests.empty()) exchange(requests, "done", false);
  record.server_cpu_seconds += cpu_seconds() - start;
  return loss;
}

void Loop::State::nobody() const {
  throw Error(
      "split",
      "no client had rows or an answer for task '" + result.tasks[static_cast<std::size_t>(stage)].name + "'",
      "see the warnings above; go on with --resume");
}

Parameters Loop::State::travelling() {
  Parameters all = heads.parameters();
  const Parameters rest = server.body().parameters();
  all.insert(all.end(), rest.begin(), rest.end());
  std::erase_if(all, [](const Parameter& p) { return !p.value.requires_grad(); });
  return all;
}

std::string Loop::State::model_message(const char* kind, Fields fields) {
  Message out = request_of(kind, fields);
  for (const Parameter& p : travelling()) out.arrays[p.name] = array_of_tensor(p.value, wire());
  return out.encode();
}

/// One round of FedAvg: the mean of what clients made of the model, weighted by rows, summed in float64 in
/// the order of their ids. @return the mean loss
double Loop::State::average_round(std::int64_t steps, std::int64_t& clients) {
  struct Update {
    double rows;
    std::map<std::string, Tensor> values;
  };
  std::vector<Update> used;
  const Parameters model = travelling();
  double all = 0.0, loss = 0.0;
  for (std::int64_t attempt = 1; used.empty(); ++attempt) {
    if (attempt > options.attempts) nobody();
    const std::string bytes = model_message("train", {{"stage", stage}, {"step", step}, {"steps", steps}});
    exchange(same_to(present(), bytes), "update", false, [&](const std::string& id, const Message& reply) {
      const std::int64_t rows = reply.integer("rows");
      if (rows == 0) return;  // it has none of this task
      if (rows > steps * training.batch) throw DataError(id, "trained on more rows than it was asked to");
      Update update{static_cast<double>(rows), {}};
      for (const Parameter& p : model)
        update.values[p.name] =
            tensor_of_array(expect_array(reply, p.name, p.value.sizes().vec(), id), at::kDouble);
      const double mean = reply.number("loss");
      if (!std::isfinite(mean)) throw DataError(id, "sent a loss that is not finite");
      loss += update.rows * mean;
      all += update.rows;
      used.push_back(std::move(update));
    });
  }
  const at::NoGradGuard no_grad;
  for (const Parameter& p : model) {
    Tensor mean = at::zeros(p.value.sizes(), at::kDouble);
    for (const Update& update : used) mean.add_(update.values.at(p.name), update.rows / all);
    p.value.detach().copy_(mean);
  }
  clients = static_cast<std::int64_t>(used.size());
  return loss / all;
}

void Loop::State::add_score(std::map<std::string, Score>& scores, const std::string& id,
                            const Message& reply) const {
  const std::int64_t rows = reply.integer("rows"), correct = reply.integer("correct");
  if (correct > rows) throw DataError(id, "says that more rows are right than there are");
  scores[id].rows += rows;
  scores[id].correct += correct;
}

std::map<std::string, Score> Loop::State::split_scores(std::int64_t task) {
  std::map<std::string, Score> out;
  std::vector<std::string> left = present();
  for (std::int64_t first = 0; !left.empty(); first += options.eval_batch) {
    const Message request =
        request_of("test_tokens", {{"task", task}, {"first", first}, {"count", options.eval_batch}});
    const std::map<std::string, Tokens> tokens = gather_tokens(left, request, options.eval_batch, true);
    Mail requests;
    left.clear();
    for (const auto& [id, sent] : tokens) {
      left.push_back(id);
      Message predictions{"test_predictions", {}, {}};
      predictions.arrays["y"] = array_of_tensor(server.predict({{id, sent}}, false).at(id), wire());
      requests[id] = predictions.encode();
    }
    exchange(requests, "scores", true,
             [&](const std::string& id, const Message& reply) { add_score(out, id, reply); });
  }
  return out;
}

std::map<std::string, Score> Loop::State::average_scores(std::int64_t task) {
  std::map<std::string, Score> out;
  exchange(same_to(present(), model_message("test", {{"task", task}, {"count", options.eval_batch}})),
           "scores", true, [&](const std::string& id, const Message& reply) { add_score(out, id, reply); });
  return out;
}

}  // namespace mcit::split
