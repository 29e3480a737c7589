// How data and tasks are dealt out: every row once, the distributions that the kinds promise, the same bits
// for one seed.
#include "fed/partition.hpp"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <set>

#include "core/dirichlet.hpp"
#include "core/hash.hpp"
#include "core/portable_math.hpp"
#include "fed/streams.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

using namespace mcit;
using namespace mcit::fed;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

std::vector<std::int64_t> labels_of(std::int64_t rows, std::int64_t labels) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < rows; ++i) out.push_back(i % labels);
  return out;
}

PartitionOptions options_of(const std::string& kind, std::int64_t clients, std::uint64_t seed = 1) {
  PartitionOptions o;
  o.kind = kind;
  o.clients = clients;
  o.seed = seed;
  return o;
}

bool every_row_once(const Partition& partition, std::size_t rows) {
  std::vector<std::int64_t> all;
  for (const auto& own : partition) all.insert(all.end(), own.begin(), own.end());
  std::sort(all.begin(), all.end());
  for (std::size_t i = 0; i < all.size(); ++i)
    if (all[i] != static_cast<std::int64_t>(i)) return false;
  return all.size() == rows;
}

std::string digest(const Partition& partition) {
  Hasher hasher;
  for (const auto& rows : partition) {
    hasher.update(rows.size());
    for (const std::int64_t row : rows) hasher.update(row);
  }
  return hasher.hex();
}

}  // namespace

TEST_CASE("portable exponential and logarithm agree with the library's") {
  for (double x = -700.0; x <= 0.0; x += 0.37)
    CHECK(std::fabs(portable_exp(x) - std::exp(x)) <= 4e-16 * std::exp(x));
  for (double x = 1e-300; x < 1e300; x *= 7.3)
    CHECK(std::fabs(portable_log(x) - std::log(x)) <= 1e-15 * std::max(1.0, std::fabs(std::log(x))));
  CHECK(portable_exp(0.0) == 1.0);
  CHECK(portable_exp(-800.0) == 0.0);
}

TEST_CASE("Dirichlet draws have the distribution's mean and variance") {
  // mean α_i/α_0; variance m (1 - m) / (α_0 + 1). 20000 draws: five standard errors.
  constexpr int kDraws = 20000;
  for (const std::vector<double>& alpha :
       {std::vector<double>{0.05, 0.1, 0.15}, {0.5, 0.5, 0.5, 0.5}, {2, 8, 30}}) {
    Rng rng(9);
    double all = 0.0;
    for (const double a : alpha) all += a;
    std::vector<double> sum(alpha.size(), 0.0), squares(alpha.size(), 0.0), fourth(alpha.size(), 0.0);
    for (int i = 0; i < kDraws; ++i) {
      const std::vector<double> p = dirichlet(rng, alpha);
      double one = 0.0;
      for (std::size_t j = 0; j < p.size(); ++j) {
        const double away = p[j] - alpha[j] / all;
        sum[j] += p[j];
        squares[j] += away * away;
        fourth[j] += away * away * away * away;
        one += p[j];
      }
      REQUIRE(std::fabs(one - 1.0) < 1e-12);
    }
    for (std::size_t j = 0; j < alpha.size(); ++j) {
      const double m = alpha[j] / all, variance = m * (1 - m) / (all + 1);
      CHECK(std::fabs(sum[j] / kDraws - m) < 5.0 * std::sqrt(variance / kDraws));
      const double error = std::sqrt((fourth[j] / kDraws - variance * variance) / kDraws);
      CHECK(std::fabs(squares[j] / kDraws - variance) < 5.0 * error);
    }
  }
}

TEST_CASE("every kind gives every row once, and one seed one partition") {
  const std::vector<std::int64_t> labels = labels_of(1003, 10);
  for (const char* kind : {"iid", "dirichlet", "inner_dirichlet", "pathological", "shard", "size", "label"}) {
    INFO(kind);
    PartitionOptions o = options_of(kind, 20);
    o.alpha = 0.3;
    const Partition one = make_partition(labels, o);
    CHECK(one.size() == 20);
    CHECK(every_row_once(one, labels.size()));
    for (const auto& rows : one) CHECK(std::is_sorted(rows.begin(), rows.end()));
    CHECK(digest(make_partition(labels, o)) == digest(one));
    o.seed = 2;
    CHECK(digest(make_partition(labels, o)) != digest(one));
  }
}

