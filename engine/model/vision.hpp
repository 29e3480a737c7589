#pragma once
/// Vision transformers, with Hugging Face tensor names: CLIP, SigLIP, Idefics3, EVA (InstructBLIP), DINOv2.

#include <functional>
#include <string>
#include <vector>

#include "model/decoder.hpp"
#include "model/hf_config.hpp"
#include "model/weights.hpp"

namespace mcit {

/// What a kind of transformer has and how its tensors are named; an empty name is a tensor that it lacks.
struct TransformerNames {
  const char* layers = "encoder.layers.";
  const char *norm1 = "layer_norm1", *norm2 = "layer_norm2";
  const char* attention = "self_attn.";
  const char *query = "q_proj", *key = "k_proj", *value = "v_proj";
  const char* qkv = "";  ///< one matrix for the three of them
  const char* out = "self_attn.out_proj";
  const char *scale1 = "", *scale2 = "";  ///< layer scale
  const char *fc1 = "mlp.fc1", *fc2 = "mlp.fc2";
};

/// Pre-norm transformer layers: attention over whole sequences and a two-layer MLP.
class EncoderStack {
 public:
  struct Shape {
    std::int64_t layers, width, inner, heads;
    double eps;
    std::string act;
    bool qkv_bias = true;
  };
  EncoderStack(Weights& weights, const std::string& prefix, const TransformerNames& names, Shape shape);

  /// Output of layer `first + count - 1` (x itself for none). @param x [B, L, D]
  /// @param fixed rows in front of those that prompts may replace
  /// @param prompts where layers[i] is defined, it replaces rows fixed .. fixed + L of x before layer i > 0
  Tensor forward(Tensor x, std::int64_t first, std::int64_t count, bool causal, RouteContext& route,
                 bool training, std::int64_t fixed = 1, const Prompts& prompts = {}) const;

  void each_site(const std::function<void(Site&)>& visit) const;
  void each_tensor(const std::function<void(const std::string&, Tensor&)>& visit);

 private:
  struct Layer {
    std::string name;
    Tensor norm1_weight, norm1_bias, norm2_weight, norm2_bias, scale1, scale2;
    SiteGroup qkv, out, fc1, fc2;
  };
  Shape shape_;
  TransformerNames names_;
  std::vector<Layer> layers_;
};

class VisionTower {
 public:
  /// @param layers how many encoder layers to keep; LLaVA never runs those behind its feature layer
  VisionTower(VisionConfig config, Weights& weights, const std::string& prefix, std::int64_t layers);

  /// hidden_states[layers]: 0 is what enters the first layer. @param pixels [B, 3, S, S] -> [B, rows, D], the
  /// class token first where there is one
  /// @param prompts [B, L, D] a layer, read behind the class token, the first before pre_layrnorm; the result
  /// has no rows of theirs
  Tensor hidden(const Tensor& pixels, std::int64_t layers, bool training, const Prompts& prompts = {}) const;
  /// From hidden_states[first] on.
  Tensor continue_from(Tensor hidden, std::int64_t first, std::int64_t layers, bool training) const;
  /// The norm behind the last layer, on every row. [..., D]
  Tensor normed(const Tensor& hidden) const;

  const VisionConfig& config() const { return config_; }
  void each_site(const std::function<void(Site&)>& visit) const { encoder_.each_site(visit); }
  void each_tensor(const std::function<void(const std::string&, Tensor&)>& visit);

 private:
  struct Names;
  static const Names& names_of(const std::string& model_type);

  VisionConfig config_;
  const Names& names_;
  std::string prefix_;
  Tensor class_embedding_, patch_weight_, patch_bias_, positions_, pre_weight_, pre_bias_, post_weight_,
      post_bias_;
  EncoderStack encoder_;
};

/// Puts prompts behind the first `fixed` rows of each sequence, in place of `replaced` rows there. x [B, L,
/// D]
Tensor with_prompts(const Tensor& x, const Tensor& prompts, std::int64_t fixed, std::int64_t replaced);

Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps);

}  // namespace mcit
