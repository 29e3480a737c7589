#include "data/preprocessor.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

constexpr std::uint64_t kLargestFile = 256 << 10;
constexpr int kMostSide = 1 << 12;   ///< pixels
constexpr int kMostTiles = 1 << 10;  ///< of one picture
constexpr double kMostValue = 1e6;   ///< of a pixel

int side(const Json& value, const char* key, const std::string& where) {
  std::int64_t out = 0;
  if (value.is_number_integer())
    out = value.get<std::int64_t>();  // files of the first releases
  else if (value.is_object() && value.contains(key) && value[key].is_number_integer())
    out = value[key].get<std::int64_t>();
  if (out <= 0 || out > kMostSide)
    throw CheckpointError(where, std::string("needs a ") + key + " from 1 to " + std::to_string(kMostSide));
  return static_cast<int>(out);
}

template <std::size_t N, class T>
void three(const Json& config, const char* key, std::array<T, N>& target, const std::string& where) {
  if (!config.contains(key)) return;
  const Json& values = config[key];
  if (!values.is_array() || values.size() != N)
    throw CheckpointError(where, std::string(key) + " needs three numbers");
  for (std::size_t i = 0; i < N; ++i) {
    if (!values[i].is_number() || !(std::abs(values[i].template get<double>()) < kMostValue))
      throw CheckpointError(where, std::string(key) + " needs three numbers");
    target[i] = values[i].template get<T>();
  }
}

/// [[height, width], ...] in multiples of the tile.
std::vector<PictureSize> read_canvases(const Json& values, int tile, const std::string& where) {
  std::vector<PictureSize> out;
  if (!values.is_array()) throw CheckpointError(where, "needs a list of [height, width]");
  for (const Json& pair : values) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number_integer() || !pair[1].is_number_integer())
      throw CheckpointError(where, "needs a list of [height, width]");
    const std::int64_t height = pair[0].get<std::int64_t>(), width = pair[1].get<std::int64_t>();
    if (height <= 0 || width <= 0 || height > kMostSide || width > kMostSide || height % tile != 0 ||
        width % tile != 0 || height / tile * (width / tile) > kMostTiles)
      throw CheckpointError(where, "[" + std::to_string(height) + ", " + std::to_string(width) +
                                       "] is no multiple of the tile of " + std::to_string(tile) +
                                       ", or too large a one");
    out.push_back({static_cast<int>(height), static_cast<int>(width)});
  }
  if (out.empty()) throw CheckpointError(where, "is empty");
  return out;
}

/// The processor's settings: a file of their own, or (since transformers 5) a section of another.
Json read_settings(const std::filesystem::path& folder, std::string& text, std::string& where) {
  const auto own = folder / "preprocessor_config.json", shared = folder / "processor_config.json";
  std::error_code ignored;
  const bool alone = std::filesystem::exists(own, ignored);
  if (!alone && !std::filesystem::exists(shared, ignored))
    throw CheckpointError(own.string(), "does not exist", "a model folder needs a preprocessor_config.json");
  where = (alone ? own : shared).string();
  text = read_file(alone ? own : shared, kLargestFile);
  const Json config = parse_json(text, where);
  if (!config.is_object()) throw CheckpointError(where, "is not a JSON object");
  if (alone) return config;
  where += ": image_processor";
  if (!config.contains("image_processor") || !config["image_processor"].is_object())
    throw CheckpointError(where, "is missing", "a model folder needs a preprocessor_config.json");
  return config["image_processor"];
}

/// "CLIPImageProcessorFast", "CLIPFeatureExtractor" -> "CLIP"
std::string processor_kind(const Json& config, const std::string& where) {
  std::string name = "CLIP";
  for (const char* key : {"image_processor_type", "feature_extractor_type"})
    if (config.contains(key) && config[key].is_string()) {
      name = config[key].get<std::string>();
      break;
    }
  const std::string given = name;
  for (const char* ending : {"Fast", "Pil", "ImageProcessor", "FeatureExtractor"})
    if (name.ends_with(ending)) name.resize(name.size() - std::char_traits<char>::length(ending));
  static const std::vector<std::string> kKinds = {"CLIP",   "Llava",          "Bit",      "Blip",
                                                  "Siglip", "LlavaOnevision", "Idefics3", "SmolVLM"};
  if (std::find(kKinds.begin(), kKinds.end(), name) == kKinds.end())
    throw CheckpointError(where + ": image_processor_type", "'" + given + "' is not supported",
                          "known: CLIP, Llava, Bit, Blip, Siglip, LlavaOnevision, Idefics3, SmolVLM");
  return name;
}

}  // namespace

