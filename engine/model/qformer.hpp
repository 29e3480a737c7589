#pragma once
/// InstructBLIP's way from a picture to the decoder: queries that read the instruction look at the picture.

#include <unordered_map>

#include "model/connector.hpp"

namespace mcit {

class QFormerConnector final : public Connector {
 public:
  QFormerConnector(const MllmConfig& config, Weights& weights);

  Tensor forward(const Tensor& features, const std::vector<Picture>& pictures, RouteContext& route,
                 bool training) const override;
  PictureText text(const PictureShape&) const override { return {"", 1, config_.num_query_tokens}; }
  void set_instructions(std::function<std::vector<std::int64_t>(const std::string&)> encode) override {
    encode_ = std::move(encode);
  }
  void each_site(const std::function<void(Site&)>& visit) const override;
  void each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) override;

 private:
  struct Norm {
    std::string name;
    Tensor weight, bias;
  };
  struct Attention {
    SiteGroup query, key_value, out;  ///< self-attention has all three of them in `query`
    Norm norm;
  };
  struct FeedForward {
    SiteGroup in, out;
    Norm norm;
  };
  struct Layer {
    Attention self, cross;
    bool crosses = false;
    FeedForward text, queries;
  };
  static Norm take_norm(Weights& weights, const std::string& name, std::int64_t width);
  FeedForward take_feed_forward(Weights& weights, const std::string& layer, const std::string& suffix) const;
  Tensor normed(const Tensor& x, const Norm& norm) const;
  /// @param x [B, L, D] @param image [B, n, D'] or undefined for self-attention @param mask [B, 1, 1, L]
  Tensor attend(const Attention& part, const Tensor& x, const Tensor& image, const Tensor& mask,
                RouteContext& route, bool training) const;
  Tensor feed_forward(const FeedForward& part, const Tensor& x, RouteContext& route, bool training) const;

  QFormerConfig config_;
  Tensor query_tokens_;  ///< [1, queries, D]
  Tensor words_, positions_;
  Norm norm_;
  std::vector<Layer> layers_;
  SiteGroup projection_;
  std::function<std::vector<std::int64_t>(const std::string&)> encode_;
};

}  // namespace mcit
