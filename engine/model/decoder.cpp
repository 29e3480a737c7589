#include "model/decoder.hpp"

#include <ATen/TensorIndexing.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "mcit/errors.hpp"
#include "model/kernels.hpp"

namespace mcit {
namespace {

/// The layout of the rows `kept` (ascending) of a pass.
RowLayout narrowed(const RowLayout& rows, const Tensor& kept) {
  const auto place = [&](const Tensor& row) { return at::searchsorted(kept, row); };
  return {rows.sequence.index_select(0, kept),
          rows.position.index_select(0, kept),
          place(rows.first),
          place(rows.last),
          place(rows.last_prompt),
          rows.lengths,
          rows.decoding};
}

}  // namespace

SiteGroup SiteGroup::take(Weights& weights, const std::string& prefix, const std::vector<Part>& parts,
                          std::int64_t in, bool bias) {
  std::vector<Tensor> matrices, shifts;
  for (const Part& part : parts) {
    matrices.push_back(weights.take(prefix + part.name + ".weight", {part.out, in}));
    if (bias) shifts.push_back(weights.take(prefix + part.name + ".bias", {part.out}));
  }
  SiteGroup group;
  // One layer keeps the mapped file's memory; several are stacked once.
  const bool one = parts.size() == 1;
  group.weight = one ? matrices[0] : at::cat(matrices);
  if (bias) group.bias = one ? shifts[0] : at::cat(shifts);
  std::int64_t offset = 0;
  for (const Part& part : parts) {
    // detach(): each slice is a leaf of its own that shares the stack's storage.
    const auto slice = [&](const Tensor& whole) {
      return one ? whole : whole.narrow(0, offset, part.out).detach();
    };
    group.sites.push_back(
        std::make_unique<Site>(prefix + part.name, slice(group.weight), bias ? slice(group.bias) : Tensor()));
    group.view.push_back(group.sites.back().get());
    offset += part.out;
  }
  return group;
}

Decoder::Decoder(DecoderConfig config, Weights& weights, const std::string& prefix, const std::string& head)
    : config_(std::move(config)), prefix_(prefix), head_name_(head) {
  const DecoderConfig& c = config_;
  const std::int64_t d = c.hidden_size, f = c.intermediate_size, q = c.num_attention_heads * c.head_dim,
                     kv = c.num_key_value_heads * c.head_dim;
  embedding_ = weights.take(prefix + "embed_tokens.weight", {c.vocab_size, d});
  for (std::int64_t i = 0; i < c.num_hidden_layers; ++i) {
    Block block;
    block.name = prefix + "layers." + std::to_string(i) + ".";
    const std::string attention = block.name + "self_attn.", mlp = block.name + "mlp.";
    block.input_norm = weights.take(block.name + "input_layernorm.weight", {d});
    block.post_norm = weights.take(block.name + "post_attention_layernorm.weight", {d});
    block.qkv =
        SiteGroup::take(weights, attention, {{"q_proj", q}, {"k_proj", kv}, {"v_proj", kv}}, d, c.qkv_bias);
    block.o = SiteGroup::take(weights, attention, {{"o_proj", d}}, q, c.o_bias);
    block.gate_up = SiteGroup::take(weights, mlp, {{"gate_proj", f}, {"up_proj", f}}, d, c.mlp_bias);
    block.down = SiteGroup::take(weights, mlp, {{"down_proj", d}}, f, c.mlp_bias);
    blocks_.push_back(std::move(block));
  }
  norm_ = weights.take(prefix + "norm.weight", {d});
  if (weights.has(head) || !c.tie_word_embeddings) {
    if (!weights.has(head))
      weights.hint(head,
                   "config.json does not tie it to the embedding; set tie_word_embeddings if it is that");
    head_ = weights.take(head, {c.vocab_size, d});
  } else {
    head_ = embedding_;
  }
  const Tensor exponents =
      at::arange(0, c.head_dim, 2, at::kLong).to(at::kFloat) / static_cast<double>(c.head_dim);
  inverse_frequency_ =
      (1.0 / at::pow(at::scalar_tensor(c.rope_theta, at::kFloat), exponents)).to(embedding_.device());
}

void Decoder::each_site(const std::function<void(Site&)>& visit) const {
  for (const Block& block : blocks_)
    for (const SiteGroup* group : {&block.qkv, &block.o, &block.gate_up, &block.down})
      for (Site* site : group->view) visit(*site);
}

void Decoder::each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) {
  visit(prefix_ + "embed_tokens.weight", embedding_);
  for (Block& block : blocks_) {
    visit(block.name + "input_layernorm.weight", block.input_norm);
    visit(block.name + "post_attention_layernorm.weight", block.post_norm);
  }
  visit(prefix_ + "norm.weight", norm_);
  if (!head_.is_same(embedding_)) visit(head_name_, head_);
}

