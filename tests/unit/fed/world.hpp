#pragma once
/// A federation in one process: a clock that the test moves, and clients whose "training" is a formula.

#include <string>
#include <vector>

#include "core/config.hpp"
#include "core/random.hpp"
#include "fed/round_engine.hpp"
#include "unit/core/temporary.hpp"

namespace mcit::fed::test {

inline Array floats(std::vector<std::int64_t> shape, const std::vector<double>& values) {
  return array_of(Dtype::f32, std::move(shape), values);
}

inline Arrays small_model() {
  return {{"site.lora_A.weight", floats({2, 3}, {0.1, -0.2, 0.3, 0.4, 0.5, -0.6})},
          {"site.lora_B.weight", floats({4, 2}, {0, 0, 0, 0, 0, 0, 0, 0})},
          {"router.bias", floats({5}, {1, 2, 3, 4, 5})}};
}

/// What client `id` has after training in `round`, from `base`.
inline Arrays trained(const Arrays& base, const std::string& id, std::uint32_t round) {
  Arrays out = base;
  Rng rng(derive(7, {"training", std::string_view(id), round}));
  for (auto& [name, array] : out) {
    std::vector<double> values = values_of(array);
    for (double& x : values) x += 0.1 * rng.normal();
    array = array_of(array.dtype, array.shape, values);
  }
  return out;
}

inline UpdateInfo info_of(const std::string& client, std::uint32_t round, const std::string& base,
                          std::int64_t examples = 10) {
  UpdateInfo info;
  info.run = "test";
  info.task = "vqa";
  info.round = round;
  info.base = base;
  info.client = client;
  info.examples = examples;
  return info;
}

class World {
 public:
  explicit World(const std::filesystem::path& ledger, const std::string& settings = "",
                 const std::string& rule = "rule = \"fedavg\"\n")
      : ledger_(ledger),
        text_("[federation]\nrun = \"test\"\nrounds = 4\ndeadline = 60.0\nseed = 3\n" + settings +
              "\n[aggregate]\n" + rule) {
    reopen();
    if (engine->phase() == Phase::needs_model) engine->begin(small_model());
  }

  /// As after a crash: nothing of the process is left but the ledger.
  void reopen() {
    engine.reset();
    engine = RoundEngine::open(Config::parse(text_, "test.toml"), ledger_, [this] { return now; });
  }

  std::vector<OnlineClient> online() const {
    std::vector<OnlineClient> out;
    for (const std::string& id : ids) out.push_back({id, 10});
    return out;
  }
  std::string update(const std::string& client) {
    const Arrays base = from_blob(engine->preview(client), "model").arrays;
    return encode_update(info_of(client, engine->round(), engine->ledger().sha(), examples(client)),
                         engine->layout(), trained(base, client, engine->round()), base, {});
  }
  std::int64_t examples(const std::string& client) const {
    return 10 + static_cast<std::int64_t>(SeedPart(std::string_view(client)).value % 7);
  }
  OfferResult send(const std::string& client) {
    return engine->offer(client, engine->round(), update(client));
  }
  /// A round in which all but `silent` answer. The deadline passes when somebody is silent.
  CloseResult round(const std::vector<std::string>& silent = {}) {
    const RoundPlan plan = engine->plan(online());
    bool all = true;
    for (const std::string& client : plan.clients) {
      if (std::find(silent.begin(), silent.end(), client) == silent.end())
        send(client);
      else
        all = false;
    }
    if (!all) now += 61.0;
    return engine->close();
  }

  double now = 1000.0;
  std::vector<std::string> ids{"ann", "bob", "cid", "dee"};
  std::unique_ptr<RoundEngine> engine;

 private:
  std::filesystem::path ledger_;
  std::string text_;
};

}  // namespace mcit::fed::test
