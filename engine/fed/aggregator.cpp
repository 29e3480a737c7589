#include "fed/aggregator.hpp"

#include <algorithm>

#include "fed/rules.hpp"
#include "mcit/errors.hpp"

namespace mcit::fed {
namespace {

using Maker = std::unique_ptr<Aggregator> (*)(const Config&);
struct Rule {
  const char* name;
  Maker make;
};
constexpr Rule kRules[] = {{"fedavg", make_fedavg},
                           {"fedavgm", make_fedavgm},
                           {"fedadam", make_fedopt},
                           {"fedadagrad", make_fedopt},
                           {"fedyogi", make_fedopt},
                           {"median", make_median},
                           {"trimmed_mean", make_trimmed_mean},
                           {"scaffold", make_scaffold},
                           {"lora", make_lora},
                           {"distance", make_distance},
                           {"subspaces", make_subspaces}};

MCIT_WIDE void add_scaled(double* sum, const double* x, double factor, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) sum[i] += factor * x[i];
}

}  // namespace

void Contribution::delta(const std::string& tensor, Group group, std::size_t begin,
                         std::span<double> out) const {
  update->delta(tensor, base_of(tensor), begin, out);
  const double by = factor(group);
  if (by != 1.0)
    for (double& number : out) number *= by;
}

const Array* Contribution::base_of(const std::string& tensor) const {
  const auto from = base.find(tensor);
  return from == base.end() ? nullptr : from->second;
}

double Contribution::square_sum(const std::string& tensor, Group group, std::size_t begin,
                                std::span<double> room) const {
  if (const auto floats = update->floats(tensor, base_of(tensor), begin); floats && factor(group) == 1.0)
    return difference_square_sum(floats->value, floats->base, room.size());
  delta(tensor, group, begin, room);
  return fed::square_sum(room);
}

void Contribution::add_to(std::span<double> sum, double weight, const std::string& tensor, Group group,
                          std::size_t begin, std::span<double> room) const {
  if (const auto floats = update->floats(tensor, base_of(tensor), begin)) {
    add_difference(floats->value, floats->base, factor(group), weight, sum);
    return;
  }
  delta(tensor, group, begin, room.first(sum.size()));
  add_scaled(sum.data(), room.data(), weight, sum.size());
}

std::vector<double> Contribution::value(const std::string& tensor, Group group) const {
  const auto from = base.find(tensor);
  if (from == base.end() || from->second == nullptr) throw Error(tensor, "has no base");
  std::vector<double> out(from->second->size()), start = values_of(*from->second);
  delta(tensor, group, 0, out);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += start[i];
  return out;
}

std::vector<double> AggregatorInput::weights() const {
  double sum = 0.0;
  for (const Contribution& update : updates) sum += update.examples();
  const bool uniform = weighting == Weighting::uniform || sum <= 0.0;
  std::vector<double> out;
  for (const Contribution& update : updates)
    out.push_back(uniform ? 1.0 / static_cast<double>(updates.size()) : update.examples() / sum);
  return out;
}

Arrays Aggregator::initial(const Arrays& model) const {
  Arrays state;
  for (const auto& [name, array] : model) state[kModel + name] = array;
  return state;
}

std::string model_name(const std::string& key) {
  constexpr std::string_view kPrefix = kModel;
  return key.starts_with(kPrefix) ? key.substr(kPrefix.size()) : std::string();
}

Layout Aggregator::layout(const Arrays& state) const {
  Layout out;
  for (const auto& [key, array] : state)
    if (const std::string name = model_name(key); !name.empty())
      out[name] = {array.dtype, array.shape, Group::model};
  return out;
}

Arrays Aggregator::download(const Arrays& state, const std::string&) const {
  Arrays out;
  for (const auto& [key, array] : state)
    if (const std::string name = model_name(key); !name.empty()) out[name] = array;
  return out;
}

std::map<std::string, const Array*> Aggregator::bases(const Arrays& state, const Update&) const {
  std::map<std::string, const Array*> out;
  for (const auto& [key, array] : state)
    if (const std::string name = model_name(key); !name.empty()) out[name] = &array;
  return out;
}

std::string Aggregator::objection(const Arrays&, const Contribution&) const { return {}; }

const std::vector<std::string>& aggregator_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const Rule& rule : kRules) out.emplace_back(rule.name);
    return out;
  }();
  return names;
}

std::unique_ptr<Aggregator> make_aggregator(const Config& settings) {
  const std::string name = settings.text("rule", "fedavg");
  for (const Rule& rule : kRules)
    if (name == rule.name) return rule.make(settings);
  throw ConfigError(settings.where("rule"), "unknown rule '" + name + "'",
                    suggestion(name, aggregator_names()));
}

namespace {

constexpr std::size_t kChunk = 1024;  // stays in the first-level cache

/// Σ_k weights[k] delta_k of sum.size() elements from `begin`. @param one room for as many
void sum_deltas(std::span<const Contribution> updates, std::span<const double> weights,
                const std::string& tensor, Group group, std::size_t begin, std::span<double> one,
                std::span<double> sum) {
  std::fill(sum.begin(), sum.end(), 0.0);
  for (std::size_t k = 0; k < updates.size(); ++k)
    updates[k].add_to(sum, weights[k], tensor, group, begin, one);
}

}  // namespace

std::vector<double> mean_delta(std::span<const Contribution> updates, std::span<const double> weights,
                               const std::string& tensor, Group group, std::size_t size) {
  std::vector<double> out(size), one(std::min(size, kChunk));
  for (std::size_t begin = 0; begin < size; begin += kChunk) {
    const std::size_t count = std::min(kChunk, size - begin);
    sum_deltas(updates, weights, tensor, group, begin, std::span(one).first(count),
               std::span(out).subspan(begin, count));
  }
  return out;
}

void move_model(Arrays& state, const AggregatorInput& input, std::span<const double> weights) {
  std::vector<double> value(kChunk), one(kChunk), sum(kChunk);
  for (auto& [key, array] : state) {
    const std::string name = model_name(key);
    const std::size_t size = array.size(), width = element_bytes(array.dtype);
    for (std::size_t begin = 0; !name.empty() && begin < size; begin += kChunk) {
      const std::size_t count = std::min(kChunk, size - begin);
      std::byte* bytes = array.bytes.data() + begin * width;
      sum_deltas(input.updates, weights, name, Group::model, begin, std::span(one).first(count),
                 std::span(sum).first(count));
      load(array.dtype, bytes, std::span(value).first(count));
      add_scaled(value.data(), sum.data(), 1.0, count);
      store(array.dtype, std::span(value).first(count), bytes);
    }
  }
}

Array moved(const Array& base, std::span<const double> delta) {
  std::vector<double> values = values_of(base);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] += delta[i];
  return array_of(base.dtype, base.shape, values);
}

}  // namespace mcit::fed
