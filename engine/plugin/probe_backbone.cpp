#include "plugin/probe_backbone.hpp"

#include <algorithm>
#include <cmath>
#include <regex>

#include "core/random.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

constexpr const char* kDecoder = "language_model.";
constexpr const char* kVision = "vision_tower.vision_model.";
constexpr const char* kConnector = "multi_modal_projector.";
constexpr double kEpsilon = 1e-6;

/// Normal numbers that depend on the name alone.
Tensor drawn(const std::string& name, at::IntArrayRef shape, double deviation) {
  Tensor out = at::empty(shape, at::TensorOptions(at::kFloat));
  Rng rng(derive(0, {"probe backbone", std::string_view(name)}));
  float* values = out.data_ptr<float>();
  for (std::int64_t i = 0; i < out.numel(); ++i) values[i] = static_cast<float>(deviation * rng.normal());
  return out;
}

/// The patterns of Backbone::sites(), on names.
bool selects(std::string_view pattern, const std::string& name) {
  if (pattern == "all") return true;
  if (pattern.size() > 2 && pattern.front() == '/' && pattern.back() == '/')
    return std::regex_search(name, std::regex(std::string(pattern.substr(1, pattern.size() - 2))));
  if (pattern == "decoder") return name.starts_with(kDecoder);
  if (pattern == "vision") return name.starts_with(kVision);
  if (pattern == "connector") return name.starts_with(kConnector);
  if (!name.starts_with(kDecoder)) return false;
  for (std::size_t begin = 0; begin <= pattern.size();) {
    const std::size_t end = std::min(pattern.find(',', begin), pattern.size());
    if (end > begin && name.ends_with("." + std::string(pattern.substr(begin, end - begin)))) return true;
    begin = end + 1;
  }
  return false;
}

Tensor rms_norm(const Tensor& x, const Tensor& weight) {
  return x * at::rsqrt(x.square().mean(-1, true) + kEpsilon) * weight;
}

/// Unit vectors: what the name's group (up to the last '/') has in common, and a little of its own.
Tensor unit_feature(const std::string& kind, const std::string& name, std::int64_t width) {
  const Tensor common = drawn(kind + name.substr(0, name.rfind('/')), {width}, 1.0);
  const Tensor x = common + drawn(kind + name, {width}, 0.3);
  return x / x.norm();
}

Tensor longs(const std::vector<std::int64_t>& values) {
  return at::tensor(values, at::TensorOptions(at::kLong));
}

}  // namespace

ProbeBackbone::ProbeBackbone()
    : info_{"llava", kLayers, kHidden, kVocabulary, 1, kVisionHidden, kImageTokens, kFeatures} {
  const auto block = [&](const std::string& name, std::int64_t width, std::int64_t inner, bool vision) {
    const std::string attention = name + "self_attn.", mlp = name + "mlp.";
    Block b;
    b.input_norm = add_tensor(name + (vision ? "layer_norm1.weight" : "input_layernorm.weight"), {width});
    b.post_norm =
        add_tensor(name + (vision ? "layer_norm2.weight" : "post_attention_layernorm.weight"), {width});
    b.q = add_site(attention + "q_proj", width, width, vision);
    b.k = add_site(attention + "k_proj", width, width, vision);
    b.v = add_site(attention + "v_proj", width, width, vision);
    b.o = add_site(attention + (vision ? "out_proj" : "o_proj"), width, width, vision);
    b.gate = add_site(mlp + (vision ? "fc1" : "gate_proj"), width, inner, vision);
    b.up = vision ? nullptr : add_site(mlp + "up_proj", width, inner);
    b.down = add_site(mlp + (vision ? "fc2" : "down_proj"), inner, width, vision);
    return b;
  };
  vision_ = block(std::string(kVision) + "encoder.layers.0.", kVisionHidden, kVisionHidden, true);
  connector_1_ = add_site(std::string(kConnector) + "linear_1", kVisionHidden, kHidden, true);
  connector_2_ = add_site(std::string(kConnector) + "linear_2", kHidden, kHidden, true);
  embedding_ = add_tensor(std::string(kDecoder) + "model.embed_tokens.weight", {kVocabulary, kHidden});
  for (std::int64_t i = 0; i < kLayers; ++i)
    blocks_.push_back(
        block(std::string(kDecoder) + "model.layers." + std::to_string(i) + ".", kHidden, kInner, false));
  final_norm_ = add_tensor(std::string(kDecoder) + "model.norm.weight", {kHidden});
  head_ = add_tensor(std::string(kDecoder) + "lm_head.weight", {kVocabulary, kHidden});
}

