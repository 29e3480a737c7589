// Aggregation rules against their equations, in float64.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fed/client_terms.hpp"
#include "fed/subspaces.hpp"
#include "mcit/errors.hpp"
#include "unit/fed/bench.hpp"

using namespace mcit;
using namespace mcit::fed;
using namespace mcit::fed::test;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

TEST_CASE("fedavg by hand: examples weigh, or all weigh alike") {
  // x = 10; clients at 11 (1 example), 14 (3): 10 + 1/4 1 + 3/4 4 = 13.25; uniform: 12.5.
  Bench bench("rule = \"fedavg\"", {{"x", doubles({1}, {10})}});
  const auto next = bench.step({{"a", 1, {{"x", {11}}}}, {"b", 3, {{"x", {14}}}}});
  CHECK(next.at("model/x") == doubles({1}, {13.25}));
  bench.weighting = Weighting::uniform;
  CHECK(bench.step({{"a", 1, {{"x", {11}}}}, {"b", 3, {{"x", {14}}}}}).at("model/x") == doubles({1}, {12.5}));
  bench.weighting = Weighting::examples;
  CHECK(bench.step({{"a", 0, {{"x", {11}}}}, {"b", 0, {{"x", {14}}}}}).at("model/x") == doubles({1}, {12.5}));
}

TEST_CASE("every rule that averages leaves identical clients where they are") {
  // FedAvg of identical clients is the identity (design oracle); so it is for these.
  for (const char* rule :
       {"rule = \"fedavg\"", "rule = \"median\"", "rule = \"trimmed_mean\"\ntrim = 0.3",
        "rule = \"distance\"\nmode = \"pairwise\"", "rule = \"distance\"\nmode = \"to_mean\"",
        "rule = \"distance\"\nmode = \"fedavg\""}) {
    INFO(rule);
    Bench bench(rule, {{"x", array_of(Dtype::f32, {3}, std::vector<double>{0.1, 0.2, 0.3})}});
    const std::vector<double> there =
        values_of(array_of(Dtype::f32, {3}, std::vector<double>{0.7, -0.9, 1e-3}));
    const auto next =
        bench.step({{"a", 3, {{"x", there}}}, {"b", 5, {{"x", there}}}, {"c", 7, {{"x", there}}}});
    CHECK(values_of(next.at("model/x")) == there);
  }
}

TEST_CASE("fedavgm: two rounds of momentum") {
  // β 0.5, η 2: v1 = 1, x1 = 0 + 2; Δ2 = 3: v2 = 0.5 + 3 = 3.5, x2 = 2 + 7.
  Bench bench("rule = \"fedavgm\"\nmomentum = 0.5\nrate = 2.0", {{"x", doubles({1}, {0})}});
  bench.take({{"a", 1, {{"x", {1}}}}});
  CHECK(bench.state.at("model/x") == doubles({1}, {2}));
  bench.take({{"a", 1, {{"x", {5}}}}});
  CHECK(bench.state.at("model/x") == doubles({1}, {9}));
}

TEST_CASE("fedadam, fedadagrad, fedyogi: algorithm 2 of Reddi et al., written down plainly") {
  for (const std::string rule : {"fedadam", "fedadagrad", "fedyogi"}) {
    INFO(rule);
    const double b1 = 0.8, b2 = 0.9, eta = 0.05, tau = 0.01;
    Bench bench("rule = \"" + rule + "\"\nbeta1 = 0.8\nrate = 0.05\ntau = 0.01" +
                    (rule == "fedadagrad" ? "" : "\nbeta2 = 0.9"),
                {{"x", doubles({4}, {1, -1, 0, 2})}});
    std::vector<double> x{1, -1, 0, 2}, m(4, 0.0), v(4, tau * tau);
    Rng rng(5);
    for (int round = 0; round < 6; ++round) {
      std::vector<double> one = x, two = x;
      for (int i = 0; i < 4; ++i) {
        one[static_cast<std::size_t>(i)] += rng.normal();
        two[static_cast<std::size_t>(i)] += 0.1 * rng.normal();
      }
      bench.take({{"a", 1, {{"x", one}}}, {"b", 3, {{"x", two}}}});
      for (std::size_t i = 0; i < 4; ++i) {
        const double delta = 0.25 * (one[i] - x[i]) + 0.75 * (two[i] - x[i]);
        m[i] = b1 * m[i] + (1 - b1) * delta;
        const double square = delta * delta;
        if (rule == "fedadam") v[i] = b2 * v[i] + (1 - b2) * square;
        if (rule == "fedadagrad") v[i] += square;
        if (rule == "fedyogi") v[i] -= (1 - b2) * square * (v[i] > square ? 1 : -1);
        x[i] += eta * m[i] / (std::sqrt(v[i]) + tau);
      }
      const std::vector<double> got = values_of(bench.state.at("model/x"));
      for (std::size_t i = 0; i < 4; ++i) CHECK(std::fabs(got[i] - x[i]) < 1e-14);
    }
  }
}

