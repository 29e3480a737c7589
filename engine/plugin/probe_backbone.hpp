#pragma once
/// A backbone of a few thousand numbers with the sites, names and row layouts of a real one. Private to this
/// library.

#include <deque>
#include <string>
#include <vector>

#include "mcit/backbone.hpp"

namespace mcit {

/// Shaped like LLaVA: a block of a vision tower, a two-layer connector, two decoder blocks. Attention is
/// replaced by a gated mean over the rows so far, so that a sequence can be read at once or token by token
/// with the same result. Adapters are applied as the sum that they are defined as, one at a time.
class ProbeBackbone final : public Backbone {
 public:
  static constexpr std::int64_t kVocabulary = 24, kHidden = 16, kInner = 24, kLayers = 2;
  static constexpr std::int64_t kVisionHidden = 12, kImageTokens = 3, kFeatures = 16;
  static constexpr std::int64_t kImageToken = 1;

  ProbeBackbone();  ///< weights, pictures and features are the same in every instance

  const BackboneInfo& info() const override { return info_; }
  at::Device device() const override { return at::kCPU; }
  at::ScalarType dtype() const override { return at::kFloat; }
  std::vector<Site*> sites(std::string_view pattern) override;
  Parameters parameters(std::string_view pattern) override;
  Forward forward(const Batch& batch) override;
  Tensor image_features(const Batch& batch) override;
  Tensor text_features(const Batch& batch) override;
  Tensor input_embeddings(const Batch& batch) override;
  RouteContext& route() override { return route_; }

  void set_training(bool training) { training_ = training; }
  /// Whether the top block runs on the supervised rows and those that its adapters read, as a fast backbone's
  /// does.
  void set_narrow_top(bool narrow) { narrow_top_ = narrow; }
  bool adapters_read(
      std::initializer_list<Reads> kinds) const;  ///< whether all active ones read one of these

  /// Reads the prompts at once and then the answers token by token, as generation does, with every example's
  /// own answer in place of what it would generate. @return the rows of forward(batch).logits, in the same
  /// order
  Tensor decode_answers(const Batch& batch);

 private:
  struct Block {
    Tensor input_norm, post_norm;
    Site *q, *k, *v, *o, *gate, *up, *down;
  };
  Tensor top_rows(const Tensor& keep) const;
  using Cache = std::vector<Tensor>;  ///< a block's sum of v over the rows of each sequence so far, [B, d]

  Site* add_site(const std::string& name, std::int64_t in, std::int64_t out, bool bias = false);
  Tensor add_tensor(const std::string& name, at::IntArrayRef shape);
  Tensor apply(const Tensor& x, Site& site, RouteContext& route) const;
  /// Fills route_.rows, the rows of route_.text among them where `insert`. @return token ids
  Tensor collate(const Batch& batch, bool prompts_only, bool insert);
  Tensor embed(const Batch& batch, const Tensor& tokens, bool insert);
  Tensor pictures(const Batch& batch) const;
  Tensor mean_so_far(const Tensor& v, std::size_t block, Cache* cache) const;
  Tensor decoder(Tensor x, const Tensor& keep, Cache* cache);

  BackboneInfo info_;
  std::deque<Site> sites_;
  Parameters tensors_;  ///< those outside of sites
  Tensor embedding_, head_, final_norm_;
  Block vision_;  ///< without up: gate and down are fc1 and fc2
  Site *connector_1_, *connector_2_;
  std::vector<Block> blocks_;
  RouteContext route_;
  Tensor prompt_rows_;  ///< rows that route_.text adds to the pass at hand; undefined without
  std::vector<std::int64_t> token_rows_;  ///< row of each token of the pass at hand
  bool training_ = false;
  bool narrow_top_ = true;
};

}  // namespace mcit
