#pragma once
/// A backbone as the engine drives it, and what its kinds share: names, prompts, the watch over frozen
/// towers.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/hash.hpp"
#include "core/tiles.hpp"
#include "mcit/backbone.hpp"

namespace mcit {

/// Where a model gets what belongs to a picture.
struct ImageSource {
  std::function<Tensor(const std::string& path)>
      features;  ///< what the frozen tower says, float32 on the CPU: an MLLM's [tiles, n, vision_hidden]
                 ///< before the connector, CLIP's embedding [feature_dim]
  std::function<Tensor(const std::string& path)> pixels;  ///< [tiles, 3, S, S] float32, CLIP's [3, S, S]
  /// How a picture is cut; needed where the number of its rows depends on it.
  std::function<PictureShape(const std::string& path)> shape{};
};

class Model : public Backbone {
 public:
  void set_images(ImageSource source) { images_ = std::move(source); }
  virtual void set_training(bool training) = 0;  ///< dropout on or off
  /// Whether an adapter, a gradient, an update or prompts reach the vision tower: pictures then go through it
  /// in every pass, on the graph, and no stored feature is used.
  virtual bool tower_changed() const = 0;

 protected:
  ImageSource images_;
};

/// Notices when frozen weights begin to train, were changed in place, or get an adapter.
class Watch {
 public:
  void add(const Tensor& weight);
  void add(Site& site);
  bool changed() const;

 private:
  std::vector<Tensor> weights_;
  std::vector<std::uint32_t> versions_;  ///< of them, as they were added
  std::vector<Site*> sites_;
};

/// How the names of a model's tensors begin, by the words that Backbone's patterns know.
struct NameGroups {
  std::vector<std::string> decoder;
  std::string vision;  ///< empty: there is no tower
  std::vector<std::string> connector;
};

/// Which names one of Backbone's patterns selects. @throws ConfigError for a bad regular expression
std::function<bool(const std::string&)> name_filter(std::string_view pattern, const NameGroups& groups);

/// Adds names and values, as float32, of the tensors that are wanted.
void hash_tensors(Hasher& hasher, const StateDict& tensors,
                  const std::function<bool(const std::string&)>& wanted);

bool in_connector(const std::string& name, const NameGroups& groups);

/// @throws Error when prompts do not fit `sequences` rows of `width` and a stack of `blocks`
void check_prompts(const Prompts& prompts, std::size_t sequences, std::int64_t width, std::int64_t blocks,
                   const char* where);

}  // namespace mcit
