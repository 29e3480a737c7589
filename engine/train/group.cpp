#include "train/group.hpp"

#include <torch/types.h>

#include <cstring>
#include <exception>
#include <numeric>

#include "core/log.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "mcit/strategy.hpp"

namespace mcit {
namespace {

/// Gradients of one type, side by side, with a number behind them for each that says whether it was there.
struct Bucket {
  std::vector<const Parameter*> parameters;
  Tensor values;

  Bucket(const Parameters& all, at::ScalarType type) {
    std::vector<Tensor> parts;
    std::vector<double> present;
    for (const Parameter& p : all) {
      if ((p.value.scalar_type() == at::kDouble ? at::kDouble : at::kFloat) != type) continue;
      const Tensor& grad = p.value.grad();
      const at::TensorOptions like = all.front().value.options().dtype(type);
      parts.push_back(grad.defined() ? grad.detach().to(like).flatten() : at::zeros({p.value.numel()}, like));
      present.push_back(grad.defined() ? 1.0 : 0.0);
      parameters.push_back(&p);
    }
    if (parameters.empty()) return;
    parts.push_back(at::tensor(present, at::kDouble).to(parts.front().options()));
    values = at::cat(parts);
  }

  /// @param size processes that `values` is the sum of
  void give_back(std::int64_t size) const {
    const auto count = static_cast<std::int64_t>(parameters.size());
    const Tensor present =
        values.narrow(0, values.size(0) - count, count).to(at::kCPU, at::kDouble).contiguous();
    values.div_(static_cast<double>(size));
    std::int64_t begin = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const Tensor& value = parameters[static_cast<std::size_t>(i)]->value;
      const Tensor mean = values.narrow(0, begin, value.numel()).view(value.sizes());
      begin += value.numel();
      if (present.const_data_ptr<double>()[i] > 0.0) value.mutable_grad() = mean.to(value.options());
    }
  }
};

}  // namespace

Tensor Group::sum(const Tensor& own) const {
  if (alone()) return own;
  const at::NoGradGuard no_grad;
  Tensor values = own.detach().clone().contiguous();
  channel_->add_up(values);
  return values;
}

void Group::set_timeout(std::chrono::milliseconds timeout) const {
  if (!alone()) channel_->set_timeout(timeout);
}

Tensor Group::weighted(const Tensor& mean, std::int64_t count) const {
  if (alone()) return mean;
  const auto all = sum(at::scalar_tensor(count, at::kLong)).item<std::int64_t>();
  return mean * (static_cast<double>(count * size_) / static_cast<double>(all));
}

void Group::average_gradients(const Parameters& parameters) const {
  if (alone()) return;
  const at::NoGradGuard no_grad;
  for (const at::ScalarType type : {at::kFloat, at::kDouble}) {
    Bucket bucket(parameters, type);
    if (bucket.parameters.empty()) continue;
    channel_->add_up(bucket.values);
    bucket.give_back(size_);
  }
}

bool Group::any(bool own) const {
  if (alone()) return own;
  return sum(at::scalar_tensor(own ? 1 : 0, at::kLong)).item<std::int64_t>() > 0;
}

std::vector<std::string> Group::gather(const std::string& own) const {
  if (alone()) return {own};
  Tensor lengths = at::zeros({size_}, at::kLong);
  lengths.data_ptr<std::int64_t>()[rank_] = static_cast<std::int64_t>(own.size());
  lengths = sum(lengths);
  const auto* length = lengths.const_data_ptr<std::int64_t>();
  const std::int64_t total = std::accumulate(length, length + size_, std::int64_t{0});
  Tensor bytes = at::zeros({std::max<std::int64_t>(total, 1)}, at::kByte);
  std::memcpy(bytes.data_ptr<std::uint8_t>() + std::accumulate(length, length + rank_, std::int64_t{0}),
              own.data(), own.size());
  bytes = sum(bytes);
  std::vector<std::string> out;
  const auto* at = reinterpret_cast<const char*>(bytes.const_data_ptr<std::uint8_t>());
  for (std::int64_t i = 0; i < size_; at += length[i++])
    out.emplace_back(at, static_cast<std::size_t>(length[i]));
  return out;
}

std::string Group::from_first(std::string own) const {
  return alone() ? std::move(own) : gather(first() ? own : "").front();
}

void Group::together(const std::function<void()>& body) const {
  if (alone()) return body();
  std::exception_ptr failure;
  std::string cause;
  try {
    body();
  } catch (const Interrupted&) {
    throw;
  } catch (const std::exception& e) {
    failure = std::current_exception();
    cause = cause_of(e) + "\n";  // never empty
  }
  const std::vector<std::string> causes = gather(cause);
  for (std::int64_t i = 0; i < size_; ++i) {
    std::string what = causes[static_cast<std::size_t>(i)];
    if (what.empty()) continue;
    if (!first()) log::to_console(log::Level::off);
    if (failure) std::rethrow_exception(failure);
    what.pop_back();
    throw Error("rank " + std::to_string(i) + " of " + std::to_string(size_), what);
  }
}

const Group& no_group() {
  static const Group alone;
  return alone;
}

void join_group(Strategy& strategy, const std::string& name, const Group& group) {
  if (group.alone()) return;
  auto* parallel = dynamic_cast<DataParallel*>(&strategy);
  if (parallel == nullptr)
    throw ConfigError("strategy '" + name + "'", "does not say that several processes can train it",
                      "start one process, or derive it from mcit::DataParallel (mcit/peers.hpp)");
  const std::string obstacle = parallel->obstacle();
  if (!obstacle.empty())
    throw ConfigError("strategy '" + name + "'", "cannot be trained by several processes", obstacle);
  parallel->join(group);
}

void check_batch(std::int64_t batch, const Group& group) {
  if (batch % group.size() == 0) return;
  throw ConfigError("train.batch",
                    std::to_string(batch) + " rows cannot be dealt evenly to " +
                        std::to_string(group.size()) + " processes",
                    "take a multiple of " + std::to_string(group.size()));
}

}  // namespace mcit
