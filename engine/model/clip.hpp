#pragma once
/// CLIP and SigLIP: two towers that put pictures and texts into one space.

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/vision.hpp"

namespace mcit {

class Clip {
 public:
  Clip(ClipConfig config, Weights& weights);

  /// [B, 3, S, S] -> [B, P], unit length. @param prompts as VisionTower::hidden() reads them
  Tensor embed_images(const Tensor& pixels, bool training = false, const Prompts& prompts = {}) const;
  Tensor embed_pooled_vision(const Tensor& last_hidden) const;  ///< from the tower's last hidden state
  /// @param tokens one id list per text, with begin and end tokens -> [B, P], unit length
  /// @param prompts [B, L, D] a layer, read behind each begin token
  /// @param task    routing of the texts, for adapters in the text tower: one entry a text, or none
  Tensor embed_texts(const std::vector<std::vector<std::int64_t>>& tokens, bool training = false,
                     const Prompts& prompts = {}, const std::vector<std::int64_t>& task = {}) const;
  Tensor scale() const { return logit_scale_.exp(); }
  /// scale · images textsᵀ, for SigLIP plus its bias. [N, P], [M, P] -> [N, M]
  Tensor scores(const Tensor& images, const Tensor& texts) const;
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
  /// SigLIP's pooling: a learnt probe attends to all patches, then an MLP.
  struct AttentionPool {
    Tensor probe, in_weight, in_bias, out_weight, out_bias, norm_weight, norm_bias, fc1_weight, fc1_bias,
        fc2_weight, fc2_bias;
  };
  struct Layout {
    Tensor ids, end;  ///< [B, L] padded tokens, [B] the row that is pooled
  };
  Layout lay_out(const std::vector<std::vector<std::int64_t>>& tokens, std::int64_t prompts) const;
  Tensor attention_pooled(const Tensor& normed) const;

  ClipConfig config_;
  VisionTower vision_;
  Tensor token_embedding_, position_embedding_;
  EncoderStack text_;
  Tensor final_weight_, final_bias_, visual_projection_, text_projection_, text_projection_bias_,
      logit_scale_, logit_bias_;
  AttentionPool pool_;
};

/// Reads a CLIP or SigLIP folder. @throws CheckpointError
std::shared_ptr<Clip> load_clip(const std::filesystem::path& folder, at::Device device = at::kCPU,
                                std::optional<at::ScalarType> dtype = std::nullopt);

}  // namespace mcit
