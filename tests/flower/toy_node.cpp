// A node whose "training" is a formula, with faults on demand; and the same federation in one process. For
// flower_test.py.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <iostream>
#include <limits>
#include <thread>

#include "app/node_service.hpp"
#include "core/files.hpp"
#include "mcit/errors.hpp"
#include "unit/fed/world.hpp"

using namespace mcit;
using namespace mcit::fed;
using namespace mcit::fed::test;

namespace {

volatile std::sig_atomic_t asked_to_stop = 0;

struct Fault {
  std::string kind;  ///< die, slow, twice, nan, missing, shape, stale, flip, error; empty: none
  std::uint32_t round = 0;
  double seconds = 10.0;
  bool at(const std::string& what, std::uint32_t now) const { return kind == what && round == now; }
};

std::int64_t examples_of(const std::string& id) {
  return 10 + static_cast<std::int64_t>(SeedPart(std::string_view(id)).value % 7);
}

std::atomic<std::uint32_t> round_now = 0;

/// What the client sends after it was given this model.
std::string update(const std::string& id, const std::string& model, const Fault& fault) {
  const Blob blob = from_blob(model, "model");
  const auto round = static_cast<std::uint32_t>(std::stoul(blob.metadata.at("round")));
  std::cerr << id << ": round " << round << std::endl;
  round_now = round;
  if (fault.at("die", round)) ::_exit(9);
  if (fault.at("error", round)) throw DataError("rows", "there are none");
  if (fault.at("slow", round)) std::this_thread::sleep_for(std::chrono::duration<double>(fault.seconds));
  Arrays after = trained(blob.arrays, id, round);
  UpdateInfo info = info_of(id, round, blob.metadata.at("base"), examples_of(id));
  if (fault.at("stale", round)) info.base = std::string(64, '0');
  if (fault.at("nan", round))
    after.at("router.bias") = floats({5}, {1, 2, std::numeric_limits<double>::quiet_NaN(), 4, 5});
  if (fault.at("missing", round)) after.erase("router.bias");
  if (fault.at("shape", round)) after.at("router.bias") = floats({4}, {1, 2, 3, 4});
  Layout layout;
  for (const auto& [name, array] : after) layout[name] = {array.dtype, array.shape, Group::model};
  return encode_update(info, layout, after, blob.arrays, {});
}

/// Answers everything twice, as a node does that did not hear of its first success.
void serve_twice(flower::Node& node, const NodeClient& client) {
  node.join();
  while (asked_to_stop == 0) {
    const auto request = node.pull();
    if (!request) {
      node.sleep(0.5);
      continue;
    }
    const std::optional<flower::Content> content = node.content(*request);
    if (!content) continue;
    flower::Content answer{{{"who", {{"client", client.id}, {"examples", client.examples}}}}, {}};
    if (request->type == "train") {
      const std::string blob = client.train(content->arrays.at(0).second.at(0).second.data);
      answer.arrays.push_back(
          {"update", {{"blob", {"uint8", {static_cast<std::int64_t>(blob.size())}, "safetensors", blob}}}});
    }
    node.reply(*request, answer);
    node.reply(*request, answer);
  }
}

/// The same clients in one process. @param without "ann@3": ann has no part in round 3
std::string embedded(const std::filesystem::path& settings, const std::filesystem::path& ledger,
                     const std::vector<std::string>& ids, const std::vector<std::string>& without) {
  const auto engine = RoundEngine::open(Config::read(settings), ledger);
  engine->begin(small_model());
  while (engine->phase() != Phase::finished) {
    const std::uint32_t round = engine->round();
    std::vector<OnlineClient> online;
    for (const std::string& id : ids)
      if (std::find(without.begin(), without.end(), id + "@" + std::to_string(round)) == without.end())
        online.push_back({id, examples_of(id)});
    for (const std::string& id : engine->plan(online).clients) {
      const OfferResult offered = engine->offer(id, round, update(id, engine->download(id), {}));
      if (offered.verdict != Verdict::accepted) throw mcit::Error(id, offered.reason);
    }
    if (const CloseResult closed = engine->close(); closed.outcome != Outcome::committed)
      throw mcit::Error("round", closed.reason);
  }
  return engine->ledger().sha();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("toy_node");
  std::string url, ca, cert, cert_key, key, id, model, settings, ledger;
  std::vector<std::string> ids, without;
  Fault fault;
  bool listed = false;
  double patience = 60.0;
  app.add_option("--url", url);
  app.add_option("--ca", ca);
  app.add_option("--cert", cert);
  app.add_option("--cert-key", cert_key);
  app.add_option("--key", key);
  app.add_option("--id", id);
  app.add_flag("--listed", listed);
  app.add_option("--patience", patience);
  app.add_option("--fault", fault.kind);
  app.add_option("--round", fault.round);
  app.add_option("--seconds", fault.seconds);
  app.add_option("--write-model", model);
  app.add_option("--settings", settings);
  app.add_option("--ledger", ledger);
  app.add_option("--clients", ids)->delimiter(',');
  app.add_option("--without", without)->delimiter(',');
  CLI11_PARSE(app, argc, argv);
  for (const int number : {SIGTERM, SIGINT}) std::signal(number, [](int) { asked_to_stop = 1; });
  try {
    if (!model.empty()) write_atomic(model, to_blob(small_model(), {}));
    if (!ledger.empty()) std::cout << embedded(settings, ledger, ids, without) << "\n";
    if (url.empty()) return 0;
    const NodeClient client{.id = id,
                            .examples = examples_of(id),
                            .rounds = {},
                            .train = [&](const std::string& blob) { return update(id, blob, fault); },
                            .broken = {}};
    flower::NodeOptions options;
    options.self_register = !listed;
    options.heartbeat = 10.0;
    options.patience = patience;
    options.stop = [] { return asked_to_stop != 0; };
    options.notice = [&](const std::string& text) { std::cerr << id << ": " << text << std::endl; };
    const flower::Key pair =
        key.empty() ? flower::Key::generate() : flower::Key::from_pem(read_file(key), key);
    flower::Node node({url, ca, cert, cert_key}, pair, options);
    if (fault.kind == "flip")
      node.damage = [&fault](std::string& bytes) {
        if (fault.round == round_now && bytes.starts_with("ArrayChunk"))
          bytes.back() = static_cast<char>(bytes.back() ^ 1);
      };
    if (fault.kind == "twice") {
      serve_twice(node, client);
      return 0;
    }
    serve(node, client,
          {.poll = 0.5, .idle = {}, .linger = 2.0, .stop = options.stop, .notice = options.notice});
  } catch (const std::exception& error) {
    std::cerr << "toy_node: " << error.what() << std::endl;
    return 2;
  }
  return 0;
}
