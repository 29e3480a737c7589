// Mixtures of experts: gates, and the scaling of each expert's part of the low-rank product.
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "draw.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "mcit/parts/expert_mixture.hpp"

namespace mcit::parts {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr std::int64_t kGrain = 512;  // rows for which a second thread pays

/// v [N, E·q] beside gates [N, E] and z [N, E·q], or [N, q] where all experts share it. Rows of z may lie
/// apart, as in a slice of a wider product.
struct Shape {
  std::int64_t rows, experts, width, stride;
  bool shared;
  std::int64_t offset(std::int64_t expert) const { return shared ? 0 : expert * width; }
};

Shape shape_of(const Tensor& z, const Tensor& gate, bool shared) {
  const std::int64_t experts = gate.size(1);
  return {z.size(0), experts, shared ? z.size(1) : z.size(1) / experts, z.stride(0), shared};
}

/// v[n, e·q + j] = gate[n, e] · z[n, j of e]
Tensor scale_experts(const Tensor& z, const Tensor& gate, bool shared) {
  const Shape s = shape_of(z, gate, shared);
  Tensor v = at::empty({s.rows, s.experts * s.width}, z.options());
  const float *pz = z.const_data_ptr<float>(), *pg = gate.const_data_ptr<float>();
  float* pv = v.data_ptr<float>();
  at::parallel_for(0, s.rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const float *zn = pz + n * s.stride, *gn = pg + n * s.experts;
      float* vn = pv + n * s.experts * s.width;
      for (std::int64_t e = 0; e < s.experts; ++e)
        for (std::int64_t j = 0; j < s.width; ++j) vn[e * s.width + j] = gn[e] * zn[s.offset(e) + j];
    }
  });
  return v;
}

/// dz[n, j of e] = (Σ_e) gate[n, e] · dv[n, e·q + j]
Tensor scale_backward(const Tensor& dv, const Tensor& gate, const Shape& s) {
  Tensor dz = at::empty({s.rows, s.shared ? s.width : s.experts * s.width}, dv.options());
  const float *pv = dv.const_data_ptr<float>(), *pg = gate.const_data_ptr<float>();
  float* pz = dz.data_ptr<float>();
  at::parallel_for(0, s.rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const float *vn = pv + n * s.experts * s.width, *gn = pg + n * s.experts;
      float* zn = pz + n * dz.size(1);
      if (s.shared) std::fill_n(zn, s.width, 0.0F);
      for (std::int64_t e = 0; e < s.experts; ++e)
        for (std::int64_t j = 0; j < s.width; ++j) {
          const float part = gn[e] * vn[e * s.width + j];
          if (s.shared)
            zn[j] += part;
          else
            zn[e * s.width + j] = part;
        }
    }
  });
  return dz;
}

/// dgate[n, e] = Σ_j dv[n, e·q + j] · z[n, j of e]
Tensor gate_backward(const Tensor& dv, const Tensor& z, const Shape& s) {
  Tensor dgate = at::empty({s.rows, s.experts}, dv.options());
  const float *pv = dv.const_data_ptr<float>(), *pz = z.const_data_ptr<float>();
  float* pd = dgate.data_ptr<float>();
  at::parallel_for(0, s.rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t n = begin; n < end; ++n) {
      const float *vn = pv + n * s.experts * s.width, *zn = pz + n * s.stride;
      for (std::int64_t e = 0; e < s.experts; ++e) {
        float dot = 0.0F;
        for (std::int64_t j = 0; j < s.width; ++j) dot += vn[e * s.width + j] * zn[s.offset(e) + j];
        pd[n * s.experts + e] = dot;
      }
    }
  });
  return dgate;
}

/// scale_experts() on the graph, for float32 on the CPU: a few passes over N·r numbers in all.
struct ScaleExperts : torch::autograd::Function<ScaleExperts> {
  static Tensor forward(AutogradContext* ctx, const Tensor& z, const Tensor& gate, bool shared) {
    ctx->save_for_backward({z, gate});
    ctx->saved_data["shared"] = shared;
    return scale_experts(z, gate, shared);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor dv = grads[0].contiguous();
    const Shape s = shape_of(saved[0], saved[1], ctx->saved_data["shared"].toBool());
    Tensor dz, dgate;
    if (ctx->needs_input_grad(0)) dz = scale_backward(dv, saved[1], s);
    if (ctx->needs_input_grad(1)) dgate = gate_backward(dv, saved[0], s);
    return {dz, dgate, Tensor()};
  }
};

