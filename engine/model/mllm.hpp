#pragma once
/// A multimodal language model: vision tower, connector, decoder; read from and written to Hugging Face
/// folders.

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "mcit/backbone.hpp"
#include "model/clip.hpp"
#include "model/connector.hpp"
#include "model/decoder.hpp"
#include "model/family.hpp"
#include "model/hf_config.hpp"
#include "model/model.hpp"
#include "model/vision.hpp"
#include "model/weights.hpp"

namespace mcit {

/// Answers that a restricted decoding may give, as token paths. An empty trie restricts nothing.
class AnswerTrie {
 public:
  /// @param answers token ids of each answer, without end token
  explicit AnswerTrie(const std::vector<std::vector<std::int64_t>>& answers, std::int64_t end_token);
  struct Node {
    std::map<std::int64_t, std::size_t> next;
  };
  const Node& node(std::size_t index) const { return nodes_[index]; }
  bool empty() const { return nodes_.size() == 1; }

 private:
  std::vector<Node> nodes_;
};

/// What decoding does about end tokens: end the answer, keep them as tokens like any other, or never choose
/// one. The last two give every answer max_new_tokens ids.
enum class OnEnd { stop, keep, avoid };

/// Prompts that went through the decoder once; answers are decoded from it, as often as wanted.
struct Prefill {
  KvCache cache;
  Tensor first_logits;                       ///< [B, V]
  std::vector<std::int64_t> prompt_lengths;  ///< [B]
  std::vector<std::int64_t> task;            ///< routing of the prompts
  std::map<std::string, Tensor> memo;
};

class Mllm final : public Model {
 public:
  /// @throws CheckpointError naming file and tensor. dtype: float32 unless given.
  /// @param adapter a PEFT folder to merge into the weights, or empty
  /// @param progress told of every tensor that was read: its bytes in the file, and those of all
  static std::unique_ptr<Mllm> load(
      const std::filesystem::path& folder, at::Device device = at::kCPU,
      std::optional<at::ScalarType> dtype = std::nullopt, const std::filesystem::path& adapter = {},
      const std::function<void(std::int64_t bytes, std::int64_t of)>& progress = {});
  /// @param weights under published names; what is not used is kept for save()
  Mllm(MllmConfig config, Weights& weights);
  Mllm(MllmConfig config, StateDict tensors);

  /// Writes config.json and model.safetensors; tokenizer and preprocessor files are the caller's.
  void save(const std::filesystem::path& folder, at::ScalarType dtype,
            const std::map<std::string, std::string>& metadata = {});

  const BackboneInfo& info() const override { return info_; }
  at::Device device() const override { return device_; }
  at::ScalarType dtype() const override { return dtype_; }
  std::vector<Site*> sites(std::string_view pattern) override;
  Parameters parameters(std::string_view pattern) override;
  Forward forward(const Batch& batch) override;
  Tensor image_features(const Batch& batch) override;
  Tensor text_features(const Batch& batch) override;
  Tensor input_embeddings(const Batch& batch) override;
  RouteContext& route() override { return route_; }

  /// Like forward(), with the pictures' features given in batch order: [tiles, n, D].
  Forward forward_with(const Batch& batch, const Tensor& features);
  /// Features of tiles before the connector. [B, 3, S, S] of any device and type -> [B, n, D] of the model's;
  /// on the graph in grad mode.
  Tensor vision_features(const Tensor& pixels, const Prompts& prompts = {}) const;
  /// What the decoder reads of pictures: features through the connector. [tiles, n, D] -> [rows, d]
  Tensor visual_tokens(const Tensor& features, const std::vector<Picture>& pictures) {
    return connector_->forward(features, pictures, route_, training_);
  }
  /// What stands in a prompt for a picture. @throws Error for a model that sees none
  PictureText picture_text(const PictureShape& picture) const;
  /// Whether picture_text() depends on the picture.
  bool reads_shape() const { return connector_ && connector_->reads_shape(); }
  /// Shape of one tile's features: {n, D}.
  std::vector<std::int64_t> feature_shape() const;
  /// Sets how an instruction becomes ids of the Q-Former's own tokenizer.
  void set_instructions(std::function<std::vector<std::int64_t>(const std::string&)> encode) {
    if (connector_) connector_->set_instructions(std::move(encode));
  }
  /// The decoder's token embedding. [V, d]
  const Tensor& embedding() const { return decoder_.embedding(); }
  /// The tower's hidden states up to the feature layer, class token included. [B, 1 + patches, D]
  Tensor vision_hidden(const Tensor& pixels, const Prompts& prompts = {}) const {
    return vision_->hidden(pixels, feature_layer_, training_, prompts);
  }

