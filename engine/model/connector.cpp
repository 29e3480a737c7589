#include "model/connector.hpp"

#include "mcit/errors.hpp"
#include "model/kernels.hpp"
#include "model/qformer.hpp"

namespace mcit {
namespace {

/// The two-layer MLP of the LLaVA family.
class Projector {
 public:
  Projector(const MllmConfig& c, Weights& weights)
      : act_(c.projector_hidden_act),
        linear_1_(SiteGroup::take(weights, "multi_modal_projector.", {{"linear_1", c.text.hidden_size}},
                                  c.vision.hidden_size, c.projector_bias)),
        linear_2_(SiteGroup::take(weights, "multi_modal_projector.", {{"linear_2", c.text.hidden_size}},
                                  c.text.hidden_size, c.projector_bias)) {}

  /// [N, D] -> [N, d]
  Tensor forward(const Tensor& x, RouteContext& route, bool training) const {
    const Tensor h =
        kernels::site_linear(x, linear_1_.view, linear_1_.weight, linear_1_.bias, route, training);
    return kernels::site_linear(kernels::activation(act_, h), linear_2_.view, linear_2_.weight,
                                linear_2_.bias, route, training);
  }
  void each_site(const std::function<void(Site&)>& visit) const {
    for (const SiteGroup* group : {&linear_1_, &linear_2_})
      for (Site* site : group->view) visit(*site);
  }

 private:
  std::string act_;
  SiteGroup linear_1_, linear_2_;
};

/// LLaVA: every feature through the projector.
class LlavaConnector final : public Connector {
 public:
  LlavaConnector(const MllmConfig& c, Weights& weights) : projector_(c, weights), rows_(c.image_tokens()) {}

  Tensor forward(const Tensor& features, const std::vector<Picture>&, RouteContext& route,
                 bool training) const override {
    return projector_.forward(features.reshape({-1, features.size(-1)}), route, training);
  }
  PictureText text(const PictureShape&) const override { return {"<image>", rows_, 0}; }
  void each_site(const std::function<void(Site&)>& visit) const override { projector_.each_site(visit); }

 private:
  Projector projector_;
  std::int64_t rows_;
};

/// LLaVA-OneVision: the whole picture's tile, then the mosaic of the others without padding, with a newline
/// vector behind each of its rows.
class OneVisionConnector final : public Connector {
 public:
  OneVisionConnector(const MllmConfig& c, Weights& weights)
      : projector_(c, weights),
        newline_(weights.take("image_newline", {c.text.hidden_size})),
        side_(static_cast<int>(c.vision.side())),
        most_(static_cast<int>(c.most_tiles)) {}

  Tensor forward(const Tensor& features, const std::vector<Picture>& pictures, RouteContext& route,
                 bool training) const override {
    const Tensor rows = projector_.forward(features.reshape({-1, features.size(-1)}), route, training)
                            .view({features.size(0), features.size(1), -1});
    std::vector<Tensor> out;
    std::int64_t tile = 0;
    for (const Picture& picture : pictures) {
      const std::int64_t others = picture.shape.grid.count();
      if (tile + 1 + others > rows.size(0)) break;  // said below
      out.push_back(rows[tile]);
      out.push_back(mosaic(rows.narrow(0, tile + 1, others), picture.shape));
      tile += 1 + others;
    }
    if (tile != rows.size(0))
      throw DataError("batch", std::to_string(rows.size(0)) + " tiles do not fit the pictures' sizes");
    return at::cat(out);
  }
  PictureText text(const PictureShape& picture) const override {
    const Mosaic m = mosaic_of(picture.size, picture.grid, side_, most_);
    return {"<image>", std::int64_t{side_} * side_ + std::int64_t{m.out_rows} * (m.out_columns + 1), 0};
  }
  bool reads_shape() const override { return true; }
  void each_site(const std::function<void(Site&)>& visit) const override { projector_.each_site(visit); }
  void each_tensor(const std::function<void(const std::string&, Tensor&)>& visit) override {
    visit("image_newline", newline_);
  }

 private:
  /// [tiles, side², d] -> [rows · (columns + 1), d]
  Tensor mosaic(const Tensor& tiles, const PictureShape& picture) const {
    const TileGrid grid = picture.grid;
    const Mosaic m = mosaic_of(picture.size, grid, side_, most_);
    const std::int64_t d = tiles.size(-1);
    Tensor x = tiles.reshape({grid.rows, grid.columns, side_, side_, d})
                   .permute({4, 0, 2, 1, 3})
                   .reshape({1, d, std::int64_t{grid.rows} * side_, std::int64_t{grid.columns} * side_})
                   .narrow(2, m.top, m.rows)
                   .narrow(3, m.left, m.columns);
    if (m.out_rows != m.rows || m.out_columns != m.columns)
      x = at::upsample_bilinear2d(x, {m.out_rows, m.out_columns}, false);
    const Tensor ends = newline_.to(x.scalar_type()).view({1, d, 1, 1}).expand({1, d, m.out_rows, 1});
    return at::cat({x, ends}, 3).flatten(2).squeeze(0).t();
  }

  Projector projector_;
  Tensor newline_;  ///< [d]
  int side_, most_;
};

/// Idefics3: scale x scale neighbouring patches become one row (row offset slowest, then column, then
/// channel), and one linear layer.
class ShuffleConnector final : public Connector {
 public:
  ShuffleConnector(const MllmConfig& c, Weights& weights)
      : projection_(SiteGroup::take(weights, "model.connector.modality_projection.",
                                    {{"proj", c.text.hidden_size}},
                                    c.vision.hidden_size * c.scale_factor * c.scale_factor, false)),
        scale_(c.scale_factor),
        side_(c.vision.side()),
        rows_(c.image_tokens()) {}

  Tensor forward(const Tensor& features, const std::vector<Picture>&, RouteContext& route,
                 bool training) const override {
    const std::int64_t tiles = features.size(0), d = features.size(2), few = side_ / scale_;
    const Tensor x = features.reshape({tiles, few, scale_, few, scale_, d})
                         .permute({0, 1, 3, 2, 4, 5})
                         .reshape({tiles * few * few, scale_ * scale_ * d});
    return kernels::site_linear(x, projection_.view, projection_.weight, projection_.bias, route, training);
  }
  PictureText text(const PictureShape& picture) const override {
    const TileGrid grid = picture.grid;
    const std::string fake = "<fake_token_around_image>";
    std::string text;
    for (int row = 1; row <= grid.rows; ++row) {
      for (int column = 1; column <= grid.columns; ++column)
        text += fake + "<row_" + std::to_string(row) + "_col_" + std::to_string(column) + "><image>";
      text += "\n";
    }
    text += (grid.rows > 0 ? "\n" : "") + fake + "<global-img><image>" + fake;
    return {text, rows_, 0};
  }
  bool reads_shape() const override { return true; }
  void each_site(const std::function<void(Site&)>& visit) const override {
    for (Site* site : projection_.view) visit(*site);
  }

 private:
  SiteGroup projection_;
  std::int64_t scale_, side_, rows_;
};

}  // namespace

std::unique_ptr<Connector> Connector::make(const MllmConfig& config, Weights& weights) {
  switch (config.family) {
    case Family::llava:
      return std::make_unique<LlavaConnector>(config, weights);
    case Family::llava_onevision:
      return std::make_unique<OneVisionConnector>(config, weights);
    case Family::idefics3:
      return std::make_unique<ShuffleConnector>(config, weights);
    case Family::instructblip:
      return std::make_unique<QFormerConnector>(config, weights);
    case Family::text:
      break;
  }
  return nullptr;
}

}  // namespace mcit