Tensor Decoder::embed(const Tensor& tokens) const { return at::embedding(embedding_, tokens); }

Tensor Decoder::logits(const Tensor& hidden) const {
  const Tensor scores = at::linear(hidden, head_);
  return scores.scalar_type() == at::kDouble ? scores : scores.to(at::kFloat);
}

void Decoder::each_reads(const Block& block, const std::function<void(Reads)>& visit) {
  for (const SiteGroup* group : {&block.qkv, &block.o, &block.gate_up, &block.down})
    for (const Site* site : group->view)
      for (const AdapterPtr& adapter : site->active()) visit(adapter->reads());
}

bool Decoder::by_rows() const {
  bool all = true;
  for (const Block& block : blocks_)
    each_reads(block, [&](Reads reads) { all = all && reads == Reads::own_row; });
  return all;
}

Tensor Decoder::top_rows(const RowLayout& rows, const Tensor& keep) const {
  bool any = false, first = false, last_prompt = false;
  each_reads(blocks_.back(), [&](Reads reads) {
    any = any || reads == Reads::sequence || reads == Reads::prompt_mean;
    first = first || reads == Reads::first_row;
    last_prompt = last_prompt || reads == Reads::last_prompt_row;
  });
  if (any || !keep.defined()) return {};
  if (!first && !last_prompt) return keep;
  std::vector<Tensor> parts = {keep};
  if (first) parts.push_back(rows.first);
  if (last_prompt) parts.push_back(rows.last_prompt);
  return std::get<0>(at::_unique(at::cat(parts)));  // ascending
}

Tensor Decoder::forward(Tensor x, RouteContext& route, const Tensor& keep, KvCache* cache, bool training,
                        const Tensor& prompt_rows, std::vector<Tensor>* states) const {
  const Tensor angles = route.rows.position.to(at::kFloat).unsqueeze(1) * inverse_frequency_;
  const Tensor cos = angles.cos(), sin = angles.sin();
  const Tensor few = top_rows(route.rows, keep);
  RowLayout layout = few.defined() ? narrowed(route.rows, few) : RowLayout();
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    const bool top = few.defined() && i + 1 == blocks_.size();
    const std::vector<Tensor>& prompts = route.text.layers;
    if (prompt_rows.defined() && i > 0 && i < prompts.size() && prompts[i].defined())
      x = x.index_copy(0, prompt_rows, prompts[i].flatten(0, 1).to(x.scalar_type()));
    const Tensor h = kernels::rms_norm(x, block.input_norm, config_.rms_norm_eps);
    const Tensor mixed =
        attention(block, i, h, route, top ? few : Tensor(), layout, cache, cos, sin, training);
    if (top) {
      x = x.index_select(0, few);
      std::swap(route.rows, layout);
    }
    x = x + kernels::site_linear(mixed, block.o.view, block.o.weight, block.o.bias, route, training);
    const Tensor g = kernels::rms_norm(x, block.post_norm, config_.rms_norm_eps);
    const Tensor act = kernels::swiglu(kernels::site_linear(g, block.gate_up.view, block.gate_up.weight,
                                                            block.gate_up.bias, route, training));
    x = x + kernels::site_linear(act, block.down.view, block.down.weight, block.down.bias, route, training);
    if (states != nullptr) states->push_back(x);
  }
  if (few.defined()) std::swap(route.rows, layout);
  if (keep.defined() && !few.is_same(keep))
    x = x.index_select(0, few.defined() ? at::searchsorted(few, keep) : keep);
  return kernels::rms_norm(x, norm_, config_.rms_norm_eps);
}

