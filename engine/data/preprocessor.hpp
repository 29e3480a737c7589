#pragma once
/// preprocessor_config.json: how a picture becomes pixel values.

#include <array>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/json.hpp"
#include "data/image.hpp"
#include "mcit/types.hpp"

namespace mcit {

/// The image processors of the model families, with Pillow's arithmetic. They differ in geometry alone:
///   crop     CLIP, LLaVA-1.5, DINOv2: the shortest edge to a size, the centre cut out
///   squeeze  BLIP, SigLIP: to height x width, whatever the ratio
///   anyres   LLaVA-OneVision: the picture squeezed into one tile, then tiles of a padded resize
///   split    Idefics3, SmolVLM: rows and columns of tiles, then the picture squeezed into one
class Preprocessor {
 public:
  /// @param pad_square pad to a square of the mean colour first, as the original LLaVA did
  /// (image_aspect_ratio = pad)
  /// @throws CheckpointError naming file and key.
  static Preprocessor from_folder(const std::filesystem::path& folder, bool pad_square = false);

  std::vector<Image> tiles(const Image& image) const;  ///< everything up to the pixels' values
  Tensor pixels(const Image& image) const;             ///< [tiles, 3, H, W] float32
  Tensor load(const std::string& path) const;          ///< read_image() and pixels(); safe from any thread
  PictureShape shape(PictureSize picture) const;       ///< what a picture of this size is cut into
  /// The same of a file, whose header is read once in the life of this object and its copies; safe from any
  /// thread.
  PictureShape shape_of(const std::string& path) const;
  bool tiled() const { return geometry_ == Geometry::anyres || geometry_ == Geometry::split; }
  const std::string& digest() const { return digest_; }

 private:
  enum class Geometry { crop, squeeze, anyres, split };
  void read_geometry(const std::string& type, const Json& config, const std::string& where);
  Image cropped(Image image) const;
  std::vector<Image> any_resolution(const Image& image) const;
  std::vector<Image> rows_and_columns(const Image& image) const;

  Geometry geometry_ = Geometry::crop;
  int edge_ = 224, crop_width_ = 224, crop_height_ = 224;  ///< crop
  int height_ = 224, width_ = 224;                         ///< squeeze; of a tile for anyres and split
  std::vector<PictureSize> canvases_;                      ///< anyres
  int longest_edge_ = 0;                                   ///< split
  bool do_split_ = true;
  bool do_resize_ = true, do_crop_ = true, do_rescale_ = true, do_normalize_ = true, pad_square_ = false;
  Resample filter_ = Resample::bicubic;
  double rescale_ = 1.0 / 255.0;
  std::array<float, 3> mean_ = {0.48145466F, 0.4578275F, 0.40821073F},
                       std_ = {0.26862954F, 0.26130258F, 0.27577711F};
  std::array<double, 3> mean_wide_ = {0.48145466, 0.4578275, 0.40821073};
  std::string digest_;
  struct Known {
    std::mutex mutex;
    std::unordered_map<std::string, PictureShape> shapes;
  };
  std::shared_ptr<Known> known_ = std::make_shared<Known>();
};

}  // namespace mcit
