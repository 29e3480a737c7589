// What a node takes from a server's blob, and what it refuses.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "fed/round_request.hpp"
#include "mcit/errors.hpp"
#include "unit/fed/world.hpp"

using namespace mcit;
using namespace mcit::fed::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using mcit::test::TemporaryFolder;

namespace {

fed::FederationSettings settings() {
  fed::FederationSettings out;
  out.run = "test";
  return out;
}

}  // namespace

TEST_CASE("what a server sends says the same as the engine that made it") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  REQUIRE(world.round().outcome == fed::Outcome::committed);
  world.engine->plan(world.online());
  const fed::RoundRequest here = request_of(*world.engine, "ann");
  const fed::RoundRequest there =
      request_of(world.engine->preview("ann"), settings(), world.engine->layout());
  CHECK(there.info.run == here.info.run);
  CHECK(there.info.round == 2);
  CHECK(there.info.round == here.info.round);
  CHECK(there.info.base == here.info.base);
  CHECK(there.model == here.model);
  REQUIRE(there.layout.size() == here.layout.size());
  for (const auto& [name, spec] : here.layout) {
    INFO(name);
    CHECK(there.layout.at(name).shape == spec.shape);
    CHECK(there.layout.at(name).dtype == spec.dtype);
    CHECK(there.layout.at(name).group == spec.group);
  }
}

TEST_CASE("a blob that is not this federation's is refused") {
  TemporaryFolder folder;
  World world(folder / "ledger");
  const fed::Blob blob = fed::from_blob(world.engine->preview("ann"), "model");
  const auto refused = [&](const char* key, const char* value, const char* reason) {
    INFO(key << " = " << value);
    auto metadata = blob.metadata;
    if (*value == '\0')
      metadata.erase(key);
    else
      metadata[key] = value;
    CHECK_THROWS_MATCHES(request_of(fed::to_blob(blob.arrays, metadata), settings(), world.engine->layout()),
                         DataError, MessageMatches(ContainsSubstring(reason)));
  };
  refused("run", "another", "is of the run 'another', and this client is in 'test'");
  refused("run", "", "does not say its run");
  refused("base", "", "does not say its base");
  for (const char* round : {"0", "-1", "1x", "4294967296", " 1"}) refused("round", round, "its round is '");
  CHECK_THROWS_AS(request_of("not safetensors", settings(), world.engine->layout()), CheckpointError);
}
