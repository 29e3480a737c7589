#include "model/qformer.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "mcit/errors.hpp"
#include "model/kernels.hpp"
#include "model/vision.hpp"

namespace mcit {
namespace {

Tensor linear(const Tensor& x, const SiteGroup& group, RouteContext& route, bool training) {
  const Tensor rows = kernels::site_linear(x.reshape({-1, x.size(-1)}), group.view, group.weight, group.bias,
                                           route, training);
  return rows.view({x.size(0), x.size(1), -1});
}

}  // namespace

QFormerConnector::Norm QFormerConnector::take_norm(Weights& weights, const std::string& name,
                                                   std::int64_t width) {
  return {name, weights.take(name + ".weight", {width}), weights.take(name + ".bias", {width})};
}

QFormerConnector::FeedForward QFormerConnector::take_feed_forward(Weights& weights, const std::string& layer,
                                                                  const std::string& suffix) const {
  const std::int64_t d = config_.hidden_size, f = config_.intermediate_size;
  const std::string in = layer + "intermediate" + suffix + ".", out = layer + "output" + suffix + ".";
  return {SiteGroup::take(weights, in, {{"dense", f}}, d, true),
          SiteGroup::take(weights, out, {{"dense", d}}, f, true), take_norm(weights, out + "LayerNorm", d)};
}

QFormerConnector::QFormerConnector(const MllmConfig& config, Weights& weights)
    : config_(config.qformer),
      query_tokens_(weights.take("query_tokens", {1, config_.num_query_tokens, config_.hidden_size})),
      words_(weights.take("qformer.embeddings.word_embeddings.weight",
                          {config_.vocab_size, config_.hidden_size})),
      positions_(weights.take("qformer.embeddings.position_embeddings.weight",
                              {config_.max_position_embeddings, config_.hidden_size})),
      norm_(take_norm(weights, "qformer.embeddings.layernorm", config_.hidden_size)),
      projection_(SiteGroup::take(weights, "", {{"language_projection", config.text.hidden_size}},
                                  config_.hidden_size, true)) {
  const std::int64_t d = config_.hidden_size, image = config_.encoder_hidden_size;
  for (std::int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    const std::string name = "qformer.encoder.layer." + std::to_string(i) + ".";
    const auto rest = [&](const std::string& kind, Attention& part) {
      part.out = SiteGroup::take(weights, name + kind + ".output.", {{"dense", d}}, d, true);
      part.norm = take_norm(weights, name + kind + ".output.LayerNorm", d);
    };
    Layer layer;
    layer.self.query = SiteGroup::take(weights, name + "attention.attention.",
                                       {{"query", d}, {"key", d}, {"value", d}}, d, true);
    rest("attention", layer.self);
    layer.crosses = i % config_.cross_attention_frequency == 0;
    if (layer.crosses) {
      const std::string cross = name + "crossattention.attention.";
      layer.cross.query = SiteGroup::take(weights, cross, {{"query", d}}, d, true);
      layer.cross.key_value = SiteGroup::take(weights, cross, {{"key", d}, {"value", d}}, image, true);
      rest("crossattention", layer.cross);
    }
    layer.text = take_feed_forward(weights, name, "");
    layer.queries = take_feed_forward(weights, name, "_query");
    layers_.push_back(std::move(layer));
  }
}

Tensor QFormerConnector::normed(const Tensor& x, const Norm& norm) const {
  return layer_norm(x, norm.weight, norm.bias, config_.layer_norm_eps);
}

Tensor QFormerConnector::attend(const Attention& part, const Tensor& x, const Tensor& image,
                                const Tensor& mask, RouteContext& route, bool training) const {
  const std::int64_t heads = config_.num_attention_heads;
  const auto split = [&](const Tensor& rows) {
    return rows.reshape({rows.size(0), rows.size(1), heads, -1}).transpose(1, 2);
  };
  std::vector<Tensor> qkv = linear(x, part.query, route, training).split(config_.hidden_size, -1);
  if (image.defined())
    for (const Tensor& half : linear(image, part.key_value, route, training).split(config_.hidden_size, -1))
      qkv.push_back(half);
  const Tensor mixed =
      at::scaled_dot_product_attention(split(qkv[0]), split(qkv[1]), split(qkv[2]),
                                       mask.defined() ? std::optional<Tensor>(mask) : std::nullopt)
          .transpose(1, 2)
          .reshape(x.sizes());
  return normed(linear(mixed, part.out, route, training) + x, part.norm);
}

Tensor QFormerConnector::feed_forward(const FeedForward& part, const Tensor& x, RouteContext& route,
                                      bool training) const {
  const Tensor wide = kernels::activation(config_.hidden_act, linear(x, part.in, route, training));
  return normed(linear(wide, part.out, route, training) + x, part.norm);
}

Tensor QFormerConnector::forward(const Tensor& features, const std::vector<Picture>& pictures,
                                 RouteContext& route, bool training) const {
  const std::int64_t queries = config_.num_query_tokens, d = config_.hidden_size;
  const auto count = static_cast<std::int64_t>(pictures.size());
  if (features.size(0) != count)
    throw DataError("batch", std::to_string(features.size(0)) + " pictures but " + std::to_string(count) +
                                 " instructions");
  if (!encode_)
    throw CheckpointError("qformer_tokenizer/tokenizer.json", "is missing",
                          "InstructBLIP's Q-Former reads the instruction with a tokenizer of its own");
  std::vector<std::vector<std::int64_t>> texts;
  std::int64_t longest = 0;
  for (const Picture& picture : pictures) {
    texts.push_back(encode_(picture.instruction));
    // What a BERT cannot hold is cut, as its tokenizer's truncation does.
    if (static_cast<std::int64_t>(texts.back().size()) > config_.max_position_embeddings)
      texts.back().resize(static_cast<std::size_t>(config_.max_position_embeddings));
    longest = std::max(longest, static_cast<std::int64_t>(texts.back().size()));
  }
  Tensor ids = at::zeros({count, longest}, at::kLong), mask;
  bool padded = false;
  Tensor open = at::ones({count, 1, 1, queries + longest}, at::kBool);
  for (std::int64_t b = 0; b < count; ++b) {
    const auto& text = texts[static_cast<std::size_t>(b)];
    const auto length = static_cast<std::int64_t>(text.size());
    std::copy(text.begin(), text.end(), ids[b].data_ptr<std::int64_t>());
    if (length == longest) continue;
    padded = true;
    open[b].narrow(-1, queries + length, longest - length).fill_(false);
  }
  const at::Device device = words_.device();
  if (padded) mask = open.to(device);
  const Tensor text = at::embedding(words_, ids.to(device)) + positions_.narrow(0, 0, longest);
  Tensor x = normed(at::cat({query_tokens_.expand({count, queries, d}), text}, 1), norm_);
  for (const Layer& layer : layers_) {
    x = attend(layer.self, x, {}, mask, route, training);
    Tensor seeing = x.narrow(1, 0, queries);
    if (layer.crosses) seeing = attend(layer.cross, seeing, features, {}, route, training);
    x = at::cat({feed_forward(layer.queries, seeing, route, training),
                 feed_forward(layer.text, x.narrow(1, queries, longest), route, training)},
                1);
  }
  const Tensor out = linear(x.narrow(1, 0, queries), projection_, route, training);
  return out.flatten(0, 1);
}

void QFormerConnector::each_site(const std::function<void(Site&)>& visit) const {
  const auto all = [&](std::initializer_list<const SiteGroup*> groups) {
    for (const SiteGroup* group : groups)
      for (Site* site : group->view) visit(*site);
  };
  for (const Layer& layer : layers_) {
    all({&layer.self.query, &layer.self.out});
    if (layer.crosses) all({&layer.cross.query, &layer.cross.key_value, &layer.cross.out});
    all({&layer.text.in, &layer.text.out, &layer.queries.in, &layer.queries.out});
  }
  all({&projection_});
}

void QFormerConnector::each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) {
  const auto norm = [&](Norm& one) {
    visit(one.name + ".weight", one.weight);
    visit(one.name + ".bias", one.bias);
  };
  visit("query_tokens", query_tokens_);
  visit("qformer.embeddings.word_embeddings.weight", words_);
  visit("qformer.embeddings.position_embeddings.weight", positions_);
  norm(norm_);
  for (Layer& layer : layers_) {
    norm(layer.self.norm);
    if (layer.crosses) norm(layer.cross.norm);
    norm(layer.text.norm);
    norm(layer.queries.norm);
  }
}

}  // namespace mcit
