#include "fed/streams.hpp"

#include <algorithm>
#include <numeric>

#include "core/random.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

const std::vector<std::string>& kinds() {
  static const std::vector<std::string> names{"same",  "permuted", "heterogeneous",
                                              "fixed", "disjoint", "arrival"};
  return names;
}

using Tasks = std::vector<std::vector<std::int64_t>>;

Tasks shifted(std::size_t clients, std::size_t tasks, Rng& rng) {
  const std::vector<std::int64_t> order = rng.permutation(tasks), seats = rng.permutation(clients);
  Tasks out(clients);
  for (std::size_t k = 0; k < clients; ++k)
    for (std::size_t stage = 0; stage < tasks; ++stage)
      out[k].push_back(order[(static_cast<std::size_t>(seats[k]) + stage) % tasks]);
  return out;
}

Tasks dealt(std::size_t clients, std::size_t tasks, Rng& rng) {
  const std::vector<std::int64_t> order = rng.permutation(tasks);
  Tasks out(clients);
  for (std::size_t t = 0; t < tasks; ++t) out[t % clients].push_back(order[t]);
  const std::size_t stages = (tasks + clients - 1) / clients;
  for (std::vector<std::int64_t>& own : out) {
    std::sort(own.begin(), own.end());  // in stream order
    own.resize(stages, -1);
  }
  return out;
}

}  // namespace

StreamOptions StreamOptions::read(const Config& table) {
  StreamOptions o;
  o.kind = table.choice("kind", o.kind, kinds());
  o.rounds_per_stage = table.integer("rounds_per_stage", o.rounds_per_stage, 1);
  o.arrival_every = table.integer("arrival_every", o.arrival_every, 1);
  return o;
}

ClientStreams::ClientStreams(const StreamOptions& options) : options_(options) {
  if (options.clients < 1 || options.tasks < 1 || options.rounds_per_stage < 1)
    throw ConfigError("stream", "needs at least one client, one task and one round");
  const auto clients = static_cast<std::size_t>(options.clients),
             tasks = static_cast<std::size_t>(options.tasks);
  Rng rng(derive(options.seed, {"streams", std::string_view(options.kind)}));
  arrivals_.assign(clients, 1);
  if (options.kind == "same" || options.kind == "arrival") {
    std::vector<std::int64_t> order(tasks);
    std::iota(order.begin(), order.end(), std::int64_t{0});
    tasks_.assign(clients, order);
  } else if (options.kind == "permuted") {
    for (std::size_t k = 0; k < clients; ++k) tasks_.push_back(rng.permutation(tasks));
  } else if (options.kind == "heterogeneous") {
    tasks_ = shifted(clients, tasks, rng);
  } else if (options.kind == "fixed") {
    tasks_ = shifted(clients, tasks, rng);
    for (std::vector<std::int64_t>& own : tasks_) own.resize(1);
  } else if (options.kind == "disjoint") {
    tasks_ = dealt(clients, tasks, rng);
  } else {
    throw ConfigError("stream.kind", "unknown name '" + options.kind + "'",
                      suggestion(options.kind, kinds()));
  }
  if (options.kind != "arrival") return;
  const std::vector<std::int64_t> order = rng.permutation(clients);
  for (std::size_t i = 0; i < clients; ++i)
    arrivals_[static_cast<std::size_t>(order[i])] = 1 + static_cast<std::int64_t>(i) * options.arrival_every;
  if (*std::max_element(arrivals_.begin(), arrivals_.end()) > rounds())
    throw ConfigError("stream.arrival_every",
                      "lets clients arrive after the last of " + std::to_string(rounds()) + " rounds");
}

std::int64_t ClientStreams::task(std::int64_t client, std::int64_t stage) const {
  return tasks_.at(static_cast<std::size_t>(client)).at(static_cast<std::size_t>(stage));
}

std::int64_t ClientStreams::task_in_round(std::int64_t client, std::int64_t round) const {
  if (round < arrival(client) || round > rounds()) return -1;
  return task(client, stage_of(round));
}

}  // namespace mcit::fed