void Preprocessor::read_geometry(const std::string& kind, const Json& config, const std::string& where) {
  const auto sides = [&](int fallback) {
    height_ = width_ = fallback;
    if (!config.contains("size")) return;
    height_ = side(config["size"], "height", where + ": size");
    width_ = side(config["size"], "width", where + ": size");
  };
  if (kind == "Blip" || kind == "Siglip") {
    geometry_ = Geometry::squeeze;
    sides(kind == "Blip" ? 384 : 224);
  } else if (kind == "LlavaOnevision") {
    geometry_ = Geometry::anyres;
    sides(384);
    if (height_ != width_) throw CheckpointError(where + ": size", "tiles are squares");
    if (!config.contains("image_grid_pinpoints")) throw CheckpointError(where, "has no image_grid_pinpoints");
    canvases_ = read_canvases(config["image_grid_pinpoints"], width_, where + ": image_grid_pinpoints");
  } else if (kind == "Idefics3" || kind == "SmolVLM") {
    geometry_ = Geometry::split;
    longest_edge_ =
        config.contains("size") ? side(config["size"], "longest_edge", where + ": size") : 4 * 364;
    height_ = width_ = config.contains("max_image_size")
                           ? side(config["max_image_size"], "longest_edge", where + ": max_image_size")
                           : 364;
    const int along = (longest_edge_ + width_ - 1) / width_;
    if (along * along > kMostTiles)
      throw CheckpointError(where + ": size", "makes " + std::to_string(along) + " tiles of " +
                                                  std::to_string(width_) + " pixels along an edge");
  } else {
    if (config.contains("size")) edge_ = side(config["size"], "shortest_edge", where + ": size");
    if (config.contains("crop_size")) {
      crop_height_ = side(config["crop_size"], "height", where + ": crop_size");
      crop_width_ = side(config["crop_size"], "width", where + ": crop_size");
    }
  }
}

Preprocessor Preprocessor::from_folder(const std::filesystem::path& folder, bool pad_square) {
  std::string text, where;
  const Json config = read_settings(folder, text, where);
  Preprocessor out;
  const auto flag = [&](const char* key, bool& target) {
    if (config.contains(key) && config[key].is_boolean()) target = config[key].get<bool>();
  };
  flag("do_resize", out.do_resize_);
  flag("do_center_crop", out.do_crop_);
  flag("do_rescale", out.do_rescale_);
  flag("do_normalize", out.do_normalize_);
  flag("do_image_splitting", out.do_split_);
  const std::string kind = processor_kind(config, where);
  out.read_geometry(kind, config, where);
  if (pad_square && out.geometry_ != Geometry::crop)
    throw ConfigError("pad_square",
                      "is for CLIP's way of cutting pictures, and the model's is " + kind + "'s");
  const bool half = kind == "Idefics3" || kind == "SmolVLM" || kind == "Siglip";
  if (half) {
    out.mean_ = out.std_ = {0.5F, 0.5F, 0.5F};
    out.mean_wide_ = {0.5, 0.5, 0.5};
  }
  const std::int64_t usual = out.geometry_ == Geometry::split ? 1 : 3;
  const std::int64_t filter = config.contains("resample") ? json_integer(config, "resample", where) : usual;
  if (filter < 0 || filter > 3)
    throw CheckpointError(where, "resample " + std::to_string(filter) + " is not supported",
                          "known: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic");
  out.filter_ = static_cast<Resample>(filter);
  if (config.contains("rescale_factor")) out.rescale_ = json_number(config, "rescale_factor", where);
  if (!(out.rescale_ > 0.0 && out.rescale_ < kMostValue))
    throw CheckpointError(where + ": rescale_factor", "is no positive factor");
  three(config, "image_mean", out.mean_, where);
  three(config, "image_mean", out.mean_wide_, where);
  three(config, "image_std", out.std_, where);
  for (const float std : out.std_)
    if (!(std > 1.0 / kMostValue)) throw CheckpointError(where + ": image_std", "needs positive numbers");
  out.pad_square_ = pad_square;
  out.digest_ = Hasher().field(text).update(std::int64_t{pad_square}).hex();
  return out;
}

