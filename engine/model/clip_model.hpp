#pragma once
/// CLIP as a classifier of pictures: each class is a text, and the nearest text wins.

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "model/clip.hpp"
#include "model/model.hpp"

namespace mcit {

/// The texts of a task's classes as token ids, begin and end tokens included.
struct ClassTexts {
  std::vector<std::vector<std::int64_t>> full;  ///< names in the suite's template
  std::vector<std::vector<std::int64_t>> bare;  ///< names alone, for prompts that stand for a template

  bool operator==(const ClassTexts&) const = default;
};

/// Examples have a picture and one label, the class; a row chooses among the classes of its example's task.
class ClipModel final : public Model {
 public:
  explicit ClipModel(std::shared_ptr<Clip> clip);

  void set_classes(std::vector<ClassTexts> tasks);  ///< one for each task of the suite

  const BackboneInfo& info() const override { return info_; }
  at::Device device() const override { return device_; }
  at::ScalarType dtype() const override { return dtype_; }
  std::vector<Site*> sites(std::string_view pattern) override;
  Parameters parameters(std::string_view pattern) override;
  Forward forward(const Batch& batch) override;
  /// Of the model as it stands, without prompts.
  Tensor image_features(const Batch& batch) override;
  /// Zeros: there are no questions.
  Tensor text_features(const Batch& batch) override;
  /// Token embeddings of the texts of the classes to choose from, once for each task of the batch.
  Tensor input_embeddings(const Batch& batch) override;
  RouteContext& route() override { return route_; }
  void set_training(bool training) override;
  bool tower_changed() const override { return route_.vision.length() > 0 || vision_.changed(); }

  /// [B, C]: scale · cosine to each class of the example's task, or what a head says; -inf where the task has
  /// fewer than C classes.
  Tensor scores(const Batch& batch);
  std::vector<std::int64_t> classify(const Batch& batch);  ///< [B] the best class
  std::string tower_hash();  ///< changes when any weight changes that makes an image embedding

  const std::shared_ptr<Clip>& clip() const { return clip_; }

 private:
  /// Which texts a row is compared with: class set, entry of route_.text or -1, routed task or -1.
  using Texts = std::tuple<std::size_t, std::int64_t, std::int64_t>;
  Texts texts_of(const Batch& batch, std::size_t row) const;
  Tensor class_embeddings(const Texts& texts);
  Tensor image_embeddings(const Batch& batch);
  Tensor stored_embeddings(const Batch& batch) const;

  std::shared_ptr<Clip> clip_;
  Watch vision_, text_;
  BackboneInfo info_;
  at::Device device_ = at::kCPU;
  at::ScalarType dtype_ = at::kFloat;
  RouteContext route_;
  std::vector<ClassTexts> sets_;         ///< each different list of texts once
  std::vector<std::size_t> set_of_;      ///< by task
  std::map<std::size_t, Tensor> plain_;  ///< embeddings of a set by the untouched text tower
  struct Known {
    Texts texts;
    std::vector<Tensor> prompts;
    bool bare;
    Tensor embeddings;
  };
  std::vector<Known> known_;  ///< of the evaluation at hand: prompts stay the same from batch to batch
  bool training_ = false;
};

}  // namespace mcit
