// Runs over clients in one process: what a stop leaves, what faults do, what FedAvg is.
#include "unit/split/tiny_split.hpp"
//
#include "torch_catch.hpp"

#include <catch2/generators/catch_generators.hpp>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "federate/tensors.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "split/local_peers.hpp"
#include "split/loop.hpp"
#include "unit/core/temporary.hpp"

namespace mcit::split {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;

Training training(bool heads) {
  Training t;
  t.trained = {heads, 2};
  t.steps = 6;
  t.batch = 2;
  t.rate = t.head_rate = 1e-2;
  return t;
}

RunResult head(std::size_t tasks) {
  RunResult out;
  out.suite = "tiny";
  out.strategy = "mpsl";
  for (std::size_t t = 0; t < tasks; ++t) out.tasks.push_back({"task" + std::to_string(t), 12, {}, "exact"});
  out.provenance.config = "same";
  return out;
}

std::vector<std::unique_ptr<Client>> clients(const Base& base, const Training& t, const fs::path& folder) {
  std::vector<std::unique_ptr<Client>> out;
  std::size_t rows = 3;
  for (const char* id : {"a", "b", "c"}) {
    ClientParts parts = tiny::parts(base, id, rows++, 4, 2);
    if (std::string(id) == "c") parts.tasks[1].train.clear();  // has nothing of the second task
    parts.folder = folder;
    out.push_back(std::make_unique<Client>(std::move(parts), base, t));
  }
  return out;
}

/// Calls of run() in the same folder, each with new objects, until it is complete.
Record run(const fs::path& folder, const Base& base, const Training& t, LoopOptions options, int& calls) {
  for (calls = 1;; ++calls) {
    RunDir dir = calls == 1 ? RunDir::create(folder) : RunDir::open(folder);
    if (calls == 1) write_atomic(dir.config(), "");
    LocalPeers peers(clients(base, t, folder / "clients"));
    Loop loop(base, t, options, peers);
    if (loop.run(head(2), dir).complete) return loop.record();
  }
}

/// All that must be the same, times left out.
std::map<std::string, std::string> bits(const fs::path& folder) {
  std::map<std::string, std::string> out;
  out["model"] = read_file(folder / "model.safetensors");
  const Json result = read_json(folder / "result.json");
  for (const char* key : {"matrix", "counts", "complete"}) out[key] = result.at(key).dump();
  Json record = read_json(folder / "split.json");
  record.erase("server_cpu_seconds");
  for (auto& [id, client] : record.at("clients").items()) {
    for (const char* key : {"cpu_seconds", "eval_bytes_up", "eval_bytes_down"}) client.erase(key);
    out["record of " + id] = client.dump();
  }
  record.erase("clients");
  out["record"] = record.dump();
  std::istringstream lines(read_file(folder / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    Json step = Json::parse(line);
    step.erase("seconds");
    out["metrics"] += step.dump() + "\n";
  }
  return out;
}

/// Changes what clients answer.
class Faulty final : public Peers {
 public:
  explicit Faulty(Peers& inner) : inner_(inner) {}
  std::function<void(const std::string& client, const Message& request, std::string& reply)> fault;
  std::vector<std::string> online() override { return inner_.online(); }
  std::vector<std::string> arrived() override { return inner_.arrived(); }
  Mail ask(const Mail& requests, double seconds) override {
    Mail replies = inner_.ask(requests, seconds);
    for (const auto& [client, request] : requests) {
      fault(client, Message::decode(request, "server", 1 << 24), replies.at(client));
      if (replies.at(client).empty()) replies.erase(client);
    }
    return replies;
  }

 private:
  Peers& inner_;
};

}  // namespace

TEST_CASE("a run that is stopped anywhere goes on to the same bits") {
  const bool heads = GENERATE(false, true);
  const Method method = GENERATE(Method::mpsl, Method::fedavg);
  INFO("heads " << heads << ", fedavg " << (method == Method::fedavg));
  const Base base = tiny::base(Fusion::early);
  const Training t = training(heads);
  LoopOptions options;
  options.method = method;
  options.local_steps = 2;
  options.snapshot_every = 2;
  TemporaryFolder work;
  int calls = 0;
  const Record whole = run(work.path() / "whole", base, t, options, calls);
  CHECK(calls == 1);
  options.stop_after = 2;
  run(work.path() / "parts", base, t, options, calls);
  CHECK(calls >= 6);
  const auto expected = bits(work.path() / "whole"), found = bits(work.path() / "parts");
  for (const auto& [name, bytes] : expected) {
    INFO(name);
    CHECK(found.at(name) == bytes);
  }
  // 6 steps of 2 rows for each of two tasks; c has rows of the first alone.
  CHECK(whole.steps == 12);
  CHECK(whole.clients.at("a").examples == 24);
  CHECK(whole.clients.at("c").examples == 12);
  CHECK(whole.clients.at("c").scores.at("task1").rows == 4);
  // By the formula: what a client computes is that of its rows.
  const Flops each = flops_of(base.shape, base.shape.modalities, t.trained, true);
  CHECK(whole.clients.at("a").flops ==
        24.0 * (each.heads() + (method == Method::fedavg ? each.body() : 0.0)));
  CHECK(whole.server_flops == (method == Method::mpsl ? 60.0 * each.body() : 0.0));
}

TEST_CASE("parameters that a client holds: the heads, or the whole model with what training adds") {
  const Base base = tiny::base(Fusion::early);
  LoopOptions options;
  TemporaryFolder work;
  int calls = 0;
  const Record mpsl = run(work.path() / "mpsl", base, training(false), options, calls);
  options.method = Method::fedavg;
  const Record fedavg = run(work.path() / "fedavg", base, training(false), options, calls);
  const auto numbers = [](const Parameters& parameters) {
    std::int64_t out = 0;
    for (const Parameter& p : parameters) out += p.value.numel();
    return out;
  };
  const std::int64_t heads = numbers(Heads(base).parameters()), body = numbers(Body(base).parameters());
  CHECK(mpsl.clients.at("a").parameter_bytes == 8 * heads);
  CHECK(fedavg.clients.at("a").parameter_bytes ==
        8 * (heads + 4 * body));  // gradient and two moments besides
  const std::string text = comparison_text(mpsl, fedavg);
  CHECK(text.find("fedavg over mpsl") != std::string::npos);
  CHECK(table_text(mpsl).find("accuracy") != std::string::npos);
  CHECK(record_from_json(to_json(mpsl), "x").clients.at("b").flops == mpsl.clients.at("b").flops);
}

TEST_CASE("FedAvg over one client is that client's own training") {
  const Base base = tiny::base(Fusion::late);
  Training t = training(true);
  LoopOptions options;
  options.method = Method::fedavg;
  options.local_steps = t.steps;
  TemporaryFolder work;
  RunDir dir = RunDir::create(work.path() / "run");
  ClientParts parts = tiny::parts(base, "a", 2, 2);
  const std::vector<Row> rows = parts.tasks[0].train;  // a batch holds both
  std::vector<std::unique_ptr<Client>> one;
  one.push_back(std::make_unique<Client>(std::move(parts), base, t));
  LocalPeers peers(std::move(one));
  Loop loop(base, t, options, peers);
  loop.run(head(1), dir);
  Heads heads(base);
  heads.train(true);
  Body body(base);
  body.train(2);
  Parameters all = heads.parameters();
  const Parameters rest = body.parameters();
  all.insert(all.end(), rest.begin(), rest.end());
  AdamW optimizer(all, t.adamw);
  for (std::int64_t step = 0; step < t.steps; ++step) {
    const Tensor labels = at::tensor({rows[0].label, rows[1].label}, at::kLong);
    at::cross_entropy_loss(body.forward(heads.forward(tiny::inputs(base, rows))), labels).backward();
    optimizer.step(t.rates(step));
    optimizer.zero_grad();
  }
  const StateDict found = read_safetensors(dir.root() / "model.safetensors").tensors;
  for (const Parameter& p : all) {
    INFO(p.name);
    // The order of the rows in a batch differs, so sums do in their last digits, which AdamW raises where a
    // gradient is all but zero.
    if (p.name.ends_with("k_proj.bias")) continue;
    CHECK((found.at(p.name) - p.value).abs().max().item<double>() < 1e-7);
  }
}

TEST_CASE("a step goes on with who answered well") {
  const Base base = tiny::base(Fusion::early);
  const Training t = training(true);
  const std::string kind = GENERATE("tokens", "predictions", "token_gradient");
  const std::string harm = GENERATE("silence", "noise", "nan", "shape", "rows", "error");
  INFO(kind << ": " << harm);
  TemporaryFolder work;
  RunDir dir = RunDir::create(work.path() / "run");
  LocalPeers inner(clients(base, t, work.path() / "clients"));
  Faulty peers(inner);
  peers.fault = [&](const std::string& client, const Message& request, std::string& reply) {
    if (client != "b" || request.kind != kind || request.integer("step") != 3) return;
    Message message = Message::decode(reply, client, 1 << 24);
    if (harm == "silence") return reply.clear();
    if (harm == "noise") return static_cast<void>(reply = "noise");
    if (harm == "error")
      return static_cast<void>(reply = Message{"error", {{"what", "disk full"}}, {}}.encode());
    if (message.arrays.empty()) return reply.clear();
    auto& [name, array] = *message.arrays.begin();
    if (harm == "nan") array = array_of_tensor(at::full(array.shape, std::nan(""), at::kDouble), at::kDouble);
    if (harm == "shape") array = array_of_tensor(at::zeros({1, 1}, at::kDouble), at::kDouble);
    if (harm == "rows") message.set(kind == "tokens" ? "rows" : "loss", std::int64_t{1000000});
    if (harm == "rows" && kind != "tokens") message.arrays.clear();
    reply = message.encode();
  };
  Loop loop(base, t, {}, peers);
  CHECK(loop.run(head(2), dir).complete);
  CHECK(loop.record().clients.at("b").missed == 2);  // once in each task
  CHECK(loop.record().clients.at("a").missed == 0);
}

TEST_CASE("a run without enough clients ends with the reason") {
  const Base base = tiny::base(Fusion::early);
  const Training t = training(false);
  TemporaryFolder work;
  RunDir dir = RunDir::create(work.path() / "run");
  LocalPeers inner(clients(base, t, {}));
  Faulty peers(inner);
  peers.fault = [](const std::string&, const Message& request, std::string& reply) {
    if (request.kind == "predictions") reply.clear();
  };
  Loop loop(base, t, {}, peers);
  try {
    loop.run(head(2), dir);
    FAIL("it went on");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("no client had rows or an answer for task 'task0'") !=
          std::string::npos);
  }
  LoopOptions four;
  four.quorum = 4;
  four.deadline = 0.05;
  four.attempts = 2;
  RunDir other = RunDir::create(work.path() / "other");
  LocalPeers three(clients(base, t, {}));
  Loop short_of(base, t, four, three);
  try {
    short_of.run(head(2), other);
    FAIL("it went on");
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("3 clients are there, 4 are needed") != std::string::npos);
  }
}

}  // namespace mcit::split
