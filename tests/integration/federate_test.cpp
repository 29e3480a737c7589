// mcit federate as people use it: rounds over clients in one process, killed and taken up again.
#include <algorithm>
#include <csignal>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

constexpr int kRounds = 6;  // three tasks, two rounds each

/// Four clients with a handful of rows each, two drawn a round, two steps of training.
Arguments small_federation(const Workplace& work, const fs::path& out, const Arguments& more = {}) {
  write(work / "fed.toml", "suite = " + Json(small_suite(work).string()).dump() +
                               R"(
threads = 1
[strategy]
name = "sequential"
rank = 2
[train]
steps = 2
batch = 4
schedule = "constant"
[partition]
kind = "dirichlet"
alpha = 1.0
clients = 4
[stream]
rounds_per_stage = 2
[federation]
sample = 2
quorum = 2
)");
  return Arguments{"federate", (work / "fed.toml").string(), "--out", out.string()} + more;
}

/// What of a federation must be the same to the byte: states, and numbers but for times.
std::map<std::string, std::string> bits_of(const fs::path& run) {
  std::map<std::string, std::string> out;
  for (const std::string& name : names_in(run / "ledger")) {
    if (name.ends_with(".safetensors")) out[name] = slurp(run / "ledger" / name);
    if (!name.ends_with(".json")) continue;
    const Json record = Json::parse(slurp(run / "ledger" / name));
    out[name] = record.at("before").dump() + record.at("after").dump() + record.at("used").dump();
  }
  const Json result = result_of(run);
  for (const char* key : {"complete", "matrix", "metrics"}) out[key] = result.at(key).dump();
  for (const char* key : {"global", "clients", "curve", "histogram"})
    out[std::string("federated: ") + key] = result.at("federated").at(key).dump();
  return out;
}

void same_bits(const std::map<std::string, std::string>& expected, const fs::path& run) {
  const auto found = bits_of(run);
  CHECK(found.size() == expected.size());
  for (const auto& [name, bytes] : expected) {
    INFO(run << ": " << name);
    REQUIRE(found.contains(name));
    CHECK(found.at(name) == bytes);
  }
}

bool committed(const fs::path& run, int round) {
  return fs::exists(run / "ledger" / ("round-00000" + std::to_string(round) + ".json"));
}

}  // namespace

TEST_CASE("a federation runs, and its result says what happened") {
  Workplace work;
  const Ended ended = work.mcit(small_federation(work, work / "run"));
  succeeded(ended);
  CHECK(ended.err.find("client-04") != std::string::npos);  // the histogram
  CHECK(ended.out.find("federated: fedavg, 6 rounds") != std::string::npos);
  const Json result = result_of(work / "run"), &federated = result.at("federated");
  CHECK(result.at("complete") == true);
  REQUIRE(federated.at("rounds").size() == kRounds + 1);
  for (int round = 1; round <= kRounds; ++round) {
    const Json& r = federated.at("rounds").at(static_cast<std::size_t>(round));
    CHECK(r.at("used").size() == 2);
    CHECK(r.at("bytes_up").get<std::int64_t>() > 0);
    CHECK(r.at("bytes_down").get<std::int64_t>() > 0);
  }
  CHECK(federated.at("metrics").at("rounds") == kRounds);
  CHECK(federated.at("clients").size() == 4);
  CHECK(federated.at("global").at("matrix") == result.at("matrix"));
  // Every row of every task is dealt out once: 32 rows a task.
  for (std::size_t task = 0; task < 3; ++task) {
    std::int64_t sum = 0;
    for (const auto& [client, counts] : federated.at("histogram").items())
      sum += counts.at(task).get<std::int64_t>();
    CHECK(sum == 32);
  }
  CHECK_FALSE(result.at("matrix").at(3).at(2).is_null());
  const Json& costs = result.at("costs").at("stages").at(0);
  CHECK(costs.at("trainable_parameters").get<std::int64_t>() > 0);
  CHECK(costs.at("stored_parameters").get<std::int64_t>() > 0);
  CHECK(costs.at("steps") == 2 * 2 * 2);  // rounds, clients, steps
  CHECK(costs.at("examples") == 2 * 2 * 2 * 4);
  CHECK_FALSE(fs::exists(work / "run/clients"));  // the strategy keeps nothing besides what travels

  // The server's answers are kept as those of a run: every tool that reads them goes on from there.
  CHECK(names_in(work / "run/predictions").size() == 4 * 3);  // the base and three stages, three tasks
  CHECK_FALSE(result.at("matrix_restricted").at(3).at(0).is_null());
  CHECK(result.at("counts").at(3).at(0).at("examples") == 12);
  CHECK(result.contains("forgetting_split"));
  succeeded(work.mcit({"rescore", (work / "run").string(), "--profile", "strict"}));
  const Json again = Json::parse(slurp(work / "run/rescored/strict.json"));
  CHECK(again.at("matrix") == result.at("matrix"));
  CHECK(again.at("federated").at("global") == federated.at("global"));
}

