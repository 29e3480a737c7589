#pragma once
/// Keys of tasks among frozen image and text features, and the choice of a task by them at inference.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "mcit/params.hpp"
#include "mcit/parts/state_reader.hpp"
#include "mcit/strategy.hpp"

namespace mcit::parts {

/// Unit features of a batch's pictures and prompts, [B, F] each; rows of `image` without a picture are 0.
struct TaskFeatures {
  Tensor image, text;
};

/// One image key and one text key a task. Features are frozen, so the best key under
///
///     L = λ mean_b (1 − cos(e_img, k_img)) + (1 − cos(e_txt, k_txt))
///
/// is the mean of the unit features, up to its length: `keys = "mean"` takes that mean, "learned" descends L.
/// A task is chosen for each example by argmax_t cos(e_img, k_img^t) + cos(e_txt, k_txt^t); an example
/// without a picture is judged by its text alone.
class MCIT_EXPORT TaskKeys {
 public:
  /// Settings keys ("learned", "mean"), key_lambda (λ, 1.0), key_features ("both", "image", "text").
  /// @throws ConfigError for a value out of range
  explicit TaskKeys(const Params& params);

  /// @throws ConfigError when the backbone has no CLIP towers
  void attach(const Backbone& backbone, std::int64_t tasks, const at::Generator& generator);

  TaskFeatures features(const Batch& batch, Backbone& backbone) const;

  /// Only these tasks' keys train from now on, and they may be chosen.
  void begin(const std::vector<std::int64_t>& tasks);
  /// L of the batch, each example against its own task's keys; undefined with keys = "mean".
  Tensor loss(const Batch& batch, Backbone& backbone) const;
  /// One pass over a stage's examples, after which the closed form is exact.
  void finish(Batches& batches, Backbone& backbone);

  /// Chooses a task for each example whose entry in `known` is -1. @return [B]
  std::vector<std::int64_t> choose(const Batch& batch, Backbone& backbone,
                                   const std::vector<std::int64_t>& known) const;

  bool learned() const { return learned_; }
  Parameters parameters() const;  ///< "task_key.image.<task>", ...; empty with keys = "mean"
  std::int64_t size() const;      ///< numbers of the keys of all tasks begun
  void save(StateDict& state) const;
  void load(StateReader& reader);
  /// [T, F] unit keys; rows of tasks not begun are 0.
  TaskFeatures keys() const;

 private:
  bool learned_, image_, text_;
  double lambda_;
  std::vector<Tensor> image_keys_, text_keys_;  ///< [F] a task, leaves
  Tensor image_sum_, text_sum_;                 ///< [T, F] float64: sums of unit features
  Tensor begun_;                                ///< [T] int64: whether a task was begun
};

}  // namespace mcit::parts
