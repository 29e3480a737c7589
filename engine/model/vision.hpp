#pragma once
/// CLIP towers and the LLaVA connector, with Hugging Face tensor names.

#include <filesystem>
#include <functional>
#include <string>

#include "model/decoder.hpp"
#include "model/hf_config.hpp"

namespace mcit {

/// The transformer layers that CLIP's two towers share: pre-norm attention and a two-layer MLP, all with
/// bias.
class ClipEncoder {
 public:
  ClipEncoder(StateDict& tensors, const std::string& prefix, std::int64_t layers, std::int64_t width,
              std::int64_t heads, double eps, std::string act);

  /// Output of layer `count` (0 returns x). @param x [B, L, D]; causal for the text tower
  /// @param prompts where layers[i] is defined, it replaces rows 1 .. L of x before layer i > 0
  Tensor forward(Tensor x, std::int64_t first, std::int64_t count, bool causal, RouteContext& route,
                 bool training, const Prompts& prompts = {}) const;

  void each_site(const std::function<void(Site&)>& visit) const;
  void each_tensor(const std::function<void(const std::string&, Tensor&)>& visit);

 private:
  struct Layer {
    std::string name;
    Tensor norm1_weight, norm1_bias, norm2_weight, norm2_bias;
    SiteGroup qkv, out, fc1, fc2;
  };
  std::int64_t heads_;
  double eps_;
  std::string act_;
  std::vector<Layer> layers_;
};

class VisionTower {
 public:
  /// @param layers how many encoder layers to keep; LLaVA never runs those behind its feature layer
  VisionTower(VisionConfig config, StateDict& tensors, const std::string& prefix, std::int64_t layers);

  /// hidden_states[layers]: 0 is the embeddings after pre_layrnorm. @param pixels [B, 3, S, S] -> [B, 1 +
  /// patches, D]
  /// @param prompts [B, L, D] a layer, read behind the class token, the first before pre_layrnorm; the result
  /// has no rows of theirs
  Tensor hidden(const Tensor& pixels, std::int64_t layers, bool training, const Prompts& prompts = {}) const;
  /// From hidden_states[first] on.
  Tensor continue_from(Tensor hidden, std::int64_t first, std::int64_t layers, bool training) const;
  /// post_layernorm of the class token of hidden_states[-1]. [B, 1 + patches, D] -> [B, D]
  Tensor pooled(const Tensor& last_hidden) const;

  const VisionConfig& config() const { return config_; }
  void each_site(const std::function<void(Site&)>& visit) const { encoder_.each_site(visit); }
  void each_tensor(const std::function<void(const std::string&, Tensor&)>& visit);

 private:
  VisionConfig config_;
  std::string prefix_;
  Tensor class_embedding_, patch_embedding_, position_embedding_, pre_weight_, pre_bias_, post_weight_,
      post_bias_;
  ClipEncoder encoder_;
};

/// CLIP: the two towers and their projections into one space.
class Clip {
 public:
  Clip(ClipConfig config, StateDict& tensors);

  /// [B, 3, S, S] -> [B, P], unit length. @param prompts as VisionTower::hidden() reads them
  Tensor embed_images(const Tensor& pixels, bool training = false, const Prompts& prompts = {}) const;
  Tensor embed_pooled_vision(const Tensor& last_hidden) const;  ///< from the tower's last hidden state
  /// @param tokens one id list per text, with begin and end tokens -> [B, P], unit length
  /// @param prompts [B, L, D] a layer, read behind each begin token
  /// @param task    routing of the texts, for adapters in the text tower: one entry a text, or none
  Tensor embed_texts(const std::vector<std::vector<std::int64_t>>& tokens, bool training = false,
                     const Prompts& prompts = {}, const std::vector<std::int64_t>& task = {}) const;
  Tensor scale() const { return logit_scale_.exp(); }
  const Tensor& token_embedding() const { return token_embedding_; }  ///< [V, D]

  const ClipConfig& config() const { return config_; }
  const VisionTower& vision() const { return vision_; }
  void each_site(const std::function<void(Site&)>& visit) const;
  void each_tensor(const std::function<void(const std::string&, Tensor&)>& visit);
  StateDict tensors();  ///< every tensor by its name
  /// Writes config.json and model.safetensors.
  void save(const std::filesystem::path& folder, at::ScalarType dtype,
            const std::map<std::string, std::string>& metadata = {});

 private:
  ClipConfig config_;
  VisionTower vision_;
  Tensor token_embedding_, position_embedding_;
  ClipEncoder text_;
  Tensor final_weight_, final_bias_, visual_projection_, text_projection_, logit_scale_;
};

/// LLaVA's two-layer connector. [N, D] -> [N, d]
class Connector {
 public:
  Connector(StateDict& tensors, const std::string& prefix, std::string act, bool bias);
  Tensor forward(const Tensor& features, RouteContext& route, bool training) const;
  void each_site(const std::function<void(Site&)>& visit) const;

 private:
  std::string act_;
  SiteGroup linear_1_, linear_2_;
};

}  // namespace mcit