/// Widens gates of the first E_t experts to all E.
Tensor padded(const Tensor& gates, std::int64_t experts) {
  const std::int64_t missing = experts - gates.size(1);
  return missing == 0 ? gates : at::constant_pad_nd(gates, {0, missing});
}

}  // namespace

MixtureOptions MixtureOptions::read(const Params& params, MixtureOptions defaults) {
  MixtureOptions o = defaults;
  o.experts = params.integer("experts", o.experts);
  o.top_k = params.integer("top_k", o.top_k);
  o.renormalize = params.flag("renorm", o.renormalize);
  static const std::map<std::string, Reads> kPools = {{"per_token", Reads::own_row},
                                                      {"first", Reads::first_row},
                                                      {"mean_prompt", Reads::prompt_mean},
                                                      {"last_prompt", Reads::last_prompt_row}};
  std::string pool;
  for (const auto& [name, reads] : kPools)
    if (reads == o.reads) pool = name;
  o.reads = kPools.at(params.choice("pool", pool, {"per_token", "first", "mean_prompt", "last_prompt"}));
  return o;
}

void MixtureOptions::check(const LoraOptions& lora) const {
  require(experts >= 1, "experts", "must be at least 1");
  require(lora.rank % experts == 0, "rank",
          std::to_string(lora.rank) + " is no multiple of the " + std::to_string(experts) +
              " experts that share it");
  require(top_k >= 0 && top_k <= experts, "top_k",
          std::to_string(top_k) + " of " + std::to_string(experts) + " experts cannot be chosen",
          "0 means all of them");
}

ExpertMixture::ExpertMixture(const Site& site, const MixtureOptions& mixture, const LoraOptions& options,
                             const at::Generator& generator)
    : mixture_(mixture), options_(options), width_(0) {
  const std::int64_t experts = mixture.experts;
  mixture.check(options);
  width_ = options.rank / experts;
  LoraOptions down = options;
  if (mixture.shared_down) down.rank = width_;
  a_ = initial_down(site, down, generator);
  if (mixture.separate_up)
    for (std::int64_t e = 0; e < experts; ++e) b_.push_back(zero_up(site, width_));
  else
    b_.push_back(zero_up(site, options.rank));
  router_ = drawn_rows(site.in(), experts, adapter_options(site), generator);
}

ExpertMixture::~ExpertMixture() = default;

Tensor ExpertMixture::up() const { return b_.size() == 1 ? b_[0] : at::cat(b_, 1); }

/// The tasks whose routers a batch needs, ascending; those without one are served by the newest.
std::vector<std::int64_t> ExpertMixture::tasks_of(const RouteContext& route) const {
  std::vector<std::int64_t> tasks;
  for (const std::int64_t task : route.task) tasks.push_back(routers_.contains(task) ? task : newest_);
  std::sort(tasks.begin(), tasks.end());
  tasks.erase(std::unique(tasks.begin(), tasks.end()), tasks.end());
  if (tasks.empty()) tasks.push_back(newest_);
  return tasks;
}

Tensor ExpertMixture::route(const RouteContext& route) const {
  if (router_.defined()) return router_;
  std::vector<Tensor> rows;
  for (const std::int64_t task : tasks_of(route)) rows.push_back(routers_.at(task));
  return rows.size() == 1 ? rows[0] : at::cat(rows);
}

Tensor ExpertMixture::gates(const Tensor& logits, std::int64_t top_k, bool renormalize) {
  const at::ScalarType type = logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  if (top_k == 0 || top_k >= logits.size(-1)) return at::softmax(logits, -1, type);
  const Tensor wide = logits.to(type);
  const Tensor chosen = std::get<1>(at::topk(wide, top_k, -1));
  const Tensor share =
      renormalize ? at::softmax(wide.gather(-1, chosen), -1) : at::softmax(wide, -1).gather(-1, chosen);
  return at::zeros_like(wide).scatter(-1, chosen, share);
}