Tensor Decoder::attention(const Block& block, std::size_t index, const Tensor& x, RouteContext& route,
                          const Tensor& keep, const RowLayout& few, KvCache* cache, const Tensor& cos,
                          const Tensor& sin, bool training) const {
  const std::int64_t heads = config_.num_attention_heads, kv = config_.num_key_value_heads,
                     hd = config_.head_dim;
  const std::int64_t q_width = heads * hd, kv_width = kv * hd;
  if (keep.defined()) {
    const std::span<Site* const> sites(block.qkv.view);
    const auto bias_of = [&](std::int64_t first, std::int64_t count) {
      return block.qkv.bias.defined() ? block.qkv.bias.narrow(0, first, count) : Tensor();
    };
    RowLayout all = std::exchange(route.rows, few);
    const Tensor raw =
        kernels::site_linear(x.index_select(0, keep), sites.first(1), block.qkv.weight.narrow(0, 0, q_width),
                             bias_of(0, q_width), route, training);
    route.rows = std::move(all);
    const Tensor q = kernels::rotary(raw, cos.index_select(0, keep), sin.index_select(0, keep), heads, hd);
    const Tensor both = kernels::rotary(
        kernels::site_linear(x, sites.last(2), block.qkv.weight.narrow(0, q_width, 2 * kv_width),
                             bias_of(q_width, 2 * kv_width), route, training),
        cos, sin, kv, hd);
    const std::vector<Tensor> parts = both.view({-1, 2 * kv, hd}).split_with_sizes({kv, kv}, 1);
    if (cache != nullptr) fill_cache(index, parts[0], parts[1], *cache);
    if (cache != nullptr && cache->shared > 0)
      return attend_last(index, q.view({-1, heads, hd}), route.rows.position.index_select(0, keep), *cache);
    return attend_kept(q.view({-1, heads, hd}), parts[0], parts[1], route.rows, keep);
  }
  const Tensor qkv = kernels::rotary(
      kernels::site_linear(x, block.qkv.view, block.qkv.weight, block.qkv.bias, route, training), cos, sin,
      heads + kv, hd);
  const std::vector<Tensor> parts = qkv.view({-1, heads + 2 * kv, hd}).split_with_sizes({heads, kv, kv}, 1);
  if (cache != nullptr && route.rows.decoding)
    return attend_cached(index, parts[0], parts[1], parts[2], *cache);
  if (cache != nullptr) fill_cache(index, parts[1], parts[2], *cache);
  if (cache != nullptr && cache->shared > 0) return attend_behind(index, parts[0], route.rows, *cache);
  return kernels::packed_attention(parts[0], parts[1], parts[2], route.rows.lengths);
}

Tensor Decoder::attend_kept(const Tensor& q, const Tensor& k, const Tensor& v, const RowLayout& rows,
                            const Tensor& keep) const {
  // Few query rows against whole sequences: padded on both sides, with an explicit causal mask.
  const std::int64_t heads = q.size(1), hd = q.size(2), groups = heads / k.size(1), total = k.size(0);
  const auto count = static_cast<std::int64_t>(rows.lengths.size());
  const std::int64_t longest = *std::max_element(rows.lengths.begin(), rows.lengths.end());
  const Tensor sequence = rows.sequence.index_select(0, keep);
  const Tensor per_sequence = at::bincount(sequence, {}, count);
  const std::int64_t most = per_sequence.max().item<std::int64_t>();
  const Tensor first_kept = per_sequence.cumsum(0) - per_sequence;
  const Tensor q_place =
      sequence * most + (at::arange(keep.size(0), keep.options()) - first_kept.index_select(0, sequence));
  const Tensor k_place = rows.sequence * longest + rows.position;
  const Tensor position = at::zeros({count * most}, keep.options())
                              .index_copy(0, q_place, rows.position.index_select(0, keep))
                              .view({count, 1, most, 1});
  const Tensor mask = at::arange(longest, keep.options()).view({1, 1, 1, longest}) <= position;
  const auto pad = [&](const Tensor& x, const Tensor& place, std::int64_t length) {
    return at::zeros({count * length, x.size(1), hd}, x.options())
        .index_copy(0, place, x)
        .view({count, length, x.size(1), hd})
        .transpose(1, 2);
  };
  const bool whole = total == count * longest;
  const auto spread = [&](const Tensor& x) {
    const Tensor dense =
        whole ? x.reshape({count, longest, x.size(1), hd}).transpose(1, 2) : pad(x, k_place, longest);
    return groups == 1 ? dense : dense.repeat_interleave(groups, 1);
  };
  const Tensor scores =
      at::matmul(pad(q, q_place, most), spread(k).transpose(-1, -2)) / std::sqrt(static_cast<double>(hd));
  const Tensor weights = at::softmax(scores.masked_fill(~mask, -std::numeric_limits<double>::infinity()), -1);
  return at::matmul(weights, spread(v))
      .transpose(1, 2)
      .reshape({count * most, heads * hd})
      .index_select(0, q_place);
}

