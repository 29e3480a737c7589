#pragma once
/// The makers behind make_aggregator()'s table.

#include <memory>

#include "fed/aggregator.hpp"

namespace mcit::fed {

std::unique_ptr<Aggregator> make_fedavg(const Config& settings);
std::unique_ptr<Aggregator> make_fedavgm(const Config& settings);
std::unique_ptr<Aggregator> make_fedopt(const Config& settings);  ///< fedadam, fedadagrad, fedyogi
std::unique_ptr<Aggregator> make_median(const Config& settings);
std::unique_ptr<Aggregator> make_trimmed_mean(const Config& settings);
std::unique_ptr<Aggregator> make_scaffold(const Config& settings);
std::unique_ptr<Aggregator> make_lora(const Config& settings);
std::unique_ptr<Aggregator> make_distance(const Config& settings);
std::unique_ptr<Aggregator> make_subspaces(const Config& settings);

}  // namespace mcit::fed
