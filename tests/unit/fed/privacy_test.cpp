#include "fed/privacy.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "mcit/errors.hpp"

using namespace mcit;
using namespace mcit::fed;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("the accountant agrees with Google's dp-accounting") {
  // tests/fixtures/federated/privacy.py wrote these numbers.
  const Json cases =
      read_json(std::filesystem::path(MCIT_SOURCE_DIR) / "tests/fixtures/federated/privacy.json");
  REQUIRE(cases.size() == 7);
  for (const Json& c : cases) {
    const PrivacySpent spent = privacy_spent(c["rate"], c["noise"], c["rounds"], c["delta"]);
    CHECK(std::fabs(spent.epsilon - c["epsilon"].get<double>()) < 1e-9 * c["epsilon"].get<double>());
    CHECK(spent.order == c["order"].get<std::int64_t>());
  }
}

TEST_CASE("privacy costs nothing without rounds, everything without noise, less with rarer sampling") {
  CHECK(privacy_spent(0.5, 1.0, 0, 1e-5).epsilon == 0.0);
  CHECK(std::isinf(privacy_spent(1.0, 0.0, 1, 1e-5).epsilon));
  CHECK(privacy_spent(0.1, 1.0, 10, 1e-5).epsilon < privacy_spent(0.2, 1.0, 10, 1e-5).epsilon);
  CHECK(std::fabs(rdp_sampled_gaussian(1.0 - 1e-12, 1.3, 7) - 7.0 / (2.0 * 1.69)) < 1e-6);
  CHECK_THROWS_AS(privacy_spent(1.5, 1.0, 1, 1e-5), ConfigError);
}

TEST_CASE("an update is clipped as a whole, and the noise has the deviation that was asked for") {
  NoiseSource noise(std::uint64_t{3});
  std::map<std::string, std::vector<double>> update{{"a", {3.0}}, {"b", {4.0}}};
  CHECK(privatize(update, 1.0, 0.0, noise) == 5.0);
  CHECK(std::fabs(update["a"][0] - 0.6) < 1e-15);
  CHECK(std::fabs(update["b"][0] - 0.8) < 1e-15);
  update = {{"a", {0.3}}};
  privatize(update, 1.0, 0.0, noise);
  CHECK(update["a"][0] == 0.3);
  // 40000 numbers: the sample's variance lies within 5 deviations, 5 √(2/40000) = 3.5 %, of (2 · 0.5)² = 1.
  for (const bool secure : {false, true}) {
    NoiseSource source = secure ? NoiseSource::secure() : NoiseSource(std::uint64_t{4});
    update = {{"a", std::vector<double>(40000, 0.0)}};
    privatize(update, 0.5, 2.0, source);
    double sum = 0.0, squares = 0.0;
    for (const double x : update["a"]) {
      sum += x;
      squares += x * x;
    }
    CHECK(std::fabs(sum / 40000.0) < 5.0 / 200.0);
    CHECK(std::fabs(squares / 40000.0 - 1.0) < 0.036);
  }
  update = {{"a", {std::nan("")}}};
  CHECK_THROWS_AS(privatize(update, 1.0, 1.0, noise), Error);
}

TEST_CASE("a seed repeats its noise, the system's generator does not") {
  NoiseSource a(std::uint64_t{1}), b(std::uint64_t{1}), c = NoiseSource::secure(), d = NoiseSource::secure();
  CHECK(a.normal() == b.normal());
  CHECK(c.normal() != d.normal());
}

TEST_CASE("the report names both guarantees") {
  const std::string text = privacy_text({.noise_multiplier = 2.0,
                                         .delta = 1e-5,
                                         .participations = 1,
                                         .rounds = 1,
                                         .sampling_rate = 1.0,
                                         .weights = {0.25, 0.25, 0.25, 0.25}});
  // Against the server σ = 2/2 = 1: 4.753 (privacy.json, first case). Together 4 clients have 2 √4 = 4.
  CHECK_THAT(text, ContainsSubstring("epsilon = 4.753") && ContainsSubstring("noise multiplier 4.000"));
}