void Decoder::fill_cache(std::size_t index, const Tensor& k, const Tensor& v, KvCache& cache) const {
  std::int64_t row = 0;
  for (std::size_t b = 0; b < cache.lengths.size(); ++b) {
    const std::int64_t length = cache.lengths[b] - cache.shared, at = static_cast<std::int64_t>(b);
    cache.keys[index][at].narrow(1, cache.shared, length).copy_(k.narrow(0, row, length).transpose(0, 1));
    cache.values[index][at].narrow(1, cache.shared, length).copy_(v.narrow(0, row, length).transpose(0, 1));
    row += length;
  }
}

Tensor Decoder::attend_behind(std::size_t index, const Tensor& q, const RowLayout& rows,
                              const KvCache& cache) const {
  const std::int64_t heads = q.size(1), hd = q.size(2), groups = heads / cache.keys[index].size(1);
  std::vector<Tensor> outs;
  std::int64_t row = 0;
  for (std::size_t b = 0; b < rows.lengths.size(); ++b) {
    const std::int64_t length = rows.lengths[b], whole = cache.shared + length;
    const auto past = [&](const std::vector<Tensor>& blocks) {
      const Tensor one = blocks[index].narrow(0, static_cast<std::int64_t>(b), 1).narrow(2, 0, whole);
      return groups == 1 ? one : one.repeat_interleave(groups, 1);
    };
    const Tensor position = rows.position.narrow(0, row, length).unsqueeze(1);
    const Tensor mask = at::arange(whole, position.options()).unsqueeze(0) <= position;
    const Tensor mine = q.narrow(0, row, length).transpose(0, 1).unsqueeze(0);
    outs.push_back(at::scaled_dot_product_attention(mine, past(cache.keys), past(cache.values), mask)
                       .squeeze(0)
                       .transpose(0, 1)
                       .reshape({length, heads * hd}));
    row += length;
  }
  return at::cat(outs);
}

Tensor Decoder::attend_last(std::size_t index, const Tensor& q, const Tensor& position,
                            const KvCache& cache) const {
  const Tensor &keys = cache.keys[index], &values = cache.values[index];
  const std::int64_t count = q.size(0), heads = q.size(1), hd = q.size(2), groups = heads / keys.size(1);
  // While decoding, the row at hand is not counted in `lengths` yet.
  const std::int64_t used =
      std::min(keys.size(2), 1 + *std::max_element(cache.lengths.begin(), cache.lengths.end()));
  const Tensor mask =
      at::arange(used, position.options()).view({1, 1, 1, used}) <= position.view({count, 1, 1, 1});
  Tensor kk = keys.narrow(2, 0, used), vv = values.narrow(2, 0, used);
  if (groups > 1) {
    kk = kk.repeat_interleave(groups, 1);
    vv = vv.repeat_interleave(groups, 1);
  }
  return at::scaled_dot_product_attention(q.reshape({count, heads, 1, hd}), kk, vv, mask)
      .reshape({count, heads * hd});
}

Tensor Decoder::attend_cached(std::size_t index, const Tensor& q, const Tensor& k, const Tensor& v,
                              KvCache& cache) const {
  const Tensor position = cache.position, sequence = at::arange(q.size(0), position.options());
  cache.keys[index].index_put_({sequence, at::indexing::Slice(), position}, k);
  cache.values[index].index_put_({sequence, at::indexing::Slice(), position}, v);
  return attend_last(index, q, position, cache);
}

}  // namespace mcit
