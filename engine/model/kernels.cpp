#include "model/kernels.hpp"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <map>

#include "mcit/errors.hpp"
#include "model/loops.hpp"

namespace mcit::kernels {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

/// Rows below which a loop is not worth splitting over threads.
constexpr std::int64_t kGrain = 64;

bool plain(const Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous(); }

struct RmsNorm : Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight, double eps) {
    const std::int64_t width = x.size(-1), rows = x.numel() / width;
    Tensor y = at::empty_like(x), rstd = at::empty({rows}, x.options());
    const float *px = x.const_data_ptr<float>(), *pw = weight.const_data_ptr<float>();
    float *py = y.data_ptr<float>(), *pr = rstd.data_ptr<float>();
    at::parallel_for(0, rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
      loops::rms_norm(px + begin * width, pw, py + begin * width, pr + begin, end - begin, width,
                      static_cast<float>(eps));
    });
    ctx->save_for_backward({x, weight, rstd});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2], dy = grads[0].contiguous();
    const std::int64_t width = x.size(-1), rows = x.numel() / width;
    Tensor dx = at::empty_like(x), dweight;
    const float *px = x.const_data_ptr<float>(), *pw = weight.const_data_ptr<float>(),
                *pr = rstd.const_data_ptr<float>(), *pg = dy.const_data_ptr<float>();
    float* pd = dx.data_ptr<float>();
    if (ctx->needs_input_grad(1)) {
      dweight = at::zeros_like(weight);  // one running sum: a single pass on one thread
      loops::rms_norm_backward(px, pw, pr, pg, pd, dweight.data_ptr<float>(), rows, width);
    } else {
      at::parallel_for(0, rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t at = begin * width;
        loops::rms_norm_backward(px + at, pw, pr + begin, pg + at, pd + at, nullptr, end - begin, width);
      });
    }
    return {dx, dweight, Tensor()};
  }
};

struct SwiGlu : Function<SwiGlu> {
  static Tensor forward(AutogradContext* ctx, const Tensor& gate_up) {
    const std::int64_t rows = gate_up.size(0), width = gate_up.size(1) / 2;
    Tensor y = at::empty({rows, width}, gate_up.options());
    const float* px = gate_up.const_data_ptr<float>();
    float* py = y.data_ptr<float>();
    at::parallel_for(0, rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
      loops::swiglu(px + begin * 2 * width, py + begin * width, end - begin, width);
    });
    ctx->save_for_backward({gate_up});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor gate_up = ctx->get_saved_variables()[0], dy = grads[0].contiguous();
    const std::int64_t rows = gate_up.size(0), width = gate_up.size(1) / 2;
    Tensor dx = at::empty_like(gate_up);
    const float *px = gate_up.const_data_ptr<float>(), *pg = dy.const_data_ptr<float>();
    float* pd = dx.data_ptr<float>();
    at::parallel_for(0, rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
      loops::swiglu_backward(px + begin * 2 * width, pg + begin * width, pd + begin * 2 * width, end - begin,
                             width);
    });
    return {dx};
  }
};

void rotate_rows(Tensor& x, const Tensor& cos, const Tensor& sin, std::int64_t heads, std::int64_t head_dim,
                 float sign) {
  const std::int64_t stride = x.size(1), half = head_dim / 2;
  float* px = x.data_ptr<float>();
  const float *pc = cos.const_data_ptr<float>(), *ps = sin.const_data_ptr<float>();
  at::parallel_for(0, x.size(0), kGrain, [&](std::int64_t begin, std::int64_t end) {
    loops::rotary(px + begin * stride, pc + begin * half, ps + begin * half, end - begin, stride, heads,
                  head_dim, sign);
  });
}

struct Rotary : Function<Rotary> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& cos, const Tensor& sin,
                        std::int64_t heads, std::int64_t head_dim) {
    Tensor y = x;  // in place: no producer of x keeps its output
    rotate_rows(y, cos, sin, heads, head_dim, 1.0F);
    ctx->mark_dirty({y});
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["head_dim"] = head_dim;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    Tensor dx = grads[0].clone(at::MemoryFormat::Contiguous);
    rotate_rows(dx, saved[0], saved[1], ctx->saved_data["heads"].toInt(), ctx->saved_data["head_dim"].toInt(),
                -1.0F);
    return {dx, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

/// y = x Wᵀ + b with a frozen W, then y[:, offset_j : offset_j + out_j] += v_j up_jᵀ in place.
/// x is not saved: its gradient needs only W.
struct FrozenLinear : Function<FrozenLinear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias, at::TensorList vs, at::TensorList ups,
                        std::vector<std::int64_t> offsets) {
    Tensor y = bias ? at::addmm(*bias, x, weight.t()) : at::mm(x, weight.t());
    variable_list saved = {weight};
    for (std::size_t j = 0; j < vs.size(); ++j) {
      y.narrow(1, offsets[j], ups[j].size(0)).addmm_(vs[j], ups[j].t());
      saved.push_back(vs[j]);
      saved.push_back(ups[j]);
    }
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["offsets"] = std::move(offsets);
    ctx->saved_data["first_v"] =
        static_cast<std::int64_t>(bias ? 3 : 2);  // an absent bias is no input of the node
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<std::int64_t> offsets = ctx->saved_data["offsets"].toIntVector();
    const Tensor dy = grads[0].contiguous();
    const std::size_t count = offsets.size(),
                      first = static_cast<std::size_t>(ctx->saved_data["first_v"].toInt());
    variable_list out(3 + 2 * count + 1);
    if (ctx->needs_input_grad(0)) out[0] = at::mm(dy, saved[0]);
    for (std::size_t j = 0; j < count; ++j) {
      const Tensor &v = saved[1 + 2 * j], &up = saved[2 + 2 * j];
      const Tensor part = dy.narrow(1, offsets[j], up.size(0));
      if (ctx->needs_input_grad(first + j)) out[3 + j] = at::mm(part, up);
      if (ctx->needs_input_grad(first + count + j)) out[3 + count + j] = at::mm(part.t(), v);
    }
    return out;
  }
};

