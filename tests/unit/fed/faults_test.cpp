// What a federation does when something breaks. The names F2 .. F16 are those of docs/reference/federated.md.
#include <sys/resource.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>

#include "core/files.hpp"
#include "fuzz/memory_bound.hpp"
#include "mcit/errors.hpp"
#include "unit/fed/world.hpp"

using namespace mcit;
using namespace mcit::fed;
using namespace mcit::fed::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using mcit::test::TemporaryFolder;

namespace {

/// The final state of a run of four rounds in which round 2 was planned without `absent`.
std::string sha_without(const std::filesystem::path& ledger, const std::string& absent) {
  World world(ledger);
  const std::vector<std::string> all = world.ids;
  while (world.engine->phase() != Phase::finished) {
    world.ids = all;
    if (world.engine->round() == 2) std::erase(world.ids, absent);
    REQUIRE(world.round().outcome == Outcome::committed);
  }
  return world.engine->ledger().sha();
}

std::string sha_of_all(const std::filesystem::path& ledger) { return sha_without(ledger, ""); }

void finish(World& world) {
  while (world.engine->phase() != Phase::finished) REQUIRE(world.round().outcome == Outcome::committed);
}

/// An update of cid in which `change` has altered the tensors.
template <class Change>
std::string altered(World& world, const std::string& client, Change change) {
  const Arrays base = from_blob(world.engine->preview(client), "model").arrays;
  Blob blob = from_blob(world.update(client), "update");
  change(blob);
  return to_blob(blob.arrays, blob.metadata);
}

}  // namespace

TEST_CASE("F2: a client that dies in a round is missing, and the others' round commits at the deadline") {
  TemporaryFolder folder;
  World world(folder / "ledger", "quorum = 3\n");
  REQUIRE(world.round().outcome == Outcome::committed);
  world.engine->plan(world.online());
  for (const char* client : {"ann", "bob", "dee"}) world.send(client);
  CHECK(world.engine->close().outcome == Outcome::open);
  world.now += 60.5;
  const CloseResult result = world.engine->close();
  REQUIRE(result.outcome == Outcome::committed);
  CHECK(result.record.missing == std::vector<std::string>{"cid"});
  CHECK(result.record.used.size() == 3);
  finish(world);
  CHECK(world.engine->ledger().sha() == sha_without(folder / "other", "cid"));
}

TEST_CASE("a client that declines is not waited for, and its reason is on record") {
  TemporaryFolder folder;
  World world(folder / "ledger", "quorum = 3\n");
  REQUIRE(world.round().outcome == Outcome::committed);
  world.engine->plan(world.online());
  for (const char* client : {"ann", "bob", "dee"}) world.send(client);
  CHECK(world.engine->close().outcome == Outcome::open);
  CHECK(world.engine->decline("cid", 1, "").verdict == Verdict::late);
  CHECK(world.engine->decline("eve", 2, "").verdict == Verdict::not_sampled);
  CHECK(world.engine->decline("ann", 2, "changed my mind").verdict == Verdict::duplicate);
  // What it says is from outside: no control characters, and no more than a line of it.
  CHECK(world.engine->decline("cid", 2, "no\x1b[2J rows\n" + std::string(10000, 'x')).verdict ==
        Verdict::rejected);
  const CloseResult result = world.engine->close();
  REQUIRE(result.outcome == Outcome::committed);
  REQUIRE(result.record.rejected.size() == 1);
  CHECK(result.record.rejected[0].client == "cid");
  CHECK_THAT(result.record.rejected[0].reason, ContainsSubstring("declines: no?[2J rows?xxx"));
  CHECK(result.record.rejected[0].reason.size() < 256);
  CHECK(result.record.missing.empty());
  finish(world);
  CHECK(world.engine->ledger().sha() == sha_without(folder / "other", "cid"));
}