/// Gates [R, E] of logits [R, Σ E_t]: each row from the columns of its own task's router.
Tensor ExpertMixture::decide(const Tensor& logits, const RouteContext& route) const {
  const auto gates_of = [&](const Tensor& part) {
    return padded(gates(part, std::min(mixture_.top_k, part.size(1)), mixture_.renormalize),
                  mixture_.experts);
  };
  if (router_.defined()) return gates_of(logits);
  const std::vector<std::int64_t> tasks = tasks_of(route);
  if (tasks.size() == 1) return gates_of(logits);
  std::vector<std::int64_t> own;
  for (const std::int64_t task : route.task) own.push_back(routers_.contains(task) ? task : newest_);
  Tensor task = at::tensor(own, at::kLong).to(logits.device());
  if (mixture_.reads == Reads::own_row) task = task.index_select(0, route.rows.sequence);
  Tensor out;
  std::int64_t column = 0;
  for (const std::int64_t t : tasks) {
    const std::int64_t experts = routers_.at(t).size(0);
    const Tensor mine = gates_of(logits.narrow(1, column, experts));
    out = out.defined() ? at::where((task == t).unsqueeze(1), mine, out) : mine;
    column += experts;
  }
  return out;
}

Tensor ExpertMixture::mix(const Tensor& z, const Tensor& logits, RouteContext& route,
                          const std::string& site) const {
  const bool by_sequence = mixture_.reads != Reads::own_row, training = at::GradMode::is_enabled();
  Tensor gate;
  if (by_sequence && route.rows.decoding) {
    gate = route.memo.at(site);
  } else {
    gate = decide(logits, route);
    if (count_usage_) usage_.add_(gate.detach().sum(0).to(usage_.options()));
    if (keep_shares_ && training) shares_ = gates(logits);
    if (by_sequence && !training) route.memo[site] = gate;
  }
  if (by_sequence) gate = gate.index_select(0, route.rows.sequence);
  gate = (gate * options_.scale()).to(z.scalar_type());
  if (z.is_cpu() && z.scalar_type() == at::kFloat && z.stride(1) == 1) {
    gate = gate.contiguous();
    return training ? ScaleExperts::apply(z, gate, mixture_.shared_down)
                    : scale_experts(z, gate, mixture_.shared_down);
  }
  const Tensor parts = mixture_.shared_down ? z.unsqueeze(1) : z.view({z.size(0), mixture_.experts, width_});
  return (parts * gate.unsqueeze(-1)).flatten(1);
}

Parameters ExpertMixture::parameters() const {
  Parameters out = {{"lora_A.weight", a_}};
  if (mixture_.separate_up)
    for (std::size_t e = 0; e < b_.size(); ++e)
      out.push_back({"lora_B." + std::to_string(e) + ".weight", b_[e]});
  else
    out.push_back({"lora_B.weight", b_[0]});
  if (router_.defined()) out.push_back({"lora_router.weight", router_});
  for (const auto& [task, router] : routers_)
    out.push_back({"lora_router." + std::to_string(task) + ".weight", router});
  return out;
}

void ExpertMixture::add_router(std::int64_t task, std::int64_t copy_of, const at::Generator& generator) {
  if (routers_.contains(task)) throw Error("router", "task " + std::to_string(task) + " has one already");
  Tensor fresh = drawn_rows(a_.size(1), mixture_.experts, a_.options().requires_grad(false), generator);
  if (const auto model = routers_.find(copy_of); model != routers_.end()) {
    const at::NoGradGuard no_grad;
    fresh.narrow(0, 0, model->second.size(0)).copy_(model->second);
  }
  routers_[task] = fresh;
  router_ = Tensor();
  newest_ = task;
}

