// Groups of processes: what they exchange, and what the others hear when one of them ends or hangs.
#include "train/group.hpp"

#include <ATen/core/grad_mode.h>

#include <atomic>
#include <cmath>

#include "mcit/parts/expert_mixture.hpp"
#include "mcit/strategy.hpp"
#include "unit/train/pair.hpp"

#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include "torch_catch.hpp"

namespace mcit::test {
namespace {

using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;
using namespace std::chrono_literals;

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

void all_went_well(const std::array<std::string, 2>& thrown) {
  CHECK(thrown[0].empty());
  CHECK(thrown[1].empty());
}

}  // namespace

TEST_CASE("a group of one leaves everything as it is") {
  const Group& one = no_group();
  CHECK(one.alone());
  CHECK(one.first());
  const Tensor x = at::ones({3});
  CHECK(one.sum(x).is_same(x));
  CHECK(one.weighted(x, 5).is_same(x));
  CHECK(one.gather("text") == std::vector<std::string>{"text"});
  CHECK(one.from_first("text") == "text");
  CHECK(one.any(true));
  CHECK_FALSE(one.any(false));
  CHECK_THROWS_AS(one.together([] { throw DataError("file", "is gone"); }), DataError);
  CHECK_NOTHROW(check_batch(7, one));
}

TEST_CASE("numbers and texts of two processes") {
  std::array<Tensor, 2> sums, bytes;
  std::array<std::vector<std::string>, 2> texts;
  std::array<std::string, 2> first;
  std::array<bool, 2> any{}, none{};
  std::array<double, 2> weighted{};
  all_went_well(in_two([&](std::unique_ptr<Group>& g) {
    const auto r = static_cast<std::size_t>(g->rank());
    sums[r] = g->sum(at::arange(4, at::kDouble) * (g->first() ? 1.0 : 10.0));
    bytes[r] = g->sum(at::full({2}, g->rank() + 1, at::kByte));
    texts[r] = g->gather(g->first() ? "" : std::string("a\0b", 3));
    first[r] = g->from_first("from " + std::to_string(g->rank()));
    any[r] = g->any(!g->first());
    none[r] = g->any(false);
    // means 3 of one row and 5 of three rows: 4.5 of four, the mean of what the two get
    weighted[r] = g->weighted(at::scalar_tensor(g->first() ? 3.0 : 5.0, at::kDouble), g->first() ? 1 : 3)
                      .item<double>();
  }));
  for (std::size_t r = 0; r < 2; ++r) {
    CHECK(sums[r].equal(at::arange(4, at::kDouble) * 11.0));
    CHECK(bytes[r].equal(at::full({2}, 3, at::kByte)));
    CHECK(texts[r] == std::vector<std::string>{"", std::string("a\0b", 3)});
    CHECK(first[r] == "from 0");
    CHECK(any[r]);
    CHECK_FALSE(none[r]);
  }
  CHECK(std::abs(0.5 * (weighted[0] + weighted[1]) - 4.5) < 1e-12);
}

TEST_CASE("gradients are averaged type by type, and one that nobody has stays away") {
  std::array<Parameters, 2> p;
  const std::vector<at::ScalarType> types = {at::kFloat, at::kDouble, at::kBFloat16, at::kFloat, at::kFloat};
  for (Parameters& own : p)
    for (std::size_t i = 0; i < types.size(); ++i)
      own.push_back({"p" + std::to_string(i), at::zeros({2, 3}, types[i]).set_requires_grad(true)});
  all_went_well(in_two([&](std::unique_ptr<Group>& g) {
    const at::NoGradGuard no_grad;
    Parameters& own = p[static_cast<std::size_t>(g->rank())];
    const double value = g->first() ? 1.0 : 4.0;
    for (std::size_t i = 0; i < 3; ++i) own[i].value.mutable_grad() = at::full({2, 3}, value, types[i]);
    if (!g->first()) own[3].value.mutable_grad() = at::full({2, 3}, 6.0, types[3]);  // by one alone
    g->average_gradients(own);
  }));
  for (const Parameters& own : p) {
    for (std::size_t i = 0; i < 3; ++i) {
      REQUIRE(own[i].value.grad().defined());
      CHECK(own[i].value.grad().scalar_type() == types[i]);
      CHECK(own[i].value.grad().equal(at::full({2, 3}, 2.5, types[i])));
    }
    CHECK(own[3].value.grad().equal(at::full({2, 3}, 3.0)));
    CHECK_FALSE(own[4].value.grad().defined());
  }
}

TEST_CASE("what fails in one process fails in both, and says where") {
  std::array<bool, 2> reached{};
  const auto other = in_two([&](std::unique_ptr<Group>& g) {
    g->together([&] {
      if (!g->first()) throw DataError("rows.json", "is damaged");
    });
    reached[static_cast<std::size_t>(g->rank())] = true;
  });
  CHECK(other[0] == "rank 1 of 2: rows.json: is damaged");
  CHECK_FALSE(other[1].empty());
  CHECK_FALSE((reached[0] || reached[1]));
  const auto both = in_two(
      [](std::unique_ptr<Group>& g) { g->together([] { throw ConfigError("train.lr", "is negative"); }); });
  CHECK(both[0] == "train.lr: is negative");  // once, as a process alone says it
}

TEST_CASE("when a process ends, the others hear it in under a second") {
  double seconds = 0.0;
  const auto thrown = in_two([&](std::unique_ptr<Group>& g) {
    g->meet();
    if (!g->first()) {
      g.reset();  // as the end of a process does, this closes its connections
      return;
    }
    const auto begin = std::chrono::steady_clock::now();
    try {
      for (;;) g->meet();
    } catch (...) {
      seconds = seconds_since(begin);
      throw;
    }
  });
  CHECK_THAT(thrown[0], ContainsSubstring("rank 0 of 2: another process has ended"));
  CHECK(thrown[1].empty());
  CHECK(seconds < 1.0);
}

TEST_CASE("a process that hangs is given up after the time that was set") {
  std::atomic<bool> over = false;
  double seconds = 0.0;
  const auto thrown = in_two([&](std::unique_ptr<Group>& g) {
    g->meet();
    g->set_timeout(700ms);
    if (!g->first()) {
      while (!over) std::this_thread::sleep_for(10ms);
      return;
    }
    const auto begin = std::chrono::steady_clock::now();
    try {
      g->meet();
    } catch (...) {
      seconds = seconds_since(begin);
      over = true;
      throw;
    }
    over = true;
  });
  CHECK_THAT(thrown[0], ContainsSubstring("another process has not answered for 0.7 s") &&
                            ContainsSubstring("run.peer_timeout"));
  CHECK(seconds > 0.6);
  CHECK(seconds < 5.0);
}

TEST_CASE("who does not come, and who comes twice, is named") {
  const std::uint16_t port = free_port();
  CHECK_THROWS_MATCHES(Group::join(member(0, 2, port), 400ms), Error,
                       MessageMatches(ContainsSubstring("rank 1 did not come within 0.4 s")));
  CHECK_THROWS_MATCHES(Group::join(member(1, 2, free_port()), 400ms), ConfigError,
                       MessageMatches(ContainsSubstring("cannot be reached")));
  const std::uint16_t shared = free_port();
  std::array<std::string, 3> thrown;
  std::array<std::thread, 3> threads;
  for (std::size_t i = 0; i < 3; ++i)
    threads[i] = std::thread([&, i] {
      try {
        Group::join(member(i == 0 ? 0 : 1, 3, shared), 2s);
      } catch (const std::exception& e) {
        thrown[i] = e.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK((thrown[1] + thrown[2]).find("two processes are rank 1") != std::string::npos);
}

TEST_CASE("only a strategy that promises it is trained by several processes") {
  class Plain : public Strategy {
   public:
    Parameters parameters() const override { return {}; }
    StateDict state() const override { return {}; }
    void load_state(const StateDict&) override {}
  };
  class Promises : public Plain, public DataParallel {
   public:
    std::string obstacle() const override { return why; }
    std::int64_t known() const { return peers().size(); }
    std::string why;
  };
  Plain plain;
  Promises promises;
  CHECK(promises.known() == 1);
  CHECK_NOTHROW(join_group(plain, "plain", no_group()));
  class Nothing final : public Channel {
    void add_up(Tensor&) override {}
    void set_timeout(std::chrono::milliseconds) override {}
  };
  const Group three(0, 3, std::make_unique<Nothing>());
  CHECK_THROWS_MATCHES(join_group(plain, "plain", three), ConfigError,
                       MessageMatches(ContainsSubstring("strategy 'plain'")));
  promises.why = "set strategy.x = 0";
  CHECK_THROWS_MATCHES(
      join_group(promises, "hard", three), ConfigError,
      MessageMatches(ContainsSubstring("strategy 'hard'") && ContainsSubstring("set strategy.x = 0")));
  promises.why.clear();
  join_group(promises, "good", three);
  CHECK(promises.known() == 3);
  CHECK_THROWS_MATCHES(
      check_batch(32, three), ConfigError,
      MessageMatches(ContainsSubstring("train.batch") && ContainsSubstring("multiple of 3")));
  CHECK_NOTHROW(check_batch(33, three));
}

TEST_CASE("each process takes every n-th row") {
  std::vector<ExamplePtr> rows;
  for (std::int64_t i = 0; i < 5; ++i) {
    auto row = std::make_shared<Example>();
    row->index = i;
    rows.push_back(row);
  }
  class Second final : public Peers {
    std::int64_t rank() const override { return 1; }
    std::int64_t size() const override { return 2; }
  };
  const Second second;
  const std::vector<ExamplePtr> own = second.share(rows);
  REQUIRE(own.size() == 2);
  CHECK(own[0]->index == 1);
  CHECK(own[1]->index == 3);
  CHECK(Peers().share(rows) == rows);
}

TEST_CASE("the balance loss of two processes is that of all rows") {
  const Tensor all = at::softmax(at::randn({10, 4}, at::kDouble) * 2.0, -1);
  const Tensor expected = parts::balance_loss(all, 2);
  std::array<double, 2> found{};
  all_went_well(in_two([&](std::unique_ptr<Group>& g) {  // three rows here, seven there
    const std::vector<Tensor> own = {g->first() ? all.narrow(0, 0, 3) : all.narrow(0, 3, 7)};
    found[static_cast<std::size_t>(g->rank())] = parts::balance_loss(own, 2, *g).item<double>();
  }));
  CHECK(std::abs(0.5 * (found[0] + found[1]) - expected.item<double>()) < 1e-12);
}

}  // namespace mcit::test