TEST_CASE("F3: what comes after the deadline is not used and is on record") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  REQUIRE(world.round().outcome == Outcome::committed);
  world.engine->plan(world.online());
  for (const char* client : {"ann", "bob", "dee"}) world.send(client);
  const std::string straggler = world.update("cid");
  world.now += 61.0;
  CHECK(world.engine->offer("cid", 2, straggler).verdict == Verdict::late);
  const RoundRecord second = world.engine->close().record;
  REQUIRE(second.late.size() == 1);
  CHECK(second.late[0].client == "cid");
  CHECK(second.missing == std::vector<std::string>{"cid"});
  CHECK(world.engine->offer("cid", 2, straggler).verdict ==
        Verdict::late);  // once more, when the round is over
  const RoundRecord third = world.round().record;
  REQUIRE(third.late.size() == 1);
  CHECK_THAT(third.late[0].reason, ContainsSubstring("round 2 is over"));
  finish(world);
  CHECK(world.engine->ledger().sha() == sha_without(folder / "other", "cid"));
}

TEST_CASE("F4: an update that comes twice counts once") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  world.engine->plan(world.online());
  const std::string first = world.update("bob");
  CHECK(world.engine->offer("bob", 1, first).verdict == Verdict::accepted);
  CHECK(world.engine->offer("bob", 1, first).verdict == Verdict::duplicate);
  const std::string other = altered(world, "bob", [](Blob& blob) { blob.metadata["examples"] = "1000000"; });
  CHECK(world.engine->offer("bob", 1, other).verdict == Verdict::duplicate);
  for (const char* client : {"ann", "cid", "dee"}) world.send(client);
  const RoundRecord r = world.engine->close().record;
  CHECK(r.used.size() == 4);
  CHECK(r.duplicate == std::vector<std::string>{"bob"});
  finish(world);
  CHECK(world.engine->ledger().sha() == sha_of_all(folder / "other"));
}

TEST_CASE("F5: a NaN or an infinity is rejected with the tensor's name") {
  TemporaryFolder folder;
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const std::string name = std::isnan(bad) ? "nan" : "inf";
    World world(folder / name);
    REQUIRE(world.round().outcome == Outcome::committed);
    world.engine->plan(world.online());
    for (const char* client : {"ann", "bob", "dee"}) world.send(client);
    const std::string blob = altered(world, "cid", [&](Blob& b) {
      std::memcpy(b.arrays.at("site.lora_B.weight").bytes.data() + 12, &bad, sizeof bad);
    });
    const OfferResult result = world.engine->offer("cid", 2, blob);
    CHECK(result.verdict == Verdict::rejected);
    CHECK_THAT(result.reason, ContainsSubstring("site.lora_B.weight is not finite"));
    const RoundRecord r =
        world.engine->close().record;  // everybody has answered: no waiting for the deadline
    REQUIRE(r.rejected.size() == 1);
    CHECK(r.rejected[0].client == "cid");
    CHECK(r.missing.empty());
    finish(world);
    CHECK(world.engine->ledger().sha() == sha_without(folder / (name + "-other"), "cid"));
  }
}

TEST_CASE("F6: another shape or dtype, a missing or an extra tensor is rejected, and the run lives") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  world.engine->plan(world.online());
  const auto refuses = [&](const std::string& why, auto change) {
    const OfferResult result = world.engine->offer("cid", 1, altered(world, "cid", change));
    CHECK(result.verdict == Verdict::rejected);
    CHECK_THAT(result.reason, ContainsSubstring(why));
  };
  refuses("router.bias: has the shape [1, 5], not [5]", [](Blob& b) {
    b.arrays["router.bias"].shape = {1, 5};
  });
  refuses("router.bias: is of dtype F64, not F32",
          [](Blob& b) { b.arrays["router.bias"] = zeros(Dtype::f64, {5}); });
  refuses("router.bias: is missing", [](Blob& b) { b.arrays.erase("router.bias"); });
  refuses("extra: is not a tensor of this federation",
          [](Blob& b) { b.arrays["extra"] = zeros(Dtype::f32, {2}); });
  refuses("is of the run 'other'", [](Blob& b) { b.metadata["run"] = "other"; });
  refuses("says that it is of 'dee'", [](Blob& b) { b.metadata["client"] = "dee"; });
  refuses("is of strategy 'lora'", [](Blob& b) { b.metadata["strategy"] = "lora"; });
  refuses("'examples' is no number", [](Blob& b) { b.metadata["examples"] = "many"; });
  refuses("claims -5 examples", [](Blob& b) { b.metadata["examples"] = "-5"; });
  refuses("lacks 'round'", [](Blob& b) { b.metadata.erase("round"); });
  refuses("unknown encoding 'zip'", [](Blob& b) { b.metadata["encoding"] = "zip"; });
  refuses("is of schema 'x'", [](Blob& b) { b.metadata["schema"] = "x"; });
  refuses("'stat.loss' is no number", [](Blob& b) { b.metadata["stat.loss"] = "low"; });
  CHECK(world.send("cid").verdict == Verdict::accepted);  // a client may mend its update
  for (const char* client : {"ann", "bob", "dee"}) world.send(client);
  CHECK(world.engine->close().outcome == Outcome::committed);
}