TEST_CASE("median and trimmed mean by hand") {
  // Coordinates 1, 2, 3, 4, 100: median 3, trimmed by one at each end 3; of four: (2 + 3) / 2.
  const auto clients = [](std::vector<double> values) {
    std::vector<Client> out;
    for (std::size_t k = 0; k < values.size(); ++k)
      out.push_back({std::string(1, static_cast<char>('a' + k)), 1, {{"x", {values[k]}}}});
    return out;
  };
  Bench median("rule = \"median\"", {{"x", doubles({1}, {0})}});
  CHECK(median.step(clients({4, 100, 1, 3, 2})).at("model/x") == doubles({1}, {3}));
  CHECK(median.step(clients({4, 1, 3, 2})).at("model/x") == doubles({1}, {2.5}));
  Bench trimmed("rule = \"trimmed_mean\"\ntrim = 0.2", {{"x", doubles({1}, {0})}});
  CHECK(trimmed.step(clients({4, 100, 1, 3, 2})).at("model/x") == doubles({1}, {3}));
  CHECK(trimmed.step(clients({4, 100, 1, 3})).at("model/x") == doubles({1}, {27}));  // ⌊0.2 4⌋ = 0
  CHECK_THROWS_AS(Bench("rule = \"trimmed_mean\"\ntrim = 0.5", {{"x", doubles({1}, {0})}}), ConfigError);
}

TEST_CASE("scaffold: the server's step, and the client's variates follow algorithm 1") {
  // N = 4, two clients: x ← 0 + (1 + 3)/2; c ← 0 + (0.5 + 1.5)/4.
  Bench bench("rule = \"scaffold\"\nclients = 4", {{"x", doubles({1}, {0})}});
  bench.take({{"a", 1, {{"x", {1}}, {"control/x", {0.5}}}}, {"b", 1, {{"x", {3}}, {"control/x", {1.5}}}}});
  CHECK(values_of(bench.state.at("model/x")) == std::vector<double>{2.0});
  CHECK(values_of(bench.state.at("control/x")) == std::vector<double>{0.5});
  CHECK(bench.rule->download(bench.state, "a").contains("control/x"));

  // Two clients with losses a_k/2 (y - t_k)², 1 local step of rate η from x: c_k⁺ is the gradient at x
  // (option II), and with all clients in each round Σ c_k / N = c.
  const std::vector<double> x{2.0}, server{0.3};
  std::vector<double> own{0.1}, change(1), gradient{1.7};
  add_control<double>(gradient, server, own);
  CHECK(std::fabs(gradient[0] - 1.9) < 1e-15);
  const double eta = 0.05;
  const std::vector<double> y{x[0] - eta * gradient[0]};
  update_control<double>(own, change, server, x, y, eta);
  CHECK(std::fabs(own[0] - 1.7) < 1e-13);
  CHECK(std::fabs(change[0] - 1.6) < 1e-13);
}

