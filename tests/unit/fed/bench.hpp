#pragma once
/// One rule on its own: states in, states out.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/config.hpp"
#include "fed/aggregator.hpp"
#include "unit/fed/world.hpp"

namespace mcit::fed::test {

inline Array doubles(std::vector<std::int64_t> shape, const std::vector<double>& values) {
  return array_of(Dtype::f64, std::move(shape), values);
}

struct Client {
  std::string id;
  std::int64_t examples = 1;
  std::map<std::string, std::vector<double>> tensors;
  std::string task = "t";
};

struct Bench {
  Bench(const std::string& settings, const Arrays& model)
      : rule(make_aggregator(Config::parse(settings, "test"))), state(rule->initial(model)) {}

  struct Prepared {
    std::vector<Contribution> updates;
  };
  /// Through the wire, as full tensors.
  Prepared prepare(const std::vector<Client>& clients) const {
    Prepared out;
    const Layout layout = rule->layout(state);
    for (const Client& client : clients) {
      Arrays model;
      for (const auto& [name, spec] : layout)
        model[name] = array_of(spec.dtype, spec.shape, client.tensors.at(name));
      UpdateInfo info = info_of(client.id, 1, "b", client.examples);
      info.task = client.task;
      Contribution c;
      c.update = std::make_shared<Update>(encode_update(info, layout, model, {}, {}), layout);
      c.base = rule->bases(state, *c.update);
      out.updates.push_back(std::move(c));
    }
    return out;
  }
  Arrays step(const std::vector<Client>& clients) {
    const Prepared prepared = prepare(clients);
    notes = Json::object();
    return rule->aggregate({state, prepared.updates, weighting, 1}, notes);
  }
  void take(const std::vector<Client>& clients) { state = step(clients); }

  std::unique_ptr<Aggregator> rule;
  Arrays state;
  Weighting weighting = Weighting::examples;
  Json notes;
};

}  // namespace mcit::fed::test