Site* ProbeBackbone::add_site(const std::string& name, std::int64_t in, std::int64_t out, bool bias) {
  const double deviation = 1.0 / std::sqrt(static_cast<double>(in));
  return &sites_.emplace_back(name, drawn(name, {out, in}, deviation),
                              bias ? drawn(name + ".bias", {out}, 0.1) : Tensor());
}

/// Vectors are the scales of norms and start near 1.
Tensor ProbeBackbone::add_tensor(const std::string& name, at::IntArrayRef shape) {
  Tensor value = drawn(name, shape, shape.size() == 1 ? 0.1 : 0.5);
  if (shape.size() == 1) value.add_(1.0);
  tensors_.push_back({name, value, "base"});
  return value;
}

std::vector<Site*> ProbeBackbone::sites(std::string_view pattern) {
  std::vector<Site*> out;
  for (Site& site : sites_)
    if (selects(pattern, site.name())) out.push_back(&site);
  if (out.empty()) throw ConfigError(std::string(pattern), "matches no linear site of the model");
  return out;
}

Parameters ProbeBackbone::parameters(std::string_view pattern) {
  Parameters out;
  for (const Parameter& tensor : tensors_)
    if (selects(pattern, tensor.name)) out.push_back(tensor);
  for (const Site& site : sites_) {
    const char* group = site.name().starts_with(kConnector) ? "connector" : "base";
    if (selects(pattern, site.name() + ".weight"))
      out.push_back({site.name() + ".weight", site.weight(), group});
    if (site.bias().defined() && selects(pattern, site.name() + ".bias"))
      out.push_back({site.name() + ".bias", site.bias(), group});
  }
  if (out.empty()) throw ConfigError(std::string(pattern), "matches no tensor of the model");
  return out;
}

Tensor ProbeBackbone::apply(const Tensor& x, Site& site, RouteContext& route) const {
  Tensor y = at::linear(x, site.weight(), site.bias());
  for (const AdapterPtr& adapter : site.active()) {
    const Tensor z = at::linear(at::dropout(x, adapter->dropout(), training_), adapter->down());
    const bool pools = adapter->reads() != Reads::own_row && adapter->reads() != Reads::sequence;
    if (pools && (!route.rows.sequence.defined() || route.rows.sequence.size(0) != x.size(0)))
      throw Error(site.name(), "an adapter here has a router that reads one row a sequence",
                  "such adapters belong in the decoder");
    const Tensor rows = pools && route.rows.decoding ? Tensor() : adapter->route(route);
    const Tensor logits =
        rows.defined() ? at::linear(router_input(x, adapter->reads(), route.rows), rows) : Tensor();
    const Tensor mixed = adapter->mix(z, logits, route, site.name());
    const Tensor up = adapter->up();
    if (mixed.dim() != 2 || mixed.size(0) != x.size(0) || mixed.size(1) != up.size(1))
      throw Error(site.name(), "an adapter's mix() gave another shape than [rows of z, columns of up()]");
    y = y + at::linear(mixed, up);
  }
  return y;
}

Tensor ProbeBackbone::collate(const Batch& batch, bool prompts_only, bool insert) {
  if (insert) route_.text = route_.text.each();
  const std::int64_t added = insert ? route_.text.length() : 0,
                     before = route_.text.place == Prompts::Place::before_text ? 0 : 1;
  std::vector<std::int64_t> prompt_rows;
  token_rows_.clear();
  std::vector<std::int64_t> ids, sequence, position, first, last, last_prompt, lengths;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const Example& example = *batch.examples[b];
    const std::int64_t rows =
        prompts_only ? example.prompt_length : static_cast<std::int64_t>(example.tokens.size());
    first.push_back(static_cast<std::int64_t>(ids.size()));
    for (std::int64_t row = 0; row < rows + added; ++row) {
      const bool own = row < before || row >= before + added;
      if (own)
        token_rows_.push_back(static_cast<std::int64_t>(ids.size()));
      else
        prompt_rows.push_back(static_cast<std::int64_t>(ids.size()));
      ids.push_back(own ? example.tokens[static_cast<std::size_t>(row < before ? row : row - added)] : 0);
      sequence.push_back(static_cast<std::int64_t>(b));
      position.push_back(row);
    }
    last.push_back(static_cast<std::int64_t>(ids.size()) - 1);
    last_prompt.push_back(first.back() + added + example.prompt_length - 1);
    lengths.push_back(rows + added);
  }
  prompt_rows_ = added > 0 ? longs(prompt_rows) : Tensor();
  route_.rows = {longs(sequence),    longs(position), longs(first), longs(last),
                 longs(last_prompt), lengths,         false};
  return longs(ids);
}

