#pragma once
/// What turns a tower's features into rows of the decoder, one class for each family's way.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/tiles.hpp"
#include "model/decoder.hpp"
#include "model/hf_config.hpp"
#include "model/weights.hpp"

namespace mcit {

/// What a connector may need to know of a picture besides its features.
struct Picture {
  PictureShape shape;       ///< set where Connector::reads_shape()
  std::string instruction;  ///< the prompt's text
};

class Connector {
 public:
  static std::unique_ptr<Connector> make(const MllmConfig& config, Weights& weights);
  Connector() = default;
  Connector(const Connector&) = delete;
  Connector& operator=(const Connector&) = delete;
  virtual ~Connector() = default;

  /// @param features [tiles, n, D], the tiles of all pictures one after the other
  /// @return [Σ rows, d] in the pictures' order
  virtual Tensor forward(const Tensor& features, const std::vector<Picture>& pictures, RouteContext& route,
                         bool training) const = 0;
  /// What stands in a prompt for a picture of this shape.
  virtual PictureText text(const PictureShape& picture) const = 0;
  /// Whether the number of rows depends on the picture.
  virtual bool reads_shape() const { return false; }
  /// Sets how an instruction becomes token ids, where one is read.
  // NOLINTNEXTLINE(performance-unnecessary-value-param): those that read one keep it
  virtual void set_instructions(std::function<std::vector<std::int64_t>(const std::string&)>) {}

  virtual void each_site(const std::function<void(Site&)>& visit) const = 0;
  virtual void each_tensor(const std::function<void(const std::string&, Tensor&)>&) {}
};

}  // namespace mcit