TEST_CASE("F9: torn and corrupt rounds are set aside, and the rounds that are done again are the same") {
  TemporaryFolder folder;
  const std::string expected = sha_of_all(folder / "whole");
  const auto damaged = [&](const std::string& name, auto damage, std::uint32_t next, bool told) {
    INFO(name);
    const auto ledger = folder / name;
    {
      World world(ledger);
      for (int i = 0; i < 3; ++i) world.round();
    }
    damage(ledger);
    World world(ledger);
    CHECK(world.engine->round() == next);
    CHECK(world.engine->ledger().quarantined().empty() == !told);
    if (told) CHECK(!std::filesystem::is_empty(ledger / "quarantine"));
    finish(world);
    CHECK(world.engine->ledger().sha() == expected);
    for (std::uint32_t round = next; round <= 3; ++round)
      CHECK(world.engine->ledger().records()[round].redone.value_or(true));
  };
  const auto flip = [](const std::filesystem::path& file, std::size_t from_end) {
    std::string bytes = read_file(file);
    bytes[bytes.size() - from_end] = static_cast<char>(bytes[bytes.size() - from_end] ^ 0x10);
    mcit::test::write(file, bytes);
  };
  damaged(
      "untouched", [](const auto&) {}, 4, false);
  damaged(
      "torn temporary",
      [](const auto& l) { mcit::test::write(l / ".round-000004.safetensors.Ab3xYz", "half"); }, 4, true);
  damaged(
      "state without a record",
      [](const auto& l) { mcit::test::write(l / "round-000004.safetensors", "half"); }, 4, true);
  damaged(
      "bit in the newest state", [&](const auto& l) { flip(l / "round-000003.safetensors", 5); }, 3, true);
  damaged(
      "newest state cut short",
      [](const auto& l) { std::filesystem::resize_file(l / "round-000003.safetensors", 100); }, 3, true);
  damaged(
      "newest state gone", [](const auto& l) { std::filesystem::remove(l / "round-000003.safetensors"); }, 3,
      true);
  damaged(
      "digit in a record",
      [](const auto& l) {
        std::string text = read_file(l / "round-000002.json");
        text.replace(text.find("\"attempts\": 1"), 13, "\"attempts\": 2");
        mcit::test::write(l / "round-000002.json", text);
      },
      2, true);
  damaged(
      "empty record", [](const auto& l) { mcit::test::write(l / "round-000003.json", ""); }, 3, true);
  damaged(
      "two newest states gone",
      [](const auto& l) {
        std::filesystem::remove(l / "round-000003.safetensors");
        std::filesystem::remove(l / "round-000002.safetensors");
      },
      2, true);
}

TEST_CASE("F9: a lost round that comes out otherwise is marked") {
  TemporaryFolder folder;
  {
    World world(folder / "ledger");
    world.round();
  }
  std::filesystem::remove(folder / "ledger/round-000001.safetensors");
  World world(folder / "ledger");
  world.ids = {"ann", "bob"};
  const RoundRecord r = world.round().record;
  REQUIRE(r.redone.has_value());
  CHECK(!*r.redone);
}

TEST_CASE("F8: after a kill the run goes on where the ledger ends") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  for (int round = 0; round < 3; ++round) {
    REQUIRE(world.round().outcome == Outcome::committed);
    world.engine->plan(world.online());
    world.send("ann");  // is lost with the process
    world.reopen();
  }
  CHECK(world.engine->round() == 4);
  finish(world);
  CHECK(world.engine->ledger().sha() == sha_of_all(folder / "other"));
}