TEST_CASE("iid: labels of the clients do not differ more than chance does") {
  // χ² over 10 clients x 10 labels has 81 degrees of freedom; 99.99 % of draws lie below 137.
  // (Drawing without replacement only makes it smaller.)
  const std::vector<std::int64_t> labels = labels_of(5000, 10);
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    const Partition p = make_partition(labels, options_of("iid", 10, seed));
    double square = 0.0;
    for (const auto& line : histogram(p, labels, 10))
      for (const std::int64_t n : line)
        square += (static_cast<double>(n) - 50.0) * (static_cast<double>(n) - 50.0) / 50.0;
    CHECK(square < 137.0);
    CHECK(square > 30.0);  // nor less: an even deal would be no draw (0.01 % lie below 40 of 81)
    for (const auto& rows : p) CHECK(rows.size() == 500);
  }
}

TEST_CASE("dirichlet: small alpha sets clients apart, large alpha does not") {
  const std::vector<std::int64_t> labels = labels_of(10000, 10);
  const auto apart = [&](const char* kind, double alpha) {
    PartitionOptions o = options_of(kind, 10);
    o.alpha = alpha;
    o.least = 0;
    double sum = 0.0;
    for (o.seed = 1; o.seed <= 10; ++o.seed)
      sum += heterogeneity(histogram(make_partition(labels, o), labels, 10));
    return sum / 10.0;
  };
  for (const char* kind : {"dirichlet", "inner_dirichlet"}) {
    INFO(kind);
    CHECK(apart(kind, 1000.0) < 0.06);
    CHECK(apart(kind, 0.05) > 0.6);
    CHECK(apart(kind, 1000.0) < apart(kind, 1.0));
    CHECK(apart(kind, 1.0) < apart(kind, 0.05));
  }
}

TEST_CASE("dirichlet: the share of a label that a client gets has the variance of Dir(alpha)") {
  // K = 5, α = 1: variance of a share is (1/5)(4/5)/6. 300 seeds x 5 clients of one label with 1000 rows.
  const std::vector<std::int64_t> labels(1000, 0);
  PartitionOptions o = options_of("dirichlet", 5);
  o.alpha = 1.0;
  o.least = 0;
  double squares = 0.0;
  for (o.seed = 1; o.seed <= 300; ++o.seed)
    for (const auto& rows : make_partition(labels, o)) {
      const double away = static_cast<double>(rows.size()) / 1000.0 - 0.2;
      squares += away * away;
    }
  const double variance = 0.2 * 0.8 / 6.0;
  CHECK(std::fabs(squares / 1500.0 - variance) < 0.15 * variance);
}

TEST_CASE("inner_dirichlet gives every client as many rows") {
  for (const auto& rows : make_partition(labels_of(1000, 7), options_of("inner_dirichlet", 8)))
    CHECK(rows.size() == 125);
}

TEST_CASE("pathological: as many labels a client as asked for, each label's clients alike") {
  const std::vector<std::int64_t> labels = labels_of(2000, 10);
  PartitionOptions o = options_of("pathological", 15);
  o.classes_per_client = 2;
  const Partition p = make_partition(labels, o);
  std::vector<std::set<std::int64_t>> counts(10);
  for (const auto& line : histogram(p, labels, 10)) {
    CHECK(std::count_if(line.begin(), line.end(), [](std::int64_t n) { return n > 0; }) == 2);
    for (std::size_t j = 0; j < 10; ++j)
      if (line[j] > 0) counts[j].insert(line[j]);
  }
  for (const auto& sizes : counts) CHECK(*sizes.rbegin() - *sizes.begin() <= 1);
  o.clients = 4;
  CHECK_THROWS_MATCHES(make_partition(labels, o), ConfigError,
                       MessageMatches(ContainsSubstring("4 clients take 8 of 10")));
  o.classes_per_client = 11;
  CHECK_THROWS_AS(make_partition(labels, o), ConfigError);
}

TEST_CASE("shard: few labels a client") {
  // 10 labels of 100 rows, 20 shards of 50: each shard is of one label, so two shards have at most two.
  const std::vector<std::int64_t> labels = labels_of(1000, 10);
  for (const auto& line : histogram(make_partition(labels, options_of("shard", 10)), labels, 10))
    CHECK(std::count_if(line.begin(), line.end(), [](std::int64_t n) { return n > 0; }) <= 2);
}

