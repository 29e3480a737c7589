// The state machine of a federation with a clock of the test's own.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <cstring>
#include <set>
#include <thread>

#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "unit/fed/world.hpp"

using namespace mcit;
using namespace mcit::fed;
using namespace mcit::fed::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using mcit::test::TemporaryFolder;

TEST_CASE("a federation runs its rounds and says what happened in each") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  CHECK(world.engine->round() == 1);
  for (std::int64_t round = 1; round <= 4; ++round) {
    const CloseResult result = world.round();
    REQUIRE(result.outcome == Outcome::committed);
    const RoundRecord& r = result.record;
    CHECK(r.round == round);
    CHECK(r.sampled == world.ids);
    REQUIRE(r.used.size() == 4);
    CHECK(r.used[0].client == "ann");
    CHECK(r.used[0].task == "vqa");
    CHECK(r.used[0].examples == world.examples("ann"));
    CHECK(r.missing.empty());
    CHECK(r.rejected.empty());
    CHECK(r.before == world.engine->ledger().records()[static_cast<std::size_t>(round - 1)].after);
    CHECK(r.after == Ledger::sha_of(world.engine->ledger().state()));
    CHECK(r.bytes_up > 4 * (6 + 8 + 5) * 4);  // four clients, 19 numbers of 4 bytes
  }
  CHECK(world.engine->phase() == Phase::finished);
  CHECK_THROWS_MATCHES(world.engine->plan(world.online()), Error,
                       MessageMatches(ContainsSubstring("all rounds are done")));
}

TEST_CASE("a round that leaves the state as it was is followed by the next one's model") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  for (const char* number : {"1", "2"}) {
    for (const std::string& client : world.engine->plan(world.online()).clients) {
      const std::string& given = world.engine->download(client);
      const Blob model = from_blob(given, "model");
      CHECK(model.metadata.at("round") == number);
      const UpdateInfo info = info_of(client, world.engine->round(), model.metadata.at("base"));
      CHECK(world.engine
                ->offer(client, world.engine->round(),
                        encode_update(info, world.engine->layout(), model.arrays, model.arrays, {}))
                .verdict == Verdict::accepted);
    }
    const CloseResult result = world.engine->close();
    REQUIRE(result.outcome == Outcome::committed);
    CHECK(result.record.before == result.record.after);
  }
}

TEST_CASE("the order of replies changes no bit") {
  TemporaryFolder folder;
  std::set<std::string> shas;
  for (int order = 0; order < 6; ++order) {
    World world(folder / std::to_string(order));
    Rng rng(static_cast<std::uint64_t>(order));
    while (world.engine->phase() != Phase::finished) {
      std::vector<std::string> clients = world.engine->plan(world.online()).clients;
      rng.shuffle(clients);
      for (const std::string& client : clients) CHECK(world.send(client).verdict == Verdict::accepted);
      REQUIRE(world.engine->close().outcome == Outcome::committed);
    }
    shas.insert(world.engine->ledger().sha());
  }
  CHECK(shas.size() == 1);
}

TEST_CASE("a program that flushes denormal numbers ends with the bits of one that does not") {
  TemporaryFolder folder;
  constexpr float kTiny = 1e-40F;
  const Arrays tiny{{"w", {Dtype::f32, {4}, std::vector<std::byte>(16)}}};
  const auto numbers = [](float factor) {
    const float values[] = {3 * factor, -5 * factor, factor, 2 * factor};
    std::vector<std::byte> bytes(sizeof values);
    std::memcpy(bytes.data(), values, sizeof values);
    return Arrays{{"w", {Dtype::f32, {4}, bytes}}};
  };
  const std::map<std::string, Arrays> trained = {{"ann", numbers(kTiny)}, {"bob", numbers(2 * kTiny)}};
  const auto run = [&](const std::string& name, bool flush) {
    std::string sha;
    std::thread([&] {
      if (flush) flush_denormals();
      const std::string settings =
          "[federation]\nrun = \"test\"\nrounds = 1\n[aggregate]\nrule = \"fedavg\"\n";
      const auto engine = RoundEngine::open(Config::parse(settings, "test.toml"), folder / name);
      engine->begin(tiny);
      for (const std::string& client : engine->plan({{"ann", 1}, {"bob", 1}}).clients) {
        const UpdateInfo info = info_of(client, 1, engine->ledger().sha());
        engine->offer(client, 1, encode_update(info, engine->layout(), trained.at(client), tiny, {}));
      }
      if (engine->close().outcome == Outcome::committed) sha = engine->ledger().sha();
    }).join();
    return sha;
  };
  const std::string whole = run("whole", false);
  CHECK_FALSE(whole.empty());
  CHECK(run("flushed", true) == whole);
  CHECK(whole != Ledger::sha_of({{"model/w", tiny.at("w")}}));  // something was there to be lost
}