TEST_CASE("F10: a quorum that is never met is tried again, then the run has failed") {
  TemporaryFolder folder;
  World world(folder / "ledger", "quorum = 3\nretries = 2\n");
  for (int attempt = 1; attempt <= 2; ++attempt) {
    const CloseResult result = world.round({"ann", "cid"});
    CHECK(result.outcome == Outcome::retry);
    CHECK(result.record.attempts == attempt);
    CHECK_THAT(result.reason, ContainsSubstring("2 usable updates, 3 are needed"));
  }
  const CloseResult last = world.round({"ann", "cid"});
  CHECK(last.outcome == Outcome::failed);
  CHECK(world.engine->phase() == Phase::failed);
  CHECK_THAT(world.engine->failure(), ContainsSubstring("round 1, attempt 3"));
  CHECK_THROWS_MATCHES(world.engine->plan(world.online()), Error,
                       MessageMatches(ContainsSubstring("the federation has failed")));
  world.reopen();  // somebody mended the network
  finish(world);
  CHECK(world.engine->ledger().sha() == sha_of_all(folder / "other"));
}

TEST_CASE("F10: what was accepted counts in the next attempt, and who did not answer is asked last") {
  TemporaryFolder folder;
  World world(folder / "ledger", "quorum = 2\nsample = 2\n");
  const std::vector<std::string> first = world.engine->plan(world.online()).clients;
  REQUIRE(world.send(first[0]).verdict == Verdict::accepted);
  world.now += 61.0;
  REQUIRE(world.engine->close().outcome == Outcome::retry);
  const std::vector<std::string> second = world.engine->plan(world.online()).clients;
  CHECK(second.size() == 2);
  CHECK(std::count(second.begin(), second.end(), first[0]) == 1);
  CHECK(std::count(second.begin(), second.end(), first[1]) == 0);
  for (const std::string& client : second)
    CHECK(world.send(client).verdict == (client == first[0] ? Verdict::duplicate : Verdict::accepted));
  const CloseResult result = world.engine->close();
  CHECK(result.outcome == Outcome::committed);
  CHECK(result.record.attempts == 2);
}

TEST_CASE("F12: an update from another state is stale") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  world.engine->plan(world.online());
  const std::string old = world.update("cid");
  for (const std::string& client : world.ids) world.send(client);
  world.engine->close();
  world.engine->plan(world.online());
  CHECK(world.engine->offer("cid", 1, old).verdict == Verdict::late);
  CHECK(world.engine->offer("cid", 9, old).verdict == Verdict::stale);
  const OfferResult relabelled = world.engine->offer("cid", 2, old);  // its metadata still says round 1
  CHECK(relabelled.verdict == Verdict::stale);
  CHECK_THAT(relabelled.reason, ContainsSubstring("round 1"));
  const std::string forged =
      altered(world, "cid", [](Blob& b) { b.metadata["base"] = std::string(64, 'a'); });
  CHECK(world.engine->offer("cid", 2, forged).verdict == Verdict::stale);
  for (const char* client : {"ann", "bob", "dee"}) world.send(client);
  world.now += 61.0;
  const RoundRecord r = world.engine->close().record;
  CHECK(r.missing == std::vector<std::string>{"cid"});
  CHECK(r.late.size() == 4);
}

TEST_CASE("F14: a hostile blob is rejected in bounded memory") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  world.engine->plan(world.online());
  const auto with_header = [](std::uint64_t claimed, const std::string& header, std::size_t data) {
    std::string out(8, '\0');
    std::memcpy(out.data(), &claimed, 8);
    return out + header + std::string(data, '\0');
  };
  const auto honest = [&](const std::string& header) { return with_header(header.size(), header, 64); };
  constexpr rlim_t kMegabytes = 64ULL << 20;
  const mcit::test::MemoryBound bound(kMegabytes);
  for (const std::string& blob :
       {std::string(), std::string(7, 'x'), std::string(8, '\xff'), with_header(1ULL << 40, "{}", 8),
        honest(std::string(60000, '[')), honest("{\"a\":" + std::string(60000, '{')),
        honest(R"({"router.bias":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,64]}})"),
        honest(R"({"router.bias":{"dtype":"F32","shape":[5],"data_offsets":[0,18446744073709551615]}})"),
        honest(R"({"router.bias":{"dtype":"F32","shape":[5],"data_offsets":[44,64]}})"),
        std::string(30 << 20, 'x'),
        honest("{\"__metadata__\":{\"run\":\"" + std::string(100000, 'x') + "\"}}")}) {
    const OfferResult result = world.engine->offer("cid", 1, blob);
    CHECK(result.verdict == Verdict::rejected);
    CHECK_THAT(result.reason, ContainsSubstring("update"));
  }
}

