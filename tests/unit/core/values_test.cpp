#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <catch2/catch_approx.hpp>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/hash.hpp"
#include "core/json.hpp"
#include "core/random.hpp"
#include "core/text.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::Message;
using Catch::Matchers::MessageMatches;

TEST_CASE("hashes are those of XXH3-128") {
  // The empty input's value stands in the XXH3 specification of the xxHash project.
  CHECK(Hasher().hex() == "99aa06d3014798d86001c324468d497f");
  const std::string text(10000, 'x');
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical,
                           XXH3_128bits(text.data(), text.size()));  // one-shot function of the library
  std::string expected;
  for (const unsigned char byte : canonical.digest) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    expected.append({kDigits[byte >> 4], kDigits[byte & 15U]});
  }
  CHECK(hash_text(text) == expected);
  CHECK(Hasher().update(text.substr(0, 137)).update(text.substr(137)).hex() == expected);
  const test::TemporaryFolder folder;
  test::write(folder / "x", text);
  CHECK(hash_file(folder / "x") == expected);
  CHECK_THROWS_AS(hash_file(folder / "none"), DataError);
}

TEST_CASE("fields and numbers enter a hash in one reading only") {
  CHECK(Hasher().field("ab").field("c").hex() != Hasher().field("a").field("bc").hex());
  CHECK(Hasher().update("ab").update("c").hex() == Hasher().update("a").update("bc").hex());
  CHECK(Hasher().update(std::int32_t{-1}).hex() == Hasher().update(std::int64_t{-1}).hex());
  CHECK(Hasher().update(258).hex() == Hasher().update(std::string_view("\x02\x01\0\0\0\0\0\0", 8)).hex());
  CHECK(Hasher().update(0.0).hex() != Hasher().update(-0.0).hex());
}

TEST_CASE("random bits are those of the published generators") {
  // First outputs of splitmix64.c for seed 1234567, as listed at
  // rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64.
  std::uint64_t state = 1234567;
  CHECK(splitmix64(state) == 6457827717110365317ULL);
  CHECK(splitmix64(state) == 3203168211198807973ULL);
  CHECK(splitmix64(state) == 9817491932198370423ULL);
  // xoshiro256starstar.c (Blackman, Vigna) with its state filled by splitmix64.c from 42, written down in
  // Python.
  Rng rng(42);
  CHECK(rng.next() == 1546998764402558742ULL);
  CHECK(rng.next() == 6990951692964543102ULL);
  CHECK(rng.next() == 12544586762248559009ULL);
}

TEST_CASE("normal numbers follow the polar method to the last digit") {
  // The method in Python on the same bits, logarithm and root with 40 decimal digits, rounded once at the
  // end.
  Rng rng(7);
  for (const double expected :
       {0.9643618527255184, -0.3039301238656567, 0.3047943583263868, -1.7010190714940672})
    CHECK(std::abs(rng.normal() - expected) <= 4e-16 * std::abs(expected));
  double sum = 0.0;
  double squares = 0.0;
  constexpr int kDraws = 200000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = rng.normal();
    sum += x;
    squares += x * x;
  }
  CHECK(std::abs(sum / kDraws) < 0.01);             // four standard errors of the mean are 0.009
  CHECK(std::abs(squares / kDraws - 1.0) < 0.013);  // and of the variance 0.0127
}

TEST_CASE("draws below n are even and in range") {
  Rng rng(1);
  std::array<int, 6> seen{};
  for (int i = 0; i < 60000; ++i) ++seen.at(static_cast<std::size_t>(rng.below(6)));
  for (const int count : seen) CHECK(std::abs(count - 10000) < 400);  // 4.4 standard deviations
  CHECK(rng.below(1) == 0);
  const std::uint64_t huge = (std::uint64_t{1} << 63) + 1;  // nearly half of all draws must be thrown away
  for (int i = 0; i < 100; ++i) CHECK(rng.below(huge) < huge);
  for (int i = 0; i < 1000; ++i) {
    const double u = rng.uniform();
    CHECK((u >= 0.0 && u < 1.0));
  }
}

TEST_CASE("shuffling keeps every item and reaches every order") {
  std::set<std::vector<std::int64_t>> orders;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Rng rng(seed);
    std::vector<std::int64_t> order = rng.permutation(4);
    orders.insert(order);
    std::sort(order.begin(), order.end());
    REQUIRE(order == std::vector<std::int64_t>{0, 1, 2, 3});
  }
  CHECK(orders.size() == 24);
}