TEST_CASE("what a federation has committed is scored without it, to the same numbers") {
  Workplace work;
  succeeded(work.mcit(small_federation(work, work / "run")));
  const Arguments score = {"--ledger", (work / "run/ledger").string()};
  succeeded(work.mcit(small_federation(work, work / "scored", score)));
  const Json run = result_of(work / "run"), scored = result_of(work / "scored");
  for (const char* key : {"complete", "matrix", "metrics"}) CHECK(run.at(key) == scored.at(key));
  for (const char* key : {"global", "clients", "curve", "histogram", "rounds"})
    CHECK(run.at("federated").at(key) == scored.at("federated").at(key));
  CHECK_FALSE(fs::exists(work / "scored/ledger"));
  failed(work.mcit({"federate", "--resume", (work / "scored").string()}), {"not the rounds"});
  failed(work.mcit(small_federation(work, work / "other", score + Arguments{"--seed", "2"})),
         {"belongs to a federation with other settings"});

  fs::remove(work / "run/ledger/round-000002.safetensors");  // the end of the first of three stages
  const Ended part = work.mcit(small_federation(work, work / "part", score));
  succeeded(part);
  CHECK(part.err.find("stage 1: the state after round 2 is not in the ledger any more") != std::string::npos);
  const Json partly = result_of(work / "part");
  CHECK(partly.at("complete") == false);
  CHECK(partly.at("matrix").at(1) != run.at("matrix").at(1));
  CHECK(partly.at("matrix").at(3) == run.at("matrix").at(3));
}

TEST_CASE("a federation that is killed anywhere goes on to the same bits") {
  Workplace work;
  // ewc keeps a Fisher matrix of each client; top-k updates leave a rest on each client.
  const Arguments settings = {"--set", "strategy.name=ewc", "--set", "wire.encoding=topk",
                              "--set", "wire.fraction=0.1"};
  succeeded(work.mcit(small_federation(work, work / "whole", settings)));
  const auto expected = bits_of(work / "whole");
  CHECK(fs::exists(work / "whole/clients"));
  const fs::path run = work / "killed";
  Arguments arguments = small_federation(work, run, settings);
  int kills = 0;
  for (const int round : {1, 3, 4}) {
    Process process(arguments, work.path());
    if (process.until([&] { return committed(run, round); })) {
      process.signal(SIGKILL);
      kills += process.wait().signal == SIGKILL ? 1 : 0;
    }
    arguments = {"federate", "--resume", run.string()};
  }
  CHECK(kills == 3);
  succeeded(work.mcit(arguments));
  same_bits(expected, run);
}

TEST_CASE("a federation can be stopped after some rounds and taken up") {
  Workplace work;
  succeeded(work.mcit(small_federation(work, work / "whole")));
  succeeded(work.mcit(small_federation(work, work / "parts", {"--stop-after", "3"})));
  CHECK(committed(work / "parts", 3));
  CHECK_FALSE(committed(work / "parts", 4));
  succeeded(work.mcit({"federate", "--resume", (work / "parts").string()}));
  same_bits(bits_of(work / "whole"), work / "parts");
}