/// [pictures · kImageTokens, kHidden] through tower and connector; undefined without a picture.
Tensor ProbeBackbone::pictures(const Batch& batch) const {
  std::vector<Tensor> features;
  const Prompts prompts = route_.vision.each();
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const std::string& image = batch.examples[b]->image;
    if (image.empty()) continue;
    const Tensor own = drawn("picture " + image, {kImageTokens, kVisionHidden}, 1.0);
    features.push_back(prompts.length() == 0 ? own
                                             : own + prompts.layers[0][static_cast<std::int64_t>(b)].mean(0));
  }
  if (features.empty()) return {};
  RouteContext unrouted;  // adapters in the tower are not routed by sequence
  Tensor x = at::cat(features);
  const Tensor h = rms_norm(x, vision_.input_norm);
  const Tensor gate = at::sigmoid(apply(h, *vision_.q, unrouted) * apply(h, *vision_.k, unrouted));
  x = x + apply(apply(h, *vision_.v, unrouted) * gate, *vision_.o, unrouted);
  return x + apply(at::gelu(apply(rms_norm(x, vision_.post_norm), *vision_.gate, unrouted)), *vision_.down,
                   unrouted);
}

Tensor ProbeBackbone::embed(const Batch& batch, const Tensor& tokens, bool insert) {
  Tensor embedded = at::embedding(embedding_, tokens);
  if (insert && prompt_rows_.defined())
    embedded = embedded.index_copy(0, prompt_rows_, route_.text.layers[0].flatten(0, 1));
  const Tensor features = pictures(batch);
  if (!features.defined()) return embedded;
  const Tensor where = (tokens == kImageToken).nonzero().squeeze(1);
  const Tensor rows = apply(at::gelu(apply(features, *connector_1_, route_)), *connector_2_, route_);
  return embedded.index_copy(0, where, rows);
}

/// Mean of v over the rows of a sequence up to each row.
Tensor ProbeBackbone::mean_so_far(const Tensor& v, std::size_t block, Cache* cache) const {
  const RowLayout& rows = route_.rows;
  const Tensor count = (rows.position + 1).to(at::kFloat).unsqueeze(1);
  if (rows.decoding) {
    Tensor& sum = (*cache)[block];
    sum = sum + v;
    return sum / count;
  }
  const Tensor same = rows.sequence.unsqueeze(1) == rows.sequence.unsqueeze(0);
  const Tensor before = rows.position.unsqueeze(1) >= rows.position.unsqueeze(0);
  const Tensor sums = at::matmul(at::logical_and(same, before).to(at::kFloat), v);
  if (cache != nullptr) cache->push_back(sums.index_select(0, rows.last));
  return sums / count;
}

Tensor ProbeBackbone::decoder(Tensor x, const Tensor& keep, Cache* cache) {
  const Tensor few = narrow_top_ && keep.defined() ? top_rows(keep) : Tensor();
  const RowLayout all = route_.rows;
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    const Block& block = blocks_[i];
    if (const auto& deep = route_.text.layers;
        prompt_rows_.defined() && !all.decoding && i > 0 && i < deep.size() && deep[i].defined())
      x = x.index_copy(0, prompt_rows_, deep[i].flatten(0, 1));
    const Tensor h = rms_norm(x, block.input_norm);
    const Tensor gate = at::sigmoid(apply(h, *block.q, route_) * apply(h, *block.k, route_));
    Tensor mixed = mean_so_far(apply(h, *block.v, route_), i, cache) * gate;
    if (few.defined() && i + 1 == blocks_.size()) {
      const auto place = [&](const Tensor& row) { return at::searchsorted(few, row); };
      x = x.index_select(0, few);
      mixed = mixed.index_select(0, few);
      route_.rows = {all.sequence.index_select(0, few),
                     all.position.index_select(0, few),
                     place(all.first),
                     place(all.last),
                     place(all.last_prompt),
                     all.lengths,
                     all.decoding};
    }
    x = x + apply(mixed, *block.o, route_);
    const Tensor g = rms_norm(x, block.post_norm);
    x = x + apply(at::silu(apply(g, *block.gate, route_)) * apply(g, *block.up, route_), *block.down, route_);
  }
  route_.rows = all;
  if (keep.defined()) x = x.index_select(0, few.defined() ? at::searchsorted(few, keep) : keep);
  return at::linear(rms_norm(x, final_norm_), head_);
}