Image Preprocessor::cropped(Image out) const {
  if (pad_square_) {
    std::uint8_t colour[3];
    for (std::size_t c = 0; c < 3; ++c)
      colour[c] = static_cast<std::uint8_t>(std::clamp(mean_wide_[c], 0.0, 1.0) * 255.0);
    out = pad_to_square(out, colour);
  }
  if (do_resize_) {
    // int(edge * long / short), the quotient taken in double as Python does.
    const bool portrait = out.width <= out.height;
    const double longer = portrait ? out.height : out.width, shorter = portrait ? out.width : out.height;
    const int other = static_cast<int>(std::min<double>(edge_ * longer / shorter, kMaxPixels));
    out = portrait ? resize(out, edge_, other, filter_) : resize(out, other, edge_, filter_);
  }
  return do_crop_ ? centre_crop(out, crop_width_, crop_height_) : out;
}

std::vector<Image> Preprocessor::any_resolution(const Image& image) const {
  const PictureSize size{image.height, image.width}, canvas = best_canvas(size, canvases_),
                                                     fitted = fit_into(size, canvas);
  std::vector<Image> out = {resize(image, width_, height_, filter_)};
  const Image whole =
      pad_to(resize(image, fitted.width, fitted.height, filter_), canvas.width, canvas.height);
  for (int y = 0; y < canvas.height; y += height_)
    for (int x = 0; x < canvas.width; x += width_) out.push_back(crop(whole, x, y, width_, height_));
  return out;
}

std::vector<Image> Preprocessor::rows_and_columns(const Image& image) const {
  const TileSplit plan = split_of({image.height, image.width}, longest_edge_, width_);
  Image whole = do_resize_ ? resize(image, plan.first.width, plan.first.height, filter_) : image;
  std::vector<Image> out;
  if (do_split_) {
    whole = resize(whole, plan.second.width, plan.second.height, filter_);
    for (int row = 0; row < plan.grid.rows; ++row)
      for (int column = 0; column < plan.grid.columns; ++column)
        out.push_back(crop(whole, column * width_, row * height_, width_, height_));
  }
  out.push_back(resize(whole, width_, height_, filter_));
  return out;
}

std::vector<Image> Preprocessor::tiles(const Image& image) const {
  switch (geometry_) {
    case Geometry::crop:
      return {cropped(image)};
    case Geometry::squeeze:
      return {do_resize_ ? resize(image, width_, height_, filter_) : image};
    case Geometry::anyres:
      return any_resolution(image);
    case Geometry::split:
      return rows_and_columns(image);
  }
  return {};
}

PictureShape Preprocessor::shape(PictureSize picture) const {
  if (geometry_ == Geometry::anyres) {
    const PictureSize canvas = best_canvas(picture, canvases_);
    return {picture, {canvas.height / height_, canvas.width / width_}};
  }
  if (geometry_ == Geometry::split && do_split_)
    return {picture, split_of(picture, longest_edge_, width_).grid};
  return {picture, {}};
}

PictureShape Preprocessor::shape_of(const std::string& path) const {
  const std::lock_guard lock(known_->mutex);
  auto found = known_->shapes.find(path);
  if (found == known_->shapes.end())
    found = known_->shapes.emplace(path, shape(read_picture_size(path))).first;
  return found->second;
}

Tensor Preprocessor::pixels(const Image& image) const {
  const std::vector<Image> ready = tiles(image);
  Tensor out = at::empty(
      {static_cast<std::int64_t>(ready.size()), 3, ready.front().height, ready.front().width}, at::kFloat);
  float* to = out.data_ptr<float>();
  // 256 possible values a channel: the product with the factor is taken in double, the rest in float.
  std::array<std::array<float, 256>, 3> table{};
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t v = 0; v < 256; ++v) {
      const float scaled = static_cast<float>(static_cast<double>(v) * (do_rescale_ ? rescale_ : 1.0));
      table[c][v] = do_normalize_ ? (scaled - mean_[c]) / std_[c] : scaled;
    }
  for (const Image& tile : ready) {
    const std::size_t plane = tile.rgb.size() / 3;
    for (std::size_t i = 0; i < plane; ++i)
      for (std::size_t c = 0; c < 3; ++c) to[c * plane + i] = table[c][tile.rgb[3 * i + c]];
    to += 3 * plane;
  }
  return out;
}

Tensor Preprocessor::load(const std::string& path) const {
  const Image image = read_image(path);
  try {
    return pixels(image);
  } catch (const DataError& error) {
    throw DataError(path, error.what());
  }
}

}  // namespace mcit
