#pragma once
/// preprocessor_config.json: how a picture becomes pixel values.

#include <array>
#include <filesystem>
#include <string>

#include "data/image.hpp"
#include "mcit/types.hpp"

namespace mcit {

/// CLIP's image processor (also LLaVA-1.5's): shortest edge, centre crop, rescale, normalise.
class Preprocessor {
 public:
  /// @param pad_square pad to a square of the mean colour first, as the original LLaVA did
  /// (image_aspect_ratio = pad)
  /// @throws CheckpointError naming file and key.
  static Preprocessor from_folder(const std::filesystem::path& folder, bool pad_square = false);

  Image geometry(const Image& image) const;    ///< everything up to the pixels' values
  Tensor pixels(const Image& image) const;     ///< [3, H, W] float32
  Tensor load(const std::string& path) const;  ///< read_image() and pixels(); safe from any thread
  const std::string& digest() const { return digest_; }

 private:
  int edge_ = 224, crop_width_ = 224, crop_height_ = 224;
  bool do_resize_ = true, do_crop_ = true, do_rescale_ = true, do_normalize_ = true, pad_square_ = false;
  Resample filter_ = Resample::bicubic;
  double rescale_ = 1.0 / 255.0;
  std::array<float, 3> mean_ = {0.48145466F, 0.4578275F, 0.40821073F},
                       std_ = {0.26862954F, 0.26130258F, 0.27577711F};
  std::array<double, 3> mean_wide_ = {0.48145466, 0.4578275, 0.40821073};
  std::string digest_;
};

}  // namespace mcit