TEST_CASE("scaffold reaches the joint optimum where fedavg stops short") {
  // f_k(w) = a_k/2 (w - t_k)² with a = 1, 10 and t = -1, 1; optimum of the mean: Σ a t / Σ a = 9/11.
  const double a[] = {1.0, 10.0}, t[] = {-1.0, 1.0}, best = 9.0 / 11.0, eta = 0.05;
  const auto run = [&](bool scaffold) {
    Bench bench(scaffold ? "rule = \"scaffold\"\nclients = 2" : "rule = \"fedavg\"",
                {{"x", doubles({1}, {0})}});
    std::vector<std::vector<double>> own(2, {0.0});
    for (int round = 0; round < 300; ++round) {
      const std::vector<double> x = values_of(bench.state.at("model/x"));
      const std::vector<double> c =
          scaffold ? values_of(bench.state.at("control/x")) : std::vector<double>{0.0};
      std::vector<Client> clients;
      for (std::size_t k = 0; k < 2; ++k) {
        std::vector<double> y = x, change(1);
        for (int step = 0; step < 10; ++step) {
          std::vector<double> gradient{a[k] * (y[0] - t[k])};
          if (scaffold) add_control<double>(gradient, c, own[k]);
          y[0] -= eta * gradient[0];
        }
        Client client{k == 0 ? "a" : "b", 1, {{"x", y}}};
        if (scaffold) {
          update_control<double>(own[k], change, c, x, y, 10 * eta);
          client.tensors["control/x"] = change;
        }
        clients.push_back(client);
      }
      bench.take(clients);
    }
    return values_of(bench.state.at("model/x"))[0];
  };
  CHECK(std::fabs(run(true) - best) < 1e-5);  // control variates are float32
  CHECK(std::fabs(run(false) - best) > 0.1);
}

TEST_CASE("the proximal term is the gradient of μ/2 ‖w - w_global‖²") {
  std::vector<float> gradient{1.0F, 1.0F};
  const std::vector<float> w{3.0F, 0.0F}, global{1.0F, 1.0F};
  add_proximal<float>(gradient, w, global, 0.5F);
  CHECK(gradient == std::vector<float>{2.0F, 0.5F});
}

TEST_CASE("pairwise distances by hand") {
  // θ = 0, 1, 3: d = 1, 3, 2, τ = 2. Row a: exp(0), exp(-1/2), exp(-3/2).
  Bench bench("rule = \"distance\"\nmode = \"pairwise\"\ntensors = [\"x\"]",
              {{"x", doubles({1}, {0})}, {"y", doubles({1}, {0})}});
  bench.take({{"a", 1, {{"x", {0}}, {"y", {1}}}},
              {"b", 1, {{"x", {1}}, {"y", {2}}}},
              {"c", 2, {{"x", {3}}, {"y", {4}}}}});
  const double e1 = std::exp(-0.5), e2 = std::exp(-1.0), e3 = std::exp(-1.5);
  const auto own = [&](const char* client) {
    return values_of(bench.state.at(std::string("personal/") + client + "/x"))[0];
  };
  CHECK(std::fabs(own("a") - (e1 * 1 + e3 * 3) / (1 + e1 + e3)) < 1e-15);
  CHECK(std::fabs(own("b") - (1 + e2 * 3) / (e1 + 1 + e2)) < 1e-15);
  CHECK(std::fabs(own("c") - (e2 * 1 + 3) / (e3 + e2 + 1)) < 1e-15);
  CHECK(values_of(bench.state.at("model/x"))[0] == 1.75);  // n-weighted, for whoever comes later
  CHECK(values_of(bench.state.at("model/y"))[0] == 2.75);  // not chosen: averaged
  CHECK(!bench.state.contains("personal/a/y"));
  CHECK(values_of(bench.rule->download(bench.state, "a").at("x"))[0] == own("a"));
  CHECK(values_of(bench.rule->download(bench.state, "new").at("x"))[0] == 1.75);
  // The next differences are relative to each client's own model.
  const double before = own("b");
  bench.take({{"b", 1, {{"x", {before + 0.5}}, {"y", {0}}}}});
  CHECK(std::fabs(own("b") - (before + 0.5)) < 1e-15);
}