TEST_CASE("F16: a full disk leaves the round uncommitted, and it can be done again") {
  TemporaryFolder folder;
  const auto ledger = folder / "ledger";
  World world(ledger);
  REQUIRE(world.round().outcome == Outcome::committed);
  const std::string before = world.engine->ledger().sha();
  world.engine->plan(world.online());
  for (const std::string& client : world.ids) world.send(client);
  rlimit old{};
  ::getrlimit(RLIMIT_FSIZE, &old);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit tiny{
      64, old.rlim_max};  // no file may grow beyond: the kernel refuses the write, as on a full disk
  ::setrlimit(RLIMIT_FSIZE, &tiny);
  const CloseResult result = world.engine->close();
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  CHECK(result.outcome == Outcome::failed);
  CHECK_THAT(result.reason,
             ContainsSubstring("round-000002.safetensors") && ContainsSubstring("cannot write"));
  CHECK(world.engine->ledger().sha() == before);
  CHECK(world.engine->ledger().records().size() == 2);
  world.reopen();
  CHECK(world.engine->ledger().quarantined().empty());
  CHECK(world.engine->round() == 2);
  finish(world);
  CHECK(world.engine->ledger().sha() == sha_of_all(folder / "other"));
}

TEST_CASE("a ledger belongs to one process and to one federation") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  CHECK_THROWS_MATCHES(World(folder / "ledger"), LedgerInUse,
                       MessageMatches(ContainsSubstring("another process has this ledger open")));
  world.engine.reset();
  CHECK_THROWS_MATCHES(World(folder / "ledger", "weighting = \"uniform\"\n"), ConfigError,
                       MessageMatches(ContainsSubstring("other settings")));
  CHECK_THROWS_MATCHES(World(folder / "ledger", "", "rule = \"median\"\n"), ConfigError,
                       MessageMatches(ContainsSubstring("other settings")));
  World longer(folder / "ledger", "retries = 9\n");  // what does not touch the bits may change
  CHECK(longer.engine->round() == 1);
}

TEST_CASE("old states go, records stay, and so does the state after every so many rounds") {
  TemporaryFolder folder;
  for (const std::int64_t every : {0, 2}) {
    const std::string ledger = "ledger" + std::to_string(every);
    World world(folder / ledger, "keep = 1\nkeep_every = " + std::to_string(every) + "\n");
    std::vector<Arrays> states;
    while (world.engine->phase() != Phase::finished) {
      REQUIRE(world.round().outcome == Outcome::committed);
      states.push_back(world.engine->ledger().state());
    }
    for (int round = 0; round <= 4; ++round) {
      const bool stays = round == 0 || round == 4 || (round == 2 && every == 2);
      const std::string stem = ledger + "/round-00000" + std::to_string(round);
      CHECK(std::filesystem::exists(folder / (stem + ".json")));
      CHECK(std::filesystem::exists(folder / (stem + ".safetensors")) == stays);
      const std::optional<Arrays> state = world.engine->ledger().state_after(round);
      REQUIRE(state.has_value() == stays);
      if (stays && round > 0) CHECK(*state == states[static_cast<std::size_t>(round - 1)]);
    }
    CHECK_FALSE(world.engine->ledger().state_after(5));
    std::filesystem::resize_file(folder / (ledger + "/round-000004.safetensors"), 100);
    CHECK_FALSE(world.engine->ledger().state_after(4));
  }
}

TEST_CASE("a new state that is not finite is not committed") {
  TemporaryFolder folder;
  World world(folder / "ledger", "clip_ratio = 0.0\n", "rule = \"fedavgm\"\nrate = 1e300\n");
  world.engine->plan(world.online());
  for (const std::string& client : world.ids) world.send(client);
  const CloseResult result = world.engine->close();
  CHECK(result.outcome == Outcome::failed);
  CHECK_THAT(result.reason, ContainsSubstring("is not finite"));
}
