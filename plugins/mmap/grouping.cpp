#include "grouping.hpp"

#include <torch/types.h>

#include <algorithm>
#include <limits>

namespace mcit::mmap {
namespace {

constexpr double kTiny = 1e-300;

std::vector<std::vector<std::size_t>> members(const Partition& partition) {
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t t = 0; t < partition.size(); ++t) {
    const auto group = static_cast<std::size_t>(partition[t]);
    if (group >= groups.size()) groups.resize(group + 1);
    groups[group].push_back(t);
  }
  return groups;
}

/// Σ of S − θ between the members of two groups.
double attraction(const Affinity& affinity, const std::vector<std::size_t>& a,
                  const std::vector<std::size_t>& b, double threshold) {
  double sum = 0.0;
  for (const std::size_t i : a)
    for (const std::size_t j : b) sum += affinity[i][j] - threshold;
  return sum;
}

Partition exhaustive(const Affinity& affinity, double threshold) {
  const std::size_t count = affinity.size();
  Partition current(count, 0), best = current;
  double best_score = -std::numeric_limits<double>::infinity();
  // Restricted growth strings: each task joins a group that is there or opens the next.
  const std::function<void(std::size_t, std::int64_t)> place = [&](std::size_t task, std::int64_t groups) {
    if (task == count) {
      const double score = partition_score(affinity, current, threshold);
      if (score > best_score) {
        best_score = score;
        best = current;
      }
      return;
    }
    for (std::int64_t group = 0; group <= groups; ++group) {
      current[task] = group;
      place(task + 1, std::max(groups, group + 1));
    }
  };
  place(0, 0);
  return best;
}

Partition greedy(const Affinity& affinity, double threshold) {
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t t = 0; t < affinity.size(); ++t) groups.push_back({t});
  for (;;) {
    double best = 0.0;
    std::size_t left = 0, right = 0;
    for (std::size_t a = 0; a < groups.size(); ++a)
      for (std::size_t b = a + 1; b < groups.size(); ++b) {
        const double gain = attraction(affinity, groups[a], groups[b], threshold);
        if (gain <= best) continue;
        best = gain;
        left = a;
        right = b;
      }
    if (right == 0) break;
    groups[left].insert(groups[left].end(), groups[right].begin(), groups[right].end());
    groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(right));
  }
  Partition out(affinity.size());
  for (std::size_t g = 0; g < groups.size(); ++g)
    for (const std::size_t t : groups[g]) out[t] = static_cast<std::int64_t>(g);
  return out;
}

void clear_gradients(const Parameters& parameters) {
  for (const Parameter& p : parameters) p.value.mutable_grad().reset();
}

Tensor gradient_of(const Parameter& p) {
  return p.value.grad().defined() ? p.value.grad().detach().clone() : at::zeros_like(p.value.detach());
}

std::vector<Tensor> gradients(const Parameters& parameters, const Batch& batch, const GroupLoss& loss,
                              double& value) {
  clear_gradients(parameters);
  const Tensor l = loss(batch);
  value = l.item<double>();
  l.backward();
  std::vector<Tensor> out;
  for (const Parameter& p : parameters) out.push_back(gradient_of(p));
  clear_gradients(parameters);
  return out;
}

Tensor flat(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> parts;
  for (const Tensor& t : tensors) parts.push_back(t.to(at::kCPU, at::kDouble).flatten());
  return at::cat(parts);
}

/// θ ← θ − η g / rms(g), tensor by tensor: a step of one size whatever the scale of the loss.
void descend(const Parameters& parameters, const std::vector<Tensor>& gradient, double rate) {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const double rms = gradient[i].to(at::kDouble).square().mean().sqrt().item<double>();
    if (rms > 0.0) parameters[i].value.detach().sub_(gradient[i] * (rate / rms));
  }
}

}  // namespace

double partition_score(const Affinity& affinity, const Partition& partition, double threshold) {
  double sum = 0.0;
  for (const auto& group : members(partition))
    for (std::size_t i = 0; i < group.size(); ++i)
      for (std::size_t j = i + 1; j < group.size(); ++j) sum += affinity[group[i]][group[j]] - threshold;
  return sum;
}

Partition best_partition(const Affinity& affinity, double threshold) {
  constexpr std::size_t kExhaustive = 8;  // 4140 partitions
  return affinity.size() <= kExhaustive ? exhaustive(affinity, threshold) : greedy(affinity, threshold);
}

Tensor gradient_signature(const Parameters& parameters, const Batch& batch, const GroupLoss& loss) {
  double value = 0.0;
  const Tensor g = flat(gradients(parameters, batch, loss, value));
  return g / g.norm().clamp_min(kTiny);
}

Affinity measure_affinity(const Parameters& parameters, const std::vector<std::vector<ExamplePtr>>& tasks,
                          const GroupingOptions& options, const at::Generator& generator,
                          const GroupLoss& loss) {
  const std::size_t count = tasks.size();
  std::vector<Tensor> order;
  for (const auto& task : tasks)
    order.push_back(
        at::randperm(static_cast<std::int64_t>(task.size()), generator, at::TensorOptions(at::kLong)));
  const auto batch_of = [&](std::size_t task, std::int64_t step) {
    Batch batch;
    const auto size = static_cast<std::int64_t>(tasks[task].size());
    for (std::int64_t i = 0; i < std::min(options.examples, size); ++i)
      batch.examples.push_back(tasks[task][static_cast<std::size_t>(
          order[task][(step * options.examples + i) % size].item<std::int64_t>())]);
    return batch;
  };
  Affinity sum(count, std::vector<double>(count, 0.0));
  for (std::int64_t step = 0; step < options.steps; ++step) {
    std::vector<Batch> batches;
    std::vector<std::vector<Tensor>> g;
    std::vector<double> here(count, 0.0);
    for (std::size_t t = 0; t < count; ++t) {
      batches.push_back(batch_of(t, step));
      g.push_back(gradients(parameters, batches[t], loss, here[t]));
    }
    if (options.measure == GroupingOptions::Measure::cosine) {
      std::vector<Tensor> unit;
      for (const auto& own : g) {
        const Tensor x = flat(own);
        unit.push_back(x / x.norm().clamp_min(kTiny));
      }
      for (std::size_t i = 0; i < count; ++i)
        for (std::size_t j = 0; j < count; ++j) sum[i][j] += unit[i].dot(unit[j]).item<double>();
    } else {
      const at::NoGradGuard no_grad;
      std::vector<Tensor> before;
      for (const Parameter& p : parameters) before.push_back(p.value.detach().clone());
      for (std::size_t i = 0; i < count; ++i) {
        descend(parameters, g[i], options.rate);
        for (std::size_t j = 0; j < count; ++j) {
          const double z = 1.0 - loss(batches[j]).item<double>() / std::max(here[j], kTiny);
          sum[i][j] += 0.5 * z;
          sum[j][i] += 0.5 * z;
        }
        for (std::size_t p = 0; p < parameters.size(); ++p) parameters[p].value.detach().copy_(before[p]);
      }
    }
    std::vector<Tensor> together = g.front();
    for (std::size_t t = 1; t < count; ++t)
      for (std::size_t p = 0; p < together.size(); ++p) together[p] = together[p] + g[t][p];
    descend(parameters, together, options.rate);
  }
  for (auto& row : sum)
    for (double& value : row) value /= static_cast<double>(std::max<std::int64_t>(1, options.steps));
  return sum;
}

}  // namespace mcit::mmap