/// One adapter at one site of a group, with where its rows lie.
struct Slot {
  Adapter* adapter;
  Site* site;
  std::int64_t offset;  ///< first output column of the site
  Tensor z, logits;
};

/// Rows of several adapters that read the same input, and where each product goes.
struct Stack {
  std::vector<Tensor> rows;
  std::vector<std::int64_t> sizes;
  std::vector<Tensor*> targets;

  void add(const Tensor& some, Tensor* target) {
    rows.push_back(some);
    sizes.push_back(some.size(0));
    targets.push_back(target);
  }
  void multiply(const Tensor& x) const {
    if (rows.empty()) return;
    const Tensor all = (rows.size() == 1 ? rows[0] : at::cat(rows)).to(x.scalar_type());
    const std::vector<Tensor> parts = at::linear(x, all).split_with_sizes(sizes, 1);
    for (std::size_t i = 0; i < parts.size(); ++i) *targets[i] = parts[i];
  }
};

/// z and router logits of every slot: one product for all that read the same (un)dropped input.
void project_down(const Tensor& x, std::vector<Slot>& slots, const RouteContext& route, bool training) {
  Stack own;
  std::map<Reads, Stack> pooled;
  for (Slot& slot : slots) {
    const Tensor down = slot.adapter->down();
    const double p = training ? slot.adapter->dropout() : 0.0;
    if (p > 0.0)
      slot.z = at::linear(at::dropout(x, p, true), down.to(x.scalar_type()));
    else
      own.add(down, &slot.z);
    const Reads reads = slot.adapter->reads();
    const bool every_row = reads == Reads::own_row || reads == Reads::sequence;
    if (!every_row && route.rows.decoding) continue;  // decided at prefill
    const Tensor router = slot.adapter->route(route);
    if (!router.defined()) continue;
    if (!every_row && (!route.rows.sequence.defined() || route.rows.sequence.size(0) != x.size(0)))
      throw Error(slot.site->name(), "an adapter here has a router that reads one row a sequence",
                  "such adapters belong in the decoder");
    (every_row ? own : pooled[reads]).add(router, &slot.logits);
  }
  own.multiply(x);
  for (const auto& [reads, stack] : pooled) stack.multiply(router_input(x, reads, route.rows));
}

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) {
  if (plain(x) && plain(weight)) return RmsNorm::apply(x, weight, eps);
  if (x.is_cuda()) return at::rms_norm(x, weight.sizes(), weight, eps);  // one kernel, statistics in float32
  const Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  return weight * (wide * at::rsqrt(wide.pow(2).mean(-1, true) + eps)).to(x.scalar_type());
}

Tensor swiglu(const Tensor& gate_up) {
  if (plain(gate_up)) return SwiGlu::apply(gate_up);
  const std::vector<Tensor> halves = gate_up.chunk(2, -1);
  return at::silu(halves[0]) * halves[1];
}

Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin, std::int64_t heads,
              std::int64_t head_dim) {
  // A leaf (a test's input) must not change under its owner.
  if (plain(x) && plain(cos) && !(x.is_leaf() && x.requires_grad()))
    return Rotary::apply(x, cos, sin, heads, head_dim);
  const std::int64_t rows = x.size(0), turned = heads * head_dim;
  const Tensor part = x.narrow(1, 0, turned).reshape({rows, heads, head_dim});
  const Tensor c = at::cat({cos, cos}, -1).unsqueeze(1).to(x.scalar_type()),
               s = at::cat({sin, sin}, -1).unsqueeze(1).to(x.scalar_type());
  const std::vector<Tensor> halves = part.chunk(2, -1);
  const Tensor rotated = (part * c + at::cat({-halves[1], halves[0]}, -1) * s).reshape({rows, turned});
  return turned == x.size(1) ? rotated : at::cat({rotated, x.narrow(1, turned, x.size(1) - turned)}, 1);
}

