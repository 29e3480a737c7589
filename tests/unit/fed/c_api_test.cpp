// The C interface, as another language sees it.
#include <dlfcn.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cstring>
#include <thread>

#include "mcit/fed.h"
#include "unit/fed/world.hpp"

using namespace mcit::fed;
using namespace mcit::fed::test;
using Catch::Matchers::ContainsSubstring;
using mcit::test::TemporaryFolder;

namespace {

constexpr const char* kSettings =
    "[federation]\nrun = \"test\"\nrounds = 4\ndeadline = 60.0\nseed = 3\n\n[aggregate]\nrule = \"fedavg\"\n";

template <class T>
T sized() {
  T out{};
  out.size = sizeof(T);
  return out;
}

struct Fed {
  explicit Fed(const std::filesystem::path& ledger) {
    code = mcit_fed_open(kSettings, ledger.c_str(), &handle);
  }
  ~Fed() { mcit_fed_free(handle); }
  mcit_fed* handle = nullptr;
  int code = 0;
};

/// @param ids must outlive what is returned
std::vector<mcit_fed_client> online(const std::vector<std::string>& ids) {
  std::vector<mcit_fed_client> out;
  for (const std::string& id : ids) out.push_back({sizeof(mcit_fed_client), id.c_str(), 10});
  return out;
}

std::string download(mcit_fed* fed, const char* client) {
  std::size_t needed = 0;
  REQUIRE(mcit_fed_download(fed, client, nullptr, 0, &needed) == MCIT_FED_OK);
  std::string blob(needed, '\0');
  REQUIRE(mcit_fed_download(fed, client, blob.data(), blob.size(), &needed) == MCIT_FED_OK);
  return blob;
}

}  // namespace

TEST_CASE("a whole federation through the C interface ends with the state of the C++ one") {
  TemporaryFolder folder;
  World world(folder / "cpp");
  while (world.engine->phase() != Phase::finished) REQUIRE(world.round().outcome == Outcome::committed);

  Fed fed(folder / "c");
  REQUIRE(fed.code == MCIT_FED_OK);
  const std::string model = to_blob(small_model(), {});
  REQUIRE(mcit_fed_begin(fed.handle, model.data(), model.size()) == MCIT_FED_OK);
  const Layout layout = world.engine->layout();
  for (std::uint32_t round = 1; round <= 4; ++round) {
    auto plan = sized<mcit_fed_plan_t>();
    const auto roster = online(world.ids);
    REQUIRE(mcit_fed_plan(fed.handle, roster.data(), roster.size(), &plan) == MCIT_FED_OK);
    REQUIRE(plan.clients == 4);
    REQUIRE(plan.round == round);
    std::vector<std::thread> clients;  // replies come from several threads
    std::atomic<int> accepted{0};
    for (std::size_t k = 0; k < plan.clients; ++k) {
      const std::string id = plan.ids[k];
      const Arrays base = from_blob(download(fed.handle, plan.ids[k]), "model").arrays;
      const std::string blob = encode_update(info_of(id, round, plan.base, world.examples(id)), layout,
                                             trained(base, id, round), base, {});
      clients.emplace_back([&, id, blob, round] {
        auto verdict = sized<mcit_fed_verdict>();
        if (mcit_fed_offer(fed.handle, id.c_str(), round, blob.data(), blob.size(), &verdict) ==
                MCIT_FED_OK &&
            verdict.verdict == MCIT_FED_ACCEPTED)
          ++accepted;
      });
    }
    for (std::thread& client : clients) client.join();
    CHECK(accepted == 4);
    auto result = sized<mcit_fed_round>();
    REQUIRE(mcit_fed_close(fed.handle, &result) == MCIT_FED_OK);
    CHECK(result.outcome == MCIT_FED_ROUND_COMMITTED);
    CHECK(result.used == 4);
    CHECK(result.after == world.engine->ledger().records()[round].after);
    CHECK(result.bytes_down > 0);
  }
  auto state = sized<mcit_fed_state>();
  REQUIRE(mcit_fed_status(fed.handle, &state) == MCIT_FED_OK);
  CHECK(state.phase == MCIT_FED_FINISHED);
  CHECK(state.base == world.engine->ledger().sha());
  std::size_t needed = 0;
  REQUIRE(mcit_fed_record(fed.handle, 2, nullptr, 0, &needed) == MCIT_FED_OK);
  std::string record(needed, 'x');
  CHECK(mcit_fed_record(fed.handle, 2, record.data(), needed - 1, &needed) == MCIT_FED_TOO_SMALL);
  REQUIRE(mcit_fed_record(fed.handle, 2, record.data(), needed, &needed) == MCIT_FED_OK);
  CHECK_THAT(record, ContainsSubstring("\"round\":2"));
  CHECK(mcit_fed_record(fed.handle, 9, nullptr, 0, &needed) == MCIT_FED_FAILED);
  CHECK_THAT(mcit_fed_error(), ContainsSubstring("round 9 is not committed"));
}