TEST_CASE("weights from the distance to the mean by hand") {
  // θ = 0, 1, 5, mean 2: distances 2, 1, 3: weights ∝ 1/2, 1, 1/3.
  Bench bench("rule = \"distance\"\nmode = \"to_mean\"\nepsilon = 1e-300", {{"x", doubles({1}, {0})}});
  bench.take({{"a", 9, {{"x", {0}}}}, {"b", 1, {{"x", {1}}}}, {"c", 1, {{"x", {5}}}}});
  CHECK(std::fabs(values_of(bench.state.at("model/x"))[0] - (1.0 + 5.0 / 3.0) / (0.5 + 1.0 + 1.0 / 3.0)) <
        1e-15);
  CHECK_THROWS_AS(Bench("rule = \"distance\"\ntensors = [\"lora\"]", {{"x", doubles({1}, {0})}}),
                  ConfigError);
}

TEST_CASE("tensors of a task are averaged over the clients that trained it") {
  // x.a. belongs to task a: (1 2 + 3 6) / 4 = 5, whatever the client of task b sends; x.b. moves by it alone.
  for (const std::string mode : {"fedavg", "to_mean", "pairwise"}) {
    INFO(mode);
    Bench bench("rule = \"distance\"\nmode = \"" + mode + "\"\ntensors = [\"\"]\nby_task = [\"x.\"]",
                {{"x.a.up", doubles({1}, {0})},
                 {"x.b.up", doubles({1}, {1})},
                 {"x.c.up", doubles({1}, {7})},
                 {"lora", doubles({1}, {0})}});
    const auto sends = [](const char* id, std::int64_t n, double a, double b, const char* task) {
      return Client{id, n, {{"x.a.up", {a}}, {"x.b.up", {b}}, {"x.c.up", {9}}, {"lora", {4}}}, task};
    };
    bench.take({sends("p", 1, 2, 50, "a"), sends("q", 3, 6, 50, "a"), sends("r", 9, -80, 3, "b")});
    CHECK(values_of(bench.state.at("model/x.a.up"))[0] == 5.0);
    CHECK(values_of(bench.state.at("model/x.b.up"))[0] == 3.0);
    CHECK(values_of(bench.state.at("model/x.c.up"))[0] == 7.0);  // nobody's task
    CHECK(std::fabs(values_of(bench.state.at("model/lora"))[0] - 4.0) < 1e-14);
    CHECK(!bench.state.contains("personal/p/x.a.up"));
  }
  CHECK_THROWS_AS(
      Bench("rule = \"distance\"\ntensors = [\"x\"]\nby_task = [\"x\"]", {{"x", doubles({1}, {0})}}),
      ConfigError);
}

TEST_CASE("subspaces: near identities share one, far ones found another") {
  const std::string settings =
      "rule = \"subspaces\"\nidentity_size = 2\nthreshold = 0.9\nshared = [\"connector\"]\nsmallest_share = "
      "0.0";
  Bench bench(settings, {{"lora", doubles({1}, {0})}, {"connector", doubles({1}, {0})}});
  const auto client = [](const char* id, std::int64_t n, double lora, double angle) {
    return Client{
        id, n, {{"lora", {lora}}, {"connector", {1}}, {"identity", {std::cos(angle), std::sin(angle)}}}};
  };
  bench.take({client("a", 1, 1, 0.0), client("b", 3, 2, 0.1), client("c", 4, 8, 1.5)});
  CHECK(values_of(bench.state.at("subspace.0/lora"))[0] == 1.75);  // (1 + 3 2) / 4
  CHECK(values_of(bench.state.at("subspace.1/lora"))[0] == 8.0);
  CHECK(values_of(bench.state.at("count.0"))[0] == 4.0);
  CHECK(values_of(bench.state.at("model/connector"))[0] == 1.0);
  CHECK(values_of(bench.state.at("template/lora"))[0] == 0.0);
  // Running mean of unit identities, weighted by examples.
  CHECK(std::fabs(values_of(bench.state.at("prototype.0"))[0] - (1.0 + 3.0 * std::cos(0.1)) / 4.0) < 1e-7);

  // Later: d is near subspace 1 and starts from it; subspace 0 keeps its bits; its prototype moves on.
  const Array kept = bench.state.at("subspace.0/lora"), seen = bench.state.at("prototype.0");
  bench.take({client("d", 2, 9, 1.45)});
  CHECK(values_of(bench.state.at("subspace.1/lora"))[0] == 9.0);
  CHECK(bench.state.at("subspace.0/lora") == kept);
  CHECK(bench.state.at("prototype.0") == seen);
  CHECK(values_of(bench.state.at("count.1"))[0] == 6.0);
  CHECK(!bench.state.contains("prototype.2"));

  const auto download = bench.rule->download(bench.state, "a");
  CHECK(matching_subspace(download, std::vector<double>{1.0, 0.05}) == 0);
  CHECK(matching_subspace(download, std::vector<double>{0.0, 1.0}) == 1);
  CHECK(matching_subspace(download, std::vector<double>{-1.0, 0.0}) == -1);
  CHECK(download.contains("subspace.1/lora"));
  CHECK(download.contains("connector"));
}