  Prefill prefill(const Batch& batch, std::int64_t max_new_tokens);
  /// Greedy answers, without the end token. @param allowed restricts each answer to a set, or null
  std::vector<std::vector<std::int64_t>> decode(Prefill& prefill, std::int64_t max_new_tokens,
                                                const AnswerTrie* allowed = nullptr,
                                                OnEnd on_end = OnEnd::stop);
  /// Logits at every row, for comparison with other implementations. [N, V]
  /// @param states receives what each block gives and, last, the normed rows that are scored
  Tensor all_logits(const Batch& batch, const Tensor& features, std::vector<Tensor>* states = nullptr);

  /// @param embed_images the towers' embeddings of pictures by their paths, [n, P] float32 on the CPU
  /// @param encode_text token ids of a text for the text tower
  void set_clip(std::shared_ptr<Clip> clip,
                std::function<Tensor(const std::vector<std::string>&)> embed_images,
                std::function<std::vector<std::int64_t>(const std::string&)> encode_text);
  void set_training(bool training) override { training_ = training; }
  const MllmConfig& config() const { return config_; }
  const std::shared_ptr<Clip>& clip() const { return clip_; }
  /// Every tensor by its published name.
  StateDict tensors();
  /// Changes when any weight of the tower changes: part of the feature cache's key.
  std::string tower_hash();
  bool tower_changed() const override { return route_.vision.length() > 0 || tower_.changed(); }

 private:
  /// Tokens of each sequence that go through the decoder in one pass, and the position of the first.
  using Rows = std::vector<std::span<const std::int64_t>>;
  static Rows whole(const Batch& batch);
  /// A pass over packed sequences, with the rows that route_.text adds to each.
  struct Packed {
    Tensor tokens;                   ///< [N] ids; those of added rows mean nothing
    Tensor prompt_rows;              ///< [B·L] added rows; undefined without
    std::vector<std::int64_t> rows;  ///< row of each sequence's tokens, one after the other
  };
  /// Fills route_.rows. @param prompts rows of each sequence's prompt, or null when they are nothing else
  /// @param insert whether route_.text joins this pass
  Packed collate(const Rows& sequences, std::int64_t position, const Batch* prompts, bool insert);
  KvCache make_cache(std::size_t sequences, std::int64_t capacity) const;
  /// How many leading tokens all prompts share that one pass may serve for all; 0 when it would not pay.
  std::int64_t shared_beginning(const Rows& prompts) const;
  Tensor gather_features(const Batch& batch) const;
  /// What the connector needs to know of the batch's pictures.
  std::vector<Picture> pictures_of(const Batch& batch) const;
  /// route_.vision for each tile of the examples that have a picture.
  Prompts vision_prompts(const Batch& batch, const std::vector<std::int64_t>& tiles) const;
  void require_clip() const;  ///< @throws CheckpointError without CLIP towers
  /// @param batch the examples whose pictures' features are given, or null without features
  Tensor embed_rows(const Packed& packed, const Tensor& features, const Batch* batch);
  void each_site(const std::function<void(Site&)>& visit) const;
  void each_tensor(const std::function<void(const std::string&, Tensor&)>& visit);

  MllmConfig config_;
  const FamilyNames& names_;
  std::int64_t feature_layer_;         ///< hidden_states index that feeds the connector
  std::optional<VisionTower> vision_;  ///< none for a text model
  std::unique_ptr<Connector> connector_;
  Decoder decoder_;
  Watch tower_;
  StateDict unused_;  ///< tensors of the folder that this model never reads (the tower's last layer)
  BackboneInfo info_;
  at::Device device_;
  at::ScalarType dtype_;
  RouteContext route_;
  std::shared_ptr<Clip> clip_;
  std::function<Tensor(const std::vector<std::string>&)> embed_images_;
  std::function<std::vector<std::int64_t>(const std::string&)> encode_text_;
  std::unordered_map<std::string, Tensor> text_embeddings_;  ///< CLIP's, by question
  bool training_ = false;
};

/// The folder's tensors under published names, without the buffers of old exports.
StateDict read_mllm_tensors(const std::filesystem::path& folder, const MllmConfig& config);

}  // namespace mcit