TEST_CASE("rules, streams and terms of a federation work together") {
  Workplace work;
  const std::vector<Arguments> kinds = {
      {"--set", "aggregate.rule=lora", "--set", "stream.kind=heterogeneous"},
      {"--set", "aggregate.rule=scaffold", "--set", "aggregate.clients=4"},
      {"--set", "aggregate.rule=distance", "--set", "stream.kind=permuted"},
      {"--set", "aggregate.rule=fedadam", "--set", "train.proximal=0.1", "--set", "stream.kind=arrival",
       "--set", "federation.quorum=1"},
      {"--set", "privacy.clip=1.0", "--set", "privacy.noise_multiplier=0.5", "--set",
       "wire.encoding=int8-delta"}};
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const fs::path run = work / std::to_string(i);
    INFO("kind " << i);
    const Ended ended =
        work.mcit(small_federation(work, run, kinds[i] + Arguments{"--set", "eval.base=false"}));
    succeeded(ended);
    CHECK(result_of(run).at("complete") == true);
    CHECK((ended.out.find("privacy against the server") != std::string::npos) == (i == 4));
  }
}

TEST_CASE("pilot: what is the client's own stays with it, over a stop as well") {
  Workplace work;
  const Arguments pilot = {"--strategy", "pilot",
                           "--set",      "strategy.width=8",
                           "--set",      "stream.kind=heterogeneous",
                           "--set",      "aggregate.rule=distance",
                           "--set",      "aggregate.tensors=[\"language_model.\"]",
                           "--set",      "aggregate.by_task=[\"pilot.task.\"]"};
  succeeded(work.mcit(small_federation(work, work / "whole", pilot)));
  const std::string state = slurp(work / "whole/ledger/round-000006.safetensors");
  CHECK(state.find("model/pilot.task.") != std::string::npos);
  CHECK(state.find("pilot.client.") == std::string::npos);
  CHECK(state.find("pilot.router.") == std::string::npos);
  const std::vector<std::string> clients = names_in(work / "whole/clients");
  CHECK(clients.size() == 4);
  for (const std::string& id : clients)
    for (const std::string& name : names_in(work / "whole/clients" / id))
      CHECK(slurp(work / "whole/clients" / id / name).find("strategy/pilot.client.up.weight") !=
            std::string::npos);
  const Json selected = result_of(work / "whole").at("matrix_selector");  // tasks by features, on the server
  CHECK(selected.at(0).at(0).is_null());
  CHECK_FALSE(selected.at(3).at(0).is_null());
  succeeded(work.mcit(small_federation(work, work / "parts", pilot + Arguments{"--stop-after", "3"})));
  succeeded(work.mcit({"federate", "--resume", (work / "parts").string()}));
  same_bits(bits_of(work / "whole"), work / "parts");
}

/// DISCO over four clients who meet other tasks in every stage.
Arguments disco_settings() {
  return {"--strategy", "disco",
          "--set",      "strategy.slots=2",
          "--set",      "stream.kind=heterogeneous",
          "--set",      "aggregate.rule=subspaces",
          "--set",      "aggregate.slots=2",
          "--set",      "aggregate.shared=[\"multi_modal_projector.\"]",
          "--set",      "eval.base=false"};
}

TEST_CASE("disco: clients train subspaces by their data, in every encoding, over a stop as well") {
  Workplace work;
  for (const std::string encoding : {"full", "int8-delta"}) {
    INFO(encoding);
    const Arguments disco = disco_settings() + Arguments{"--set", "wire.encoding=" + encoding};
    const fs::path whole = work / ("whole-" + encoding), parts = work / ("parts-" + encoding);
    succeeded(work.mcit(small_federation(work, whole, disco)));
    const std::string state = slurp(whole / "ledger/round-000006.safetensors");
    for (const char* there : {"subspace.0/", "template/", "prototype.0", "model/multi_modal_projector."})
      CHECK(state.find(there) != std::string::npos);
    CHECK(state.find("model/identity") == std::string::npos);
    CHECK(state.find("model/language_model.") == std::string::npos);
    // A client keeps its identity and nothing that it is given.
    const std::vector<std::string> clients = names_in(whole / "clients");
    CHECK(clients.size() == 4);
    for (const std::string& id : clients) {
      const std::vector<std::string> files = names_in(whole / "clients" / id);
      CHECK(files.size() == 2);  // one to go on from when the round of the other is not committed
      for (const std::string& name : files) {
        const std::string kept = slurp(whole / "clients" / id / name);
        CHECK(kept.find("strategy/identity") != std::string::npos);
        CHECK(kept.find("strategy/language_model.") == std::string::npos);
        CHECK(kept.find("strategy/subspace.") == std::string::npos);
      }
    }
    const Json result = result_of(whole);
    CHECK(result.at("federated").at("rounds").at(1).dump().find("subspaces") != std::string::npos);
    for (const Json& client : result.at("federated").at("clients"))
      CHECK(client.at("matrix").at(3) == result.at("matrix").at(3));  // all are given the same
    succeeded(work.mcit(small_federation(work, parts, disco + Arguments{"--stop-after", "3"})));
    succeeded(work.mcit({"federate", "--resume", parts.string()}));
    same_bits(bits_of(whole), parts);
  }
}