TEST_CASE("size: shares by formula") {
  const std::vector<std::int64_t> labels(1000, 0);
  PartitionOptions o = options_of("size", 4);
  o.skew = "linear";  // 1 2 3 4 of 10
  const auto sizes = [&] {
    std::vector<std::size_t> out;
    for (const auto& rows : make_partition(labels, o)) out.push_back(rows.size());
    return out;
  };
  CHECK(sizes() == std::vector<std::size_t>{100, 200, 300, 400});
  o.skew = "square";  // 1 4 9 16 of 30, cut at 33.3, 166.7, 466.7
  CHECK(sizes() == std::vector<std::size_t>{33, 134, 300, 533});
  o.skew = "geometric";
  o.ratio = 8.0;  // 1 2 4 8 of 15, cut at 66.7, 200, 466.7
  CHECK(sizes() == std::vector<std::size_t>{67, 133, 267, 533});
  o.skew = "dirichlet";
  o.least = 50;
  for (const std::size_t n : sizes()) CHECK(n >= 50);
  o.least = 400;
  CHECK_THROWS_MATCHES(make_partition(labels, o), ConfigError, MessageMatches(ContainsSubstring("too few")));
}

TEST_CASE("label: a client has one task type, and no type is without a client") {
  const std::vector<std::int64_t> labels = labels_of(90, 3);
  const auto counts = histogram(make_partition(labels, options_of("label", 7)), labels, 3);
  std::vector<int> owners(3, 0);
  for (const auto& line : counts) {
    CHECK(std::count_if(line.begin(), line.end(), [](std::int64_t n) { return n > 0; }) == 1);
    for (std::size_t j = 0; j < 3; ++j) owners[j] += line[j] > 0 ? 1 : 0;
  }
  CHECK(owners == std::vector<int>{3, 2, 2});
  CHECK_THROWS_AS(make_partition(labels, options_of("label", 2)), ConfigError);
}

TEST_CASE("golden: the partitions of seed 1 stay what they are") {
  // Written by this code, to notice a change of what a seed means: published partitions would no longer be
  // theirs.
  const std::vector<std::int64_t> labels = labels_of(500, 5);
  std::string all;
  for (const char* kind : {"iid", "dirichlet", "inner_dirichlet", "pathological", "shard", "size", "label"})
    all += digest(make_partition(labels, options_of(kind, 10)));
  CHECK(hash_text(all) == "6ff7e7562df40a7666b1f73efcfd4caa");
}

TEST_CASE("natural ids: one client each, in alphabetical order") {
  const NaturalPartition p = natural_partition(std::vector<std::string>{"site b", "site a", "site b"});
  CHECK(p.names == std::vector<std::string>{"site a", "site b"});
  CHECK(p.rows == Partition{{1}, {0, 2}});
  CHECK_THROWS_AS(natural_partition(std::vector<std::string>{""}), DataError);
}

TEST_CASE("FCIT's partition folders are read by record id") {
  mcit::test::TemporaryFolder folder;
  mcit::test::write(folder / "client_0.json", R"([{"question_id": "c", "text": "x"}, {"question_id": 7}])");
  mcit::test::write(folder / "client_1.json", R"([{"id": "a"}])");
  const std::vector<std::string> ids{"a", "b", "c", "7"};
  CHECK(read_fcit_partition(folder.path(), ids) == Partition{{2, 3}, {0}});
  const auto refuses = [&](const std::string& text, const std::string& why) {
    mcit::test::write(folder / "client_1.json", text);
    CHECK_THROWS_MATCHES(read_fcit_partition(folder.path(), ids), DataError,
                         MessageMatches(ContainsSubstring("client_1.json") && ContainsSubstring(why)));
  };
  refuses(R"([{"id": "z"}])", "'z' is no row of the training file");
  refuses(R"([{"id": "c"}])", "'c' is given twice");
  refuses(R"([{"text": "z"}])", "neither question_id nor id");
  refuses(R"({"id": "c"})", "no list of records");
  refuses("[3]", "no record");
  CHECK_THROWS_AS(read_fcit_partition(folder / "nowhere", ids), DataError);
  CHECK_THROWS_AS(read_fcit_partition(folder.path(), std::vector<std::string>{"a", "a"}), DataError);
}