TEST_CASE("subspaces: a tiny newcomer joins the nearest, and no more are founded than there are slots") {
  const auto client = [](const char* id, std::int64_t n, double lora, double x, double y) {
    return Client{id, n, {{"lora", {lora}}, {"identity", {x, y}}}};
  };
  Bench tiny("rule = \"subspaces\"\nidentity_size = 2\nsmallest_share = 0.01", {{"lora", doubles({1}, {0})}});
  tiny.take({client("a", 1000, 1, 1, 0), client("b", 1000, 2, -1, 0), client("c", 2, 5, 0.6, 0.8)});
  CHECK(!tiny.state.contains("prototype.2"));
  CHECK(std::fabs(values_of(tiny.state.at("subspace.0/lora"))[0] - (1000.0 + 10.0) / 1002.0) < 1e-12);
  Bench full("rule = \"subspaces\"\nidentity_size = 2\nslots = 1\nsmallest_share = 0.0",
             {{"lora", doubles({1}, {0})}});
  full.take({client("a", 1, 1, 1, 0), client("b", 1, 2, -1, 0)});
  CHECK(values_of(full.state.at("subspace.0/lora"))[0] == 1.5);
  CHECK(!full.state.contains("prototype.1"));
  CHECK(matching_subspace(full.state, std::vector<double>{-1.0, 0.0}) == 0);  // there is no other place
  const Bench::Prepared zero = full.prepare({client("a", 1, 1, 0, 0)});
  CHECK_THAT(full.rule->objection(full.state, zero.updates[0]), ContainsSubstring("identity token is zero"));
}

TEST_CASE("subspaces: the size of the identity is the model's, which is not averaged; or the setting") {
  const Arrays model{{"lora", doubles({1}, {0})}, {"identity", zeros(Dtype::f32, {3})}};
  const Bench bench("rule = \"subspaces\"", model);
  const Layout layout = bench.rule->layout(bench.state);
  CHECK(layout.at("identity").shape == std::vector<std::int64_t>{3});
  CHECK(layout.at("identity").group == Group::statistic);
  CHECK(layout.size() == 2);
  const Arrays download = bench.rule->download(bench.state, "a");
  CHECK_FALSE(download.contains("identity"));
  CHECK(download.contains("template/lora"));
  CHECK_THROWS_MATCHES(Bench("rule = \"subspaces\"\nidentity_size = 2", model), ConfigError,
                       MessageMatches(ContainsSubstring("identity token")));
  CHECK_THROWS_MATCHES(Bench("rule = \"subspaces\"", {{"lora", doubles({1}, {0})}}), ConfigError,
                       MessageMatches(ContainsSubstring("wants an identity token of each client")));
}

TEST_CASE("selective activation is a softmax at temperature 0.05") {
  const std::vector<double> w = activation(std::vector<double>{0.9, 0.8, 0.9});
  const double e = std::exp(-0.1 / 0.05);
  CHECK(std::fabs(w[0] - 1.0 / (2.0 + e)) < 1e-15);
  CHECK(std::fabs(w[1] - e / (2.0 + e)) < 1e-15);
  CHECK(w[0] == w[2]);
}

TEST_CASE("every rule's name makes it") {
  CHECK(aggregator_names().size() == 11);
  for (const std::string& name : aggregator_names()) {
    const Config settings =
        Config::parse("rule = \"" + name + "\"\n" + (name == "scaffold" ? "clients = 3\n" : ""), "t");
    CHECK_THAT(make_aggregator(settings)->name(), ContainsSubstring(name));
    settings.finish();
  }
}