bool ProbeBackbone::adapters_read(std::initializer_list<Reads> kinds) const {
  return std::all_of(sites_.begin(), sites_.end(), [&](const Site& site) {
    return std::all_of(site.active().begin(), site.active().end(), [&](const AdapterPtr& adapter) {
      return std::find(kinds.begin(), kinds.end(), adapter->reads()) != kinds.end();
    });
  });
}

/// The rows that the top block needs for those of `keep`; undefined when its adapters may read any.
Tensor ProbeBackbone::top_rows(const Tensor& keep) const {
  if (adapters_read({Reads::own_row})) return keep;
  if (!adapters_read({Reads::own_row, Reads::first_row, Reads::last_prompt_row})) return {};
  return std::get<0>(at::_unique(at::cat({keep, route_.rows.first, route_.rows.last_prompt})));  // ascending
}

Forward ProbeBackbone::forward(const Batch& batch) {
  const Tensor tokens = collate(batch, false, true);
  std::vector<std::int64_t> keep, targets;
  std::size_t row = 0;
  for (const ExamplePtr& example : batch.examples) {
    for (const std::int64_t label : example->labels) {
      if (label >= 0) {
        keep.push_back(token_rows_[row]);
        targets.push_back(label);
      }
      ++row;
    }
  }
  const Tensor rows = longs(keep);
  const Tensor logits = decoder(embed(batch, tokens, true), rows, nullptr);
  return {logits, longs(targets), route_.rows.sequence.index_select(0, rows)};
}

Tensor ProbeBackbone::decode_answers(const Batch& batch) {
  const Tensor tokens = collate(batch, true, true);
  const auto count = static_cast<std::int64_t>(batch.size());
  route_.memo.clear();
  Cache cache;
  std::vector<Tensor> steps{decoder(embed(batch, tokens, true), route_.rows.last, &cache)};
  std::size_t longest = 0;
  for (const ExamplePtr& example : batch.examples)
    longest = std::max(longest, example->tokens.size() - static_cast<std::size_t>(example->prompt_length));
  for (std::size_t step = 0; step < longest; ++step) {
    std::vector<std::int64_t> ids, position;
    for (const ExamplePtr& example : batch.examples) {  // an answer that is over goes on with its last token
      const std::size_t at = static_cast<std::size_t>(example->prompt_length) + step;
      ids.push_back(example->tokens[std::min(at, example->tokens.size() - 1)]);
      position.push_back(static_cast<std::int64_t>(at) + route_.text.length());
    }
    const Tensor each = at::arange(count, at::TensorOptions(at::kLong));
    route_.rows = {each, longs(position), each, each, each, std::vector<std::int64_t>(batch.size(), 1), true};
    steps.push_back(decoder(at::embedding(embedding_, longs(ids)), {}, &cache));
  }
  std::vector<Tensor> rows;
  for (std::size_t b = 0; b < batch.size(); ++b) {
    const Example& example = *batch.examples[b];
    for (std::size_t i = 0; i <= example.tokens.size() - static_cast<std::size_t>(example.prompt_length); ++i)
      rows.push_back(steps[i].select(0, static_cast<std::int64_t>(b)));
  }
  return at::stack(rows);
}

Tensor ProbeBackbone::input_embeddings(const Batch& batch) {
  const at::NoGradGuard no_grad;
  return embed(batch, collate(batch, false, false), false);
}

Tensor ProbeBackbone::image_features(const Batch& batch) {
  std::vector<Tensor> rows;
  for (const ExamplePtr& example : batch.examples)
    rows.push_back(example->image.empty() ? at::zeros({kFeatures})
                                          : unit_feature("image feature ", example->image, kFeatures));
  return at::stack(rows);
}

Tensor ProbeBackbone::text_features(const Batch& batch) {
  std::vector<Tensor> rows;
  for (const ExamplePtr& example : batch.examples)
    rows.push_back(unit_feature("text feature ", example->prompt, kFeatures));
  return at::stack(rows);
}

}  // namespace mcit
