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

Contribution::Part::Part(const Contribution& of, const std::string& tensor, Group group)
    : update_(of.update.get()),
      source_(&of.update->source(tensor)),
      base_(nullptr),
      factor_(group == Group::model     ? of.scale
              : group == Group::control ? of.control_scale
                                        : 1.0) {
  if (const auto from = of.base.find(tensor); from != of.base.end()) base_ = from->second;
}

void Contribution::Part::delta(std::size_t begin, std::span<double> out) const {
  update_->delta(*source_, base_, begin, out);
  if (factor_ != 1.0)
    for (double& number : out) number *= factor_;
}

double Contribution::Part::square_sum(std::size_t begin, std::span<double> room) const {
  if (const auto floats = update_->floats(*source_, base_, begin); floats && factor_ == 1.0)
    return difference_square_sum(floats->value, floats->base, room.size());
  delta(begin, room);
  return fed::square_sum(room);
}

void Contribution::Part::add_to(std::span<double> sum, double weight, std::size_t begin,
                                std::span<double> room) const {
  if (const auto floats = update_->floats(*source_, base_, begin)) {
    add_difference(floats->value, floats->base, factor_, weight, sum);
    return;
  }
  delta(begin, room.first(sum.size()));
  add_scaled(sum.data(), room.data(), weight, sum.size());
}

std::vector<double> Contribution::Part::value() const {
  if (base_ == nullptr) throw Error("update", "has a tensor without a base");
  std::vector<double> out(base_->size()), start = values_of(*base_);
  delta(0, out);
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

constexpr std::size_t kChunk = 8192;  // of float64: stays in the second-level cache

/// Σ_k weights[k] delta_k of one tensor, a part at a time.
class WeightedSum {
 public:
  WeightedSum(std::span<const Contribution> updates, std::span<const double> weights,
              const std::string& tensor, Group group)
      : weights_(weights), room_(kChunk) {
    for (const Contribution& update : updates) parts_.push_back(update.part(tensor, group));
  }

  /// @param sum at most kChunk elements from `begin`
  void take(std::size_t begin, std::span<double> sum) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (std::size_t k = 0; k < parts_.size(); ++k)
      parts_[k].add_to(sum, weights_[k], begin, std::span(room_).first(sum.size()));
  }

 private:
  std::vector<Contribution::Part> parts_;
  std::span<const double> weights_;
  std::vector<double> room_;
};

}  // namespace

std::vector<double> mean_delta(std::span<const Contribution> updates, std::span<const double> weights,
                               const std::string& tensor, Group group, std::size_t size) {
  std::vector<double> out(size);
  WeightedSum sum(updates, weights, tensor, group);
  for (std::size_t begin = 0; begin < size; begin += kChunk)
    sum.take(begin, std::span(out).subspan(begin, std::min(kChunk, size - begin)));
  return out;
}

void move_model(Arrays& state, const AggregatorInput& input, std::span<const double> weights) {
  std::vector<double> value(kChunk), moved_by(kChunk);
  for (auto& [key, array] : state) {
    const std::string name = model_name(key);
    if (name.empty()) continue;
    WeightedSum sum(input.updates, weights, name, Group::model);
    const std::size_t size = array.size(), width = element_bytes(array.dtype);
    for (std::size_t begin = 0; begin < size; begin += kChunk) {
      const std::size_t count = std::min(kChunk, size - begin);
      std::byte* bytes = array.bytes.data() + begin * width;
      sum.take(begin, std::span(moved_by).first(count));
      load(array.dtype, bytes, std::span(value).first(count));
      add_scaled(value.data(), moved_by.data(), 1.0, count);
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