TEST_CASE("an update's digest is of all that it says, in every encoding") {
  TemporaryFolder folder;
  int worlds = 0;
  const auto digest = [&](const std::string& name, const std::string& tensor, std::size_t element) {
    World world(folder / std::to_string(++worlds));
    world.engine->plan(world.online());
    const Arrays base = from_blob(world.engine->preview("ann"), "model").arrays;
    Arrays model = trained(base, "ann", 1);
    if (!tensor.empty()) {
      std::vector<double> values = values_of(model.at(tensor));
      values.at(element) += 10.0;
      model.at(tensor) = array_of(Dtype::f32, model.at(tensor).shape, values);
    }
    EncodeOptions options;
    options.encoding = encoding_from(name);
    options.fraction = 0.5;
    const UpdateInfo info = info_of("ann", 1, world.engine->ledger().sha());
    CHECK(world.engine->offer("ann", 1, encode_update(info, world.engine->layout(), model, base, options))
              .verdict == Verdict::accepted);
    world.now += 61.0;
    const CloseResult closed = world.engine->close();
    REQUIRE(closed.outcome == Outcome::committed);
    return closed.record.used.at(0).digest;
  };
  std::set<std::string> digests;
  for (const std::string& encoding : encoding_names()) {
    INFO(encoding);
    const std::string same = digest(encoding, "", 0);
    CHECK(same.size() == 32);
    CHECK(digest(encoding, "", 0) == same);
    digests.insert(same);
    for (const auto& [name, last] :
         {std::pair{"router.bias", 4}, {"site.lora_A.weight", 0}, {"site.lora_B.weight", 7}})
      digests.insert(digest(encoding, name, static_cast<std::size_t>(last)));
  }
  CHECK(digests.size() == 4 * 4);
}

TEST_CASE("who is drawn depends on seed and round, not on the order of the roster") {
  TemporaryFolder folder;
  const auto drawn = [&](const char* name, bool reversed) {
    World world(folder / name, "sample = 2\n");
    world.ids = {"a", "b", "c", "d", "e", "f", "g", "h"};
    if (reversed) std::reverse(world.ids.begin(), world.ids.end());
    std::vector<std::vector<std::string>> out;
    while (world.engine->phase() != Phase::finished) out.push_back(world.round().record.sampled);
    return out;
  };
  const auto first = drawn("1", false);
  CHECK(first == drawn("2", true));
  for (const auto& clients : first) CHECK(clients.size() == 2);
  CHECK(std::set<std::vector<std::string>>(first.begin(), first.end()).size() > 1);
}

TEST_CASE("clients that come online fill up a round that is being collected") {
  TemporaryFolder folder;
  World world(folder / "ledger", "sample = 3\nquorum = 3\n");
  CHECK(world.engine->plan({{"ann", 1}}).clients == std::vector<std::string>{"ann"});
  world.now += 10.0;
  const RoundPlan plan = world.engine->plan(world.online());
  CHECK(plan.attempt == 1);
  CHECK(plan.seconds_left == 50.0);
  CHECK(plan.clients.size() == 3);
  CHECK(plan.clients[0] == "ann");
}

TEST_CASE("only clients of the list and with a proper name take part") {
  TemporaryFolder folder;
  World world(folder / "ledger", "clients = [\"ann\", \"bob\"]\n");
  const RoundPlan plan = world.engine->plan(
      {{"ann", 1}, {"eve", 1}, {"../x", 1}, {std::string(65, 'a'), 1}, {"", 1}, {"bob", 1}});
  CHECK(plan.clients == std::vector<std::string>{"ann", "bob"});
  CHECK(world.engine->offer("eve", 1, "x").verdict == Verdict::not_sampled);
}