void ExpertMixture::add_expert(const at::Generator& generator) {
  if (!mixture_.separate_up) throw Error("expert", "can only be added where each has a tensor of its own");
  b_.push_back(at::zeros_like(b_[0].detach()).set_requires_grad(true));
  ++mixture_.experts;
  if (!mixture_.shared_down) {
    const Tensor rows = drawn_rows(a_.size(1), width_, a_.options().requires_grad(false), generator);
    a_ = at::cat({a_.detach(), rows.detach()}).set_requires_grad(a_.requires_grad());
  }
  if (router_.defined()) {
    const Tensor row = drawn_rows(a_.size(1), 1, a_.options().requires_grad(false), generator);
    router_ = at::cat({router_.detach(), row.detach()}).set_requires_grad(router_.requires_grad());
  }
  if (usage_.defined()) usage_ = at::constant_pad_nd(usage_, {0, 1});
}

const Tensor& ExpertMixture::expert_up(std::int64_t expert) const {
  if (!mixture_.separate_up || expert < 0 || expert >= mixture_.experts)
    throw Error("expert", "there is no tensor of expert " + std::to_string(expert));
  return b_[static_cast<std::size_t>(expert)];
}

void ExpertMixture::count_usage(bool count) {
  if (count && !count_usage_) usage_ = at::zeros({mixture_.experts}, at::TensorOptions(at::kDouble));
  count_usage_ = count;
}

Tensor ExpertMixture::take_shares() { return std::exchange(shares_, Tensor()); }

void measure_usage(std::span<const std::shared_ptr<ExpertMixture>> mixtures, Batches& batches,
                   Backbone& backbone, std::int64_t examples) {
  constexpr std::int64_t kBatch = 32;
  const at::NoGradGuard no_grad;
  for (const auto& mixture : mixtures) mixture->count_usage(true);
  visit_spread(batches, examples, kBatch, [&](const Batch& batch) {
    std::vector<std::int64_t>& route = backbone.route().task;
    route.clear();
    for (const ExamplePtr& example : batch.examples) route.push_back(example->task);
    backbone.forward(batch);
  });
  for (const auto& mixture : mixtures) mixture->count_usage(false);
}

StageTable usage_table(const std::vector<std::string>& sites,
                       std::span<const std::shared_ptr<ExpertMixture>> mixtures) {
  StageTable table;
  std::int64_t most = 0;
  for (const auto& mixture : mixtures) most = std::max(most, mixture->experts());
  for (std::int64_t e = 0; e < most; ++e) table.columns.push_back(std::to_string(e + 1));
  table.rows = sites;
  for (const auto& mixture : mixtures) {
    const Tensor usage = mixture->usage();
    const double total = std::max(usage.sum().item<double>(), std::numeric_limits<double>::min());
    std::vector<double> row(static_cast<std::size_t>(most), 0.0);
    for (std::int64_t e = 0; e < usage.size(0); ++e)
      row[static_cast<std::size_t>(e)] = 100.0 * usage[e].item<double>() / total;
    table.values.push_back(std::move(row));
  }
  return table;
}

Tensor balance_loss(const Tensor& shares, std::int64_t top_k) {
  static const Peers alone;
  return balance_loss(std::span(&shares, 1), top_k, alone);
}

Tensor balance_loss(std::span<const Tensor> shares, std::int64_t top_k, const Peers& peers) {
  const std::int64_t experts = shares[0].size(1), k = top_k == 0 ? 1 : std::min(top_k, experts);
  std::vector<Tensor> places, sums;  // of this process's rows
  for (const Tensor& of_router : shares) {
    const Tensor rows = of_router.detach(), chosen = std::get<1>(at::topk(rows, k, -1));
    places.push_back(at::zeros_like(rows).scatter_(-1, chosen, 1.0).sum(0, false, at::kDouble));
    places.push_back(at::full({1}, rows.size(0), places.back().options()));
    sums.push_back(of_router.sum(0));
  }
  const Tensor all = peers.sum(at::cat(places)).view({-1, experts + 1});
  const Tensor rows = all.narrow(1, experts, 1);
  const Tensor fraction = all.narrow(1, 0, experts) / (rows * static_cast<double>(k));
  const Tensor mean = at::stack(sums) / (rows / static_cast<double>(peers.size())).to(sums[0].scalar_type());
  return static_cast<double>(experts) * (fraction.to(mean.scalar_type()) * mean).sum(1).mean();
}

}  // namespace mcit::parts