TEST_CASE("seeds of different purposes differ, and are known when the program is compiled") {
  static_assert(derive(1, {"shuffle", 2}) != derive(1, {"shuffle", 3}));
  static_assert(derive(1, {"shuffle", 2}) != derive(2, {"shuffle", 2}));
  static_assert(derive(1, {"a", "b"}) != derive(1, {"b", "a"}));
  static_assert(derive(1, {"ab"}) != derive(1, {"a", "b"}));
  static_assert(derive(1, {}) != derive(1, {0}));
  std::set<std::uint64_t> seen;
  for (int seed = 0; seed < 100; ++seed)
    for (int stage = 0; stage < 100; ++stage)
      seen.insert(derive(static_cast<std::uint64_t>(seed), {"stage", stage}));
  CHECK(seen.size() == 10000);
}

TEST_CASE("JSON keeps order and writes the same bytes") {
  const Json value = parse_json("{\"z\": 1, \"a\": [0.1, 1e300, -0.0, null, \"é\"]}", "x.json");
  CHECK(dump_json(value) == "{\"z\":1,\"a\":[0.1,1e+300,-0.0,null,\"é\"]}");
  CHECK(dump_json(Json(std::string("a\xff"))) == "\"a\uFFFD\"");
  CHECK(dump_json(Json(std::nan(""))) == "null");
}

TEST_CASE("bad JSON is told with file, line and column") {
  CHECK_THROWS_MATCHES(parse_json("{\"a\": 1,\n \"b\" 2}", "x.json"), DataError,
                       MessageMatches(ContainsSubstring("x.json:2:6: not JSON: ")));
  CHECK_THROWS_MATCHES(parse_json("[1, 2", "x.json"), DataError,
                       MessageMatches(ContainsSubstring("x.json:1:")));
  CHECK_THROWS_MATCHES(parse_json("", "x.json"), DataError,
                       MessageMatches(ContainsSubstring("x.json:1:1: not JSON")));
  CHECK_THROWS_MATCHES(parse_json("[1e999]", "x.json"), DataError,
                       MessageMatches(ContainsSubstring("not JSON")));
  CHECK_THROWS_MATCHES(parse_json(std::string(100000, '['), "x.json"), DataError,
                       Message("x.json:1:65: nested deeper than 64 levels"));
  CHECK_NOTHROW(parse_json("[\"" + std::string(1000, '[') + "\"]", "x.json"));
  CHECK_THROWS_MATCHES(parse_json("[1, 2]", "x.json", {5}), DataError,
                       MessageMatches(ContainsSubstring("has 6 bytes")));
}

TEST_CASE("members are asked for by name and type") {
  const Json value =
      parse_json("{\"n\": 3, \"x\": 0.5, \"t\": \"hi\", \"a\": [], \"big\": 18446744073709551615}", "x.json");
  CHECK(json_integer(value, "n", "x.json") == 3);
  CHECK(json_number(value, "n", "x.json") == 3.0);
  CHECK(json_number(value, "x", "x.json") == 0.5);
  CHECK(json_text(value, "t", "x.json") == "hi");
  CHECK(json_array(value, "a", "x.json").empty());
  CHECK_THROWS_MATCHES(json_text(value, "n", "x.json"), DataError,
                       Message("x.json: 'n': expected a text, found number"));
  CHECK_THROWS_MATCHES(json_text(value, "none", "x.json: row 4"), DataError,
                       Message("x.json: row 4: 'none' is missing"));
  CHECK_THROWS_AS(json_integer(value, "big", "x.json"), DataError);
  CHECK_THROWS_AS(json_integer(value, "x", "x.json"), DataError);
  CHECK_THROWS_AS(json_object(value, "a", "x.json"), DataError);
  CHECK_THROWS_AS(json_text(Json::array(), "a", "x.json"), DataError);
}

TEST_CASE("texts") {
  CHECK(trimmed(" \t a b\r\n") == "a b");
  CHECK(trimmed(" ").empty());
  CHECK(lowered("ABC é Z") == "abc é z");
  CHECK(csv_field("plain") == "plain");
  CHECK(csv_field("a,\"b\"") == "\"a,\"\"b\"\"\"");
  CHECK(shortest(0.1) == "0.1");
  CHECK(fixed(2.345678, 2) == "2.35");
  CHECK(fixed(-0.001, 2) == "0.00");
  CHECK(fixed(-0.01, 2) == "-0.01");
}

}  // namespace
}  // namespace mcit