TEST_CASE("stacked products answer as the LoRA that they were, and add up over rounds") {
  Workplace work;
  // One client, one round a stage: averaging is nothing, so that both rules give the same model.
  const Arguments one = {"--set", "partition.clients=1", "--set", "federation.sample=0",
                         "--set", "federation.quorum=1", "--set", "stream.rounds_per_stage=1",
                         "--set", "train.steps=6",       "--set", "train.lr=0.01"};
  const Arguments stack = {"--set", "aggregate.rule=lora", "--set", "aggregate.average=stack"};
  succeeded(work.mcit(small_federation(work, work / "mean", one + Arguments{"--stop-after", "1"})));
  succeeded(work.mcit(small_federation(work, work / "stack", one + stack + Arguments{"--stop-after", "1"})));
  const Json mean = result_of(work / "mean").at("matrix"), stacked = result_of(work / "stack").at("matrix");
  CHECK(mean.at(1) == stacked.at(1));
  succeeded(work.mcit({"federate", "--resume", (work / "stack").string()}));
  succeeded(work.mcit(small_federation(work, work / "whole", one + stack)));
  same_bits(bits_of(work / "whole"), work / "stack");
  const Json result = result_of(work / "whole"), &rounds = result.at("federated").at("rounds");
  for (std::size_t round = 1; round <= 3; ++round)  // rank 2 of one client in each round
    CHECK(rounds.at(round).at("notes").at("rank") == 2 * round);
  const Json& stages = result.at("costs").at("stages");
  CHECK(stages.at(2).at("stored_parameters") > stages.at(0).at("stored_parameters"));
}

TEST_CASE("a federation that cannot work says so before it begins") {
  Workplace work;
  const auto refuses = [&](const Arguments& more, const std::vector<std::string>& said) {
    failed(work.mcit(small_federation(work, work / "none", more)), said);
    CHECK_FALSE(fs::exists(work / "none/result.json"));
    fs::remove_all(work / "none");
  };
  refuses({"--set", "federation.rounds=3"}, {"federation.rounds"});
  refuses({"--set", "aggregate.rule=fedavgg"}, {"fedavgg", "fedavg"});
  refuses({"--set", "partition.clients=40"}, {"32 rows are too few for 40 clients"});
  refuses({"--set", "privacy.noise_multiplier=1.0"}, {"noise_multiplier", "needs a clip"});
  refuses({"--set", "train.stepz=1"}, {"stepz", "steps"});
  refuses({"--set", "aggregate.rule=subspaces"}, {"wants an identity token of each client", "disco"});
  refuses({"--strategy", "disco"}, {"strategy.slots", "must divide the rank"});
  refuses({"--strategy", "disco", "--set", "strategy.slots=2"},
          {"'fedavg' does not go with strategy 'disco'", "subspaces"});
  refuses(disco_settings() + Arguments{"--set", "aggregate.slots=3"}, {"strategy.slots and aggregate.slots"});
  refuses(disco_settings() + Arguments{"--set", "privacy.clip=1.0"}, {"privacy.clip", "identity"});
  refuses({"--strategy", "moe_lora", "--set", "strategy.experts=2", "--set", "aggregate.rule=lora", "--set",
           "aggregate.average=stack"},
          {"aggregate.average", "no factor of a LoRA"});
  failed(work.mcit({"federate"}), {"needs a file of settings"});
  failed(work.mcit({"federate", "--resume", (work / "nowhere").string()}), {"nowhere"});
}

}  // namespace mcit::test
