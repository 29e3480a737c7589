// `mcit node train` from file to file, with a server that is the round engine and nothing else: the states
// are those of mcit federate, also under rules that give clients more than what they train.
#include <catch2/generators/catch_generators.hpp>

#include "core/config.hpp"
#include "fed/round_engine.hpp"
#include "integration/runs.hpp"

namespace mcit::test {
namespace {

fs::path settings(const Workplace& work, const std::string& more) {
  write(work / "fed.toml", "suite = " + Json(small_suite(work).string()).dump() + R"(
order = ["vqa", "geo"]
threads = 1
[train]
steps = 2
batch = 4
schedule = "constant"
[partition]
kind = "dirichlet"
alpha = 10.0
clients = 2
[federation]
run = "files"
quorum = 2
)" + more);
  return work / "fed.toml";
}

/// Rounds of the server that `mcit node init` describes. @return the last state's SHA-256
std::string served(const Workplace& work, const fs::path& config) {
  succeeded(work.mcit({"node", "init", config.string(), "--out", (work / "server").string()}));
  const auto engine = fed::RoundEngine::open(Config::read(work / "server/server.toml"), work / "ledger");
  engine->begin(fed::from_blob(slurp(work / "server/model.safetensors"), "model").arrays);
  while (engine->phase() != fed::Phase::finished) {
    const std::uint32_t round = engine->round();
    for (const std::string& id : engine->plan({{"client-01", 1}, {"client-02", 1}}).clients) {
      write(work / "model", engine->download(id));
      succeeded(work.mcit({"node", "train", config.string(), "--client", id, "--state", (work / id).string(),
                           "--from", (work / "model").string(), "--out", (work / "update").string()}));
      const fed::OfferResult offered = engine->offer(id, round, slurp(work / "update"));
      INFO(offered.reason);
      REQUIRE(offered.verdict == fed::Verdict::accepted);
    }
    const fed::CloseResult closed = engine->close();
    INFO(closed.reason);
    REQUIRE(closed.outcome == fed::Outcome::committed);
  }
  return engine->ledger().sha();
}

}  // namespace

TEST_CASE("nodes train what clients in one process train, whatever a rule sends beside the model") {
  const auto [name, more] = GENERATE(table<std::string, std::string>({
      {"stacked products", R"(
[stream]
rounds_per_stage = 2
[strategy]
name = "sequential"
rank = 2
[aggregate]
rule = "lora"
average = "stack"
)"},
      {"subspaces", R"(
[stream]
kind = "heterogeneous"
rounds_per_stage = 1
[strategy]
name = "disco"
rank = 4
slots = 2
[aggregate]
rule = "subspaces"
slots = 2
shared = ["multi_modal_projector."]
)"},
      {"control variates", R"(
[stream]
rounds_per_stage = 1
[strategy]
name = "sequential"
rank = 2
[aggregate]
rule = "scaffold"
clients = 2
)"},
  }));
  INFO(name);
  Workplace work;
  const fs::path config = settings(work, more), here = work / "here";
  succeeded(work.mcit({"federate", config.string(), "--out", here.string(), "--set", "eval.base=false"}));
  CHECK(Json::parse(slurp(here / "result.json")).at("federated").at("rounds").back().at("after") ==
        served(work, config));
}

}  // namespace mcit::test