Tensor activation(const std::string& name, const Tensor& x) {
  if (name == "quick_gelu") return x * at::sigmoid(1.702 * x);
  if (name == "gelu") return at::gelu(x);
  if (name == "gelu_pytorch_tanh") return at::gelu(x, "tanh");
  if (name == "silu") return at::silu(x);
  throw CheckpointError("hidden_act", "'" + name + "' is not supported",
                        "known: quick_gelu, gelu, gelu_pytorch_tanh, silu");
}

Tensor site_linear(const Tensor& x, std::span<Site* const> sites, const Tensor& fused,
                   const Tensor& fused_bias, RouteContext& route, bool training) {
  bool frozen = true;
  std::vector<Slot> slots;
  std::int64_t offset = 0;
  for (Site* site : sites) {
    frozen = frozen && !site->weight().requires_grad() &&
             !(site->bias().defined() && site->bias().requires_grad());
    for (const AdapterPtr& adapter : site->active()) slots.push_back({adapter.get(), site, offset, {}, {}});
    offset += site->out();
  }
  project_down(x, slots, route, training);
  std::vector<Tensor> vs, ups;
  std::vector<std::int64_t> offsets;
  for (Slot& slot : slots) {
    vs.push_back(slot.adapter->mix(slot.z, slot.logits, route, slot.site->name()).to(x.scalar_type()));
    ups.push_back(slot.adapter->up().to(x.scalar_type()));
    offsets.push_back(slot.offset);
  }
  const std::optional<Tensor> bias = fused_bias.defined() ? std::optional(fused_bias) : std::nullopt;
  if (frozen) return FrozenLinear::apply(x, fused, bias, at::TensorList(vs), at::TensorList(ups), offsets);

  std::vector<Tensor> outs;
  for (Site* site : sites) outs.push_back(at::linear(x, site->weight(), site->bias()));
  Tensor y = outs.size() == 1 ? outs[0] : at::cat(outs, 1);
  if (slots.empty()) return y;
  y = outs.size() == 1 ? y.clone() : y;
  for (std::size_t j = 0; j < vs.size(); ++j)
    y.narrow(1, offsets[j], ups[j].size(0)).add_(at::linear(vs[j], ups[j]));
  return y;
}

Tensor packed_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<std::int64_t>& lengths) {
  const std::int64_t rows = q.size(0), heads = q.size(1), dim = q.size(2), groups = heads / k.size(1);
  const auto count = static_cast<std::int64_t>(lengths.size());
  const Tensor kk = groups == 1 ? k : k.repeat_interleave(groups, 1),
               vv = groups == 1 ? v : v.repeat_interleave(groups, 1);
  const auto attend = [](const Tensor& a, const Tensor& b, const Tensor& c) {
    return at::scaled_dot_product_attention(a.transpose(1, 2), b.transpose(1, 2), c.transpose(1, 2), {}, 0.0,
                                            true)
        .transpose(1, 2);
  };
  std::int64_t longest = 0;
  bool even = true;
  for (const std::int64_t length : lengths) {
    even = even && length == lengths[0];
    longest = std::max(longest, length);
  }
  if (even) {
    const std::vector<std::int64_t> shape = {count, longest, heads, dim};
    return attend(q.reshape(shape), kk.reshape(shape), vv.reshape(shape)).reshape({rows, heads * dim});
  }
  // Long sequences: one call each, no padding. Short ones: one padded call; what is padded lies behind every
  // real row, where a causal mask never looks.
  constexpr std::int64_t kLong = 96;
  if (q.is_cpu() && rows >= kLong * count) {
    const std::vector<Tensor> qs = q.split_with_sizes(lengths), ks = kk.split_with_sizes(lengths),
                              vs = vv.split_with_sizes(lengths);
    std::vector<Tensor> outs;
    for (std::size_t i = 0; i < qs.size(); ++i)
      outs.push_back(attend(qs[i].unsqueeze(0), ks[i].unsqueeze(0), vs[i].unsqueeze(0))
                         .squeeze(0)
                         .reshape({lengths[i], heads * dim}));
    return at::cat(outs);
  }
  std::vector<std::int64_t> place(static_cast<std::size_t>(rows));
  std::size_t row = 0;
  for (std::int64_t b = 0; b < count; ++b)
    for (std::int64_t i = 0; i < lengths[static_cast<std::size_t>(b)]; ++i) place[row++] = b * longest + i;
  const Tensor index = at::tensor(place, at::kLong).to(q.device());
  const auto pad = [&](const Tensor& x) {
    return at::zeros({count * longest, heads, dim}, x.options())
        .index_copy(0, index, x)
        .view({count, longest, heads, dim});
  };
  return attend(pad(q), pad(kk), pad(vv)).reshape({count * longest, heads * dim}).index_select(0, index);
}

}  // namespace mcit::kernels