TEST_CASE("updates are clipped to the norm, and to a multiple of the round's median") {
  TemporaryFolder folder;
  const auto scaled = [](World& world, const std::string& client, double factor) {
    const Arrays base = from_blob(world.engine->preview(client), "model").arrays;
    Arrays model = base;
    for (auto& [name, array] : model) {
      std::vector<double> values = values_of(array);
      for (double& x : values) x += factor;  // 19 numbers: norm = factor √19
      array = array_of(Dtype::f64, array.shape, values);
    }
    return encode_update(info_of(client, 1, world.engine->ledger().sha()), world.engine->layout(), model,
                         base, {Encoding::delta, Dtype::f64, 0.0});
  };
  World world(folder / "ledger", "clip_norm = 2.0\nclip_ratio = 3.0\n");
  world.ids = {"ann", "bob", "cid"};
  world.engine->plan(world.online());
  for (const auto& [client, factor] : {std::pair{"ann", 0.1}, {"bob", 0.1}, {"cid", 50.0}})
    REQUIRE(world.engine->offer(client, 1, scaled(world, client, factor)).verdict == Verdict::accepted);
  const RoundRecord r = world.engine->close().record;
  const double norm = 0.1 * std::sqrt(19.0);
  CHECK(std::fabs(r.used[0].norm - norm) < 1e-12);
  CHECK(r.used[0].clipped == 1.0);
  CHECK(std::fabs(r.used[2].clipped * r.used[2].norm - 3.0 * norm) < 1e-12);  // 1.31 < 2: the median decides
  const double moved_by = values_of(world.engine->ledger().state().at("model/router.bias"))[0] - 1.0;
  CHECK(std::fabs(moved_by - (0.1 + 0.1 + 0.3) / 3.0) < 1e-6);  // float32 state
}

TEST_CASE("a model that cannot be federated is refused before the first round") {
  TemporaryFolder folder;
  const Config config = Config::parse("[federation]\nrun = \"x\"\n", "t");
  const auto engine = RoundEngine::open(config, folder / "ledger");
  CHECK(engine->phase() == Phase::needs_model);
  CHECK_THROWS_MATCHES(engine->plan({}), Error, MessageMatches(ContainsSubstring("no model yet")));
  CHECK_THROWS_MATCHES(engine->begin({}), Error, MessageMatches(ContainsSubstring("no tensor")));
  CHECK_THROWS_MATCHES(engine->begin({{"n", zeros(Dtype::i32, {2})}}), Error,
                       MessageMatches(ContainsSubstring("begin: n") && ContainsSubstring("I32")));
  CHECK_THROWS_MATCHES(engine->begin({{"w", floats({1}, {std::nan("")})}}), Error,
                       MessageMatches(ContainsSubstring("w: is not finite")));
  CHECK_THROWS_AS(engine->begin({{"a#b", floats({1}, {0})}}), Error);
  engine->begin({{"w", floats({1}, {0})}});
  CHECK_THROWS_AS(engine->begin({{"w", floats({1}, {0})}}), Error);
}

TEST_CASE("settings that cannot work are errors that name the key") {
  const auto refuses = [](const std::string& federation, const std::string& why) {
    TemporaryFolder folder;
    const Config config = Config::parse(federation, "f.toml");
    CHECK_THROWS_MATCHES(RoundEngine::open(config, folder / "l"), ConfigError,
                         MessageMatches(ContainsSubstring(why)));
  };
  refuses("[federation]\nrounds = 3\n", "run");
  refuses("[federation]\nrun = \"a b\"\n", "run");
  refuses("[federation]\nrun = \"a\"\nquorum = 5\nsample = 4\n", "quorum");
  refuses("[federation]\nrun = \"a\"\nquorum = 3\nclients = [\"x\", \"y\"]\n", "quorum");
  refuses("[federation]\nrun = \"a\"\nencodings = [\"zip\"]\n", "unknown name 'zip'");
  refuses("[federation]\nrun = \"a\"\ndeadlin = 5\n", "deadline");
  refuses("[federation]\nrun = \"a\"\n[aggregate]\nrule = \"fedavgn\"\n", "did you mean 'fedavg'");
  refuses("[federation]\nrun = \"a\"\n[aggregate]\nrule = \"median\"\ntrim = 0.1\n", "trim");
}