TEST_CASE("mistakes are codes and texts, never exceptions") {
  TemporaryFolder folder;
  mcit_fed* none = nullptr;
  CHECK(mcit_fed_abi() == MCIT_FED_ABI);
  CHECK(mcit_fed_open(nullptr, "x", &none) == MCIT_FED_BAD_ARGUMENT);
  CHECK(mcit_fed_open("[federation", (folder / "l").c_str(), &none) == MCIT_FED_FAILED);
  CHECK_THAT(mcit_fed_error(), ContainsSubstring("federation settings"));
  CHECK(mcit_fed_open("[federation]\nrun = \"a\"\nsede = 1\n", (folder / "l").c_str(), &none) ==
        MCIT_FED_FAILED);
  CHECK_THAT(mcit_fed_error(), ContainsSubstring("seed"));
  CHECK(none == nullptr);

  Fed fed(folder / "ledger");
  auto plan = sized<mcit_fed_plan_t>();
  CHECK(mcit_fed_plan(fed.handle, nullptr, 0, &plan) == MCIT_FED_FAILED);
  CHECK_THAT(mcit_fed_error(), ContainsSubstring("no model yet"));
  CHECK(mcit_fed_begin(fed.handle, "garbage!!", 9) == MCIT_FED_FAILED);
  CHECK_THAT(mcit_fed_error(), ContainsSubstring("model: its header claims"));
  plan.size = 4;
  CHECK(mcit_fed_plan(fed.handle, nullptr, 0, &plan) == MCIT_FED_BAD_ARGUMENT);
  auto round = sized<mcit_fed_round>();
  CHECK(mcit_fed_close(fed.handle, &round) == MCIT_FED_FAILED);
  Fed second(folder / "ledger");
  CHECK(second.code == MCIT_FED_BUSY);
  CHECK_THAT(mcit_fed_error(), ContainsSubstring("another process"));
  auto verdict = sized<mcit_fed_verdict>();
  const std::string model = to_blob(small_model(), {});
  REQUIRE(mcit_fed_begin(fed.handle, model.data(), model.size()) == MCIT_FED_OK);
  const std::vector<std::string> ids{"ann"};
  const auto roster = online(ids);
  plan.size = sizeof plan;
  REQUIRE(mcit_fed_plan(fed.handle, roster.data(), roster.size(), &plan) == MCIT_FED_OK);
  CHECK(mcit_fed_offer(fed.handle, "ann", 1, "x", 1, &verdict) == MCIT_FED_OK);
  CHECK(verdict.verdict == MCIT_FED_REJECTED);
  CHECK_THAT(verdict.reason, ContainsSubstring("too short"));
}

TEST_CASE("the clock can be set, and the deadline follows it") {
  TemporaryFolder folder;
  Fed fed(folder / "ledger");
  double now = 5.0;
  REQUIRE(mcit_fed_set_clock(
              fed.handle, [](void* at) { return *static_cast<double*>(at); }, &now) == MCIT_FED_OK);
  const std::string model = to_blob(small_model(), {});
  REQUIRE(mcit_fed_begin(fed.handle, model.data(), model.size()) == MCIT_FED_OK);
  const std::vector<std::string> ids{"ann", "bob"};
  const auto roster = online(ids);
  auto plan = sized<mcit_fed_plan_t>();
  REQUIRE(mcit_fed_plan(fed.handle, roster.data(), roster.size(), &plan) == MCIT_FED_OK);
  CHECK(plan.seconds_left == 60.0);
  auto round = sized<mcit_fed_round>();
  REQUIRE(mcit_fed_close(fed.handle, &round) == MCIT_FED_OK);
  CHECK(round.outcome == MCIT_FED_ROUND_OPEN);
  now = 66.0;
  REQUIRE(mcit_fed_close(fed.handle, &round) == MCIT_FED_OK);
  CHECK(round.outcome == MCIT_FED_ROUND_RETRY);
  CHECK_THAT(round.reason, ContainsSubstring("0 usable updates, 1 are needed"));
}

TEST_CASE("the library exports its interface alone and brings no LibTorch") {
  Dl_info info{};
  REQUIRE(::dladdr(reinterpret_cast<const void*>(&mcit_fed_abi), &info) != 0);
  const std::string file = info.dli_fname;
  CHECK_THAT(file, ContainsSubstring("libmcit_fed.so"));
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_NOLOAD);
  REQUIRE(library != nullptr);
  CHECK(::dlsym(library, "mcit_fed_close") != nullptr);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) CHECK(line.find("libtorch") == std::string::npos);
  ::dlclose(library);
}