TEST_CASE("a histogram is shown with its sums") {
  const std::string text = histogram_text({{3, 0}, {10, 2}}, {"ann", "bob"}, {"cats", "dogs"});
  CHECK(text ==
        "     cats  dogs  all\n"
        "ann     3     0    3\n"
        "bob    10     2   12\n"
        "all    13     2   15\n");
  CHECK(heterogeneity({{5, 5}, {5, 5}}) == 0.0);
  CHECK(heterogeneity({{5, 0}, {0, 5}}) == 0.5);
}

TEST_CASE("streams: who trains what in each stage") {
  StreamOptions o;
  o.clients = 6;
  o.tasks = 4;
  o.rounds_per_stage = 3;
  const ClientStreams same(o);
  CHECK(same.stages() == 4);
  CHECK(same.rounds() == 12);
  for (std::int64_t k = 0; k < 6; ++k)
    for (std::int64_t round = 1; round <= 12; ++round) CHECK(same.task_in_round(k, round) == (round - 1) / 3);
  CHECK(same.task_in_round(0, 13) == -1);

  o.kind = "permuted";
  const ClientStreams permuted(o);
  std::set<std::vector<std::int64_t>> orders;
  for (std::int64_t k = 0; k < 6; ++k) {
    std::vector<std::int64_t> order;
    for (std::int64_t s = 0; s < 4; ++s) order.push_back(permuted.task(k, s));
    orders.insert(order);
    std::sort(order.begin(), order.end());
    CHECK(order == std::vector<std::int64_t>{0, 1, 2, 3});
  }
  CHECK(orders.size() > 1);

  o.kind = "heterogeneous";
  const ClientStreams mixed(o);
  for (std::int64_t s = 0; s < 4; ++s) {
    std::vector<int> trained(4, 0);
    for (std::int64_t k = 0; k < 6; ++k) ++trained[static_cast<std::size_t>(mixed.task(k, s))];
    for (const int n : trained) CHECK((n == 1 || n == 2));  // six clients over four tasks
  }
  for (std::int64_t k = 0; k < 6; ++k) {
    std::set<std::int64_t> met;
    for (std::int64_t s = 0; s < 4; ++s) met.insert(mixed.task(k, s));
    CHECK(met.size() == 4);
  }

  o.kind = "fixed";
  const ClientStreams fixed(o);
  CHECK(fixed.stages() == 1);
  CHECK(fixed.rounds() == 3);
  std::vector<int> owners(4, 0);
  for (std::int64_t k = 0; k < 6; ++k) ++owners[static_cast<std::size_t>(fixed.task_in_round(k, 1))];
  for (const int n : owners) CHECK((n == 1 || n == 2));

  o.kind = "disjoint";
  o.tasks = 8;
  const ClientStreams disjoint(o);
  CHECK(disjoint.stages() == 2);
  std::vector<std::int64_t> met;
  for (std::int64_t k = 0; k < 6; ++k)
    for (std::int64_t s = 0; s < 2; ++s)
      if (disjoint.task(k, s) >= 0) met.push_back(disjoint.task(k, s));
  std::sort(met.begin(), met.end());
  CHECK(met == std::vector<std::int64_t>{0, 1, 2, 3, 4, 5, 6, 7});

  o.kind = "arrival";
  o.tasks = 4;
  o.arrival_every = 2;
  const ClientStreams arrival(o);
  std::set<std::int64_t> first;
  for (std::int64_t k = 0; k < 6; ++k) {
    first.insert(arrival.arrival(k));
    CHECK(arrival.task_in_round(k, arrival.arrival(k)) == (arrival.arrival(k) - 1) / 3);
    if (arrival.arrival(k) > 1) CHECK(arrival.task_in_round(k, arrival.arrival(k) - 1) == -1);
  }
  CHECK(first == std::set<std::int64_t>{1, 3, 5, 7, 9, 11});
  o.arrival_every = 3;
  CHECK_THROWS_MATCHES(ClientStreams(o), ConfigError,
                       MessageMatches(ContainsSubstring("after the last of 12")));
  o.kind = "sane";
  CHECK_THROWS_MATCHES(ClientStreams(o), ConfigError, MessageMatches(ContainsSubstring("same")));
}
