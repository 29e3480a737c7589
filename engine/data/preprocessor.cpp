#include "data/preprocessor.hpp"

#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

int side(const Json& value, const char* key, const std::string& where) {
  std::int64_t out = 0;
  if (value.is_number_integer())
    out = value.get<std::int64_t>();  // files of the first releases
  else if (value.is_object() && value.contains(key) && value[key].is_number_integer())
    out = value[key].get<std::int64_t>();
  if (out <= 0 || out > 1 << 14) throw CheckpointError(where, std::string("needs a positive ") + key);
  return static_cast<int>(out);
}

template <std::size_t N, class T>
void three(const Json& config, const char* key, std::array<T, N>& target, const std::string& where) {
  if (!config.contains(key)) return;
  const Json& values = config[key];
  if (!values.is_array() || values.size() != N)
    throw CheckpointError(where, std::string(key) + " needs three numbers");
  for (std::size_t i = 0; i < N; ++i) {
    if (!values[i].is_number()) throw CheckpointError(where, std::string(key) + " needs three numbers");
    target[i] = values[i].template get<T>();
  }
}

}  // namespace

Preprocessor Preprocessor::from_folder(const std::filesystem::path& folder, bool pad_square) {
  const auto file = folder / "preprocessor_config.json";
  const std::string where = file.string();
  if (!std::filesystem::exists(file))
    throw CheckpointError(where, "does not exist", "a model folder needs a preprocessor_config.json");
  const std::string text = read_file(file);
  const Json config = parse_json(text, where);
  Preprocessor out;
  const auto flag = [&](const char* key, bool& target) {
    if (config.contains(key) && config[key].is_boolean()) target = config[key].get<bool>();
  };
  flag("do_resize", out.do_resize_);
  flag("do_center_crop", out.do_crop_);
  flag("do_rescale", out.do_rescale_);
  flag("do_normalize", out.do_normalize_);
  if (config.contains("size")) out.edge_ = side(config["size"], "shortest_edge", where + ": size");
  if (config.contains("crop_size")) {
    out.crop_height_ = side(config["crop_size"], "height", where + ": crop_size");
    out.crop_width_ = side(config["crop_size"], "width", where + ": crop_size");
  }
  const std::int64_t filter = config.value("resample", std::int64_t{3});
  if (filter < 0 || filter > 3)
    throw CheckpointError(where, "resample " + std::to_string(filter) + " is not supported",
                          "known: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic");
  out.filter_ = static_cast<Resample>(filter);
  if (config.contains("rescale_factor")) out.rescale_ = json_number(config, "rescale_factor", where);
  three(config, "image_mean", out.mean_, where);
  three(config, "image_mean", out.mean_wide_, where);
  three(config, "image_std", out.std_, where);
  out.pad_square_ = pad_square;
  out.digest_ = Hasher().field(text).update(std::int64_t{pad_square}).hex();
  return out;
}

Image Preprocessor::geometry(const Image& image) const {
  Image out = image;
  if (pad_square_) {
    std::uint8_t colour[3];
    for (std::size_t c = 0; c < 3; ++c) colour[c] = static_cast<std::uint8_t>(mean_wide_[c] * 255.0);
    out = pad_to_square(out, colour);
  }
  if (do_resize_) {
    // int(edge * long / short), the quotient taken in double as Python does.
    const bool portrait = out.width <= out.height;
    const double longer = portrait ? out.height : out.width, shorter = portrait ? out.width : out.height;
    const int other = static_cast<int>(edge_ * longer / shorter);
    out = portrait ? resize(out, edge_, other, filter_) : resize(out, other, edge_, filter_);
  }
  return do_crop_ ? centre_crop(out, crop_width_, crop_height_) : out;
}

Tensor Preprocessor::pixels(const Image& image) const {
  const Image ready = geometry(image);
  Tensor out = at::empty({3, ready.height, ready.width}, at::kFloat);
  float* to = out.data_ptr<float>();
  // 256 possible values a channel: the product with the factor is taken in double, the rest in float.
  std::array<std::array<float, 256>, 3> table{};
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t v = 0; v < 256; ++v) {
      const float scaled = static_cast<float>(static_cast<double>(v) * (do_rescale_ ? rescale_ : 1.0));
      table[c][v] = do_normalize_ ? (scaled - mean_[c]) / std_[c] : scaled;
    }
  const std::size_t plane = static_cast<std::size_t>(ready.width) * static_cast<std::size_t>(ready.height);
  for (std::size_t i = 0; i < plane; ++i)
    for (std::size_t c = 0; c < 3; ++c) to[c * plane + i] = table[c][ready.rgb[3 * i + c]];
  return out;
}

Tensor Preprocessor::load(const std::string& path) const { return pixels(read_image(path)); }

}  // namespace mcit
