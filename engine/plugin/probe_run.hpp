#pragma once
/// A strategy on the probe backbone, driven through a two-task stream one moment at a time. Private to this
/// library.

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "mcit/strategy.hpp"
#include "plugin/catalogue.hpp"
#include "plugin/probe_backbone.hpp"

namespace mcit {

/// A strategy's name and settings, and where it comes from.
struct ProbeSubject {
  const Catalogue& catalogue;
  std::string strategy;
  const Params& params;
};

/// Everything that a run needs to go on elsewhere.
struct ProbeSnapshot {
  std::size_t stage = 0;
  std::int64_t step = -1;  ///< -1 before the stage
  StateDict strategy;
  StateDict optimizer;
  std::set<std::string> trainable;  ///< parameters that required a gradient
};

/// Which tensor it is: its storage and where it begins there. Where the bytes lie changes when a state shares
/// them.
using Place = std::pair<const void*, std::int64_t>;
inline Place place_of(const Tensor& tensor) {
  return {tensor.storage().unsafeGetStorageImpl(), tensor.storage_offset()};
}

/// Every exception of the strategy leaves as "'ewc' in on_gradients, task 2 'counting', step 3: <cause>".
class ProbeRun {
 public:
  static constexpr std::int64_t kSteps = 6, kMicroSteps = 2, kBatch = 4;

  ProbeRun(const ProbeSubject& subject, std::uint64_t seed);
  ~ProbeRun();

  /// on_stream_begin, plan. @param other_future the strategy is told of another last task than comes
  void begin(bool other_future = false);
  void attach();
  /// One moment further: the beginning of a stage, a step, or the end of a stage with what follows it (all
  /// tasks predicted). @return false at the end of the stream
  bool advance();
  /// To where `step` steps of the stage are done; -1 before the stage. Stops later where there are fewer.
  void advance_to(std::size_t stage, std::int64_t step);
  void finish();  ///< to the end of the stream

  /// Select, then the logits of all test examples of all tasks at their answer rows.
  Tensor predict();
  Tensor predict(const Batch& batch);
  Tensor decode(const Batch& batch);
  Batch test_batch() const;  ///< all test examples, the tasks' mixed

  ProbeSnapshot snapshot();
  /// On a run that was begun and attached, as the engine resumes.
  void resume(const ProbeSnapshot& snapshot);

  StateDict state();
  void load_state(const StateDict& state);
  Parameters parameters();
  Federated* federated();
  bool is_causal() const;  ///< by its own word
  /// Runs a moment of the strategy: grad mode, a fresh seed, and its name on whatever is thrown.
  void guard(const char* hook, bool grad, const std::function<void()>& body);

  ProbeBackbone& backbone() { return backbone_; }
  const std::vector<Stage>& stages() const { return stages_; }
  /// What a run must not do but did, e.g. "a frozen tensor changed: …".
  const std::set<std::string>& violations() const { return violations_; }
  /// Trainable tensors that never had a gradient in a stage.
  const std::set<std::string>& unreached() const { return unreached_; }

 private:
  class ProbeHost;
  struct Slot;

  void open_stage();
  void enter_stage();
  void train_step();
  void leave_stage();
  void make_optimizer();
  void update();
  Tensor checked_loss(Step& step);
  Batch batch_of(std::int64_t index) const;

  ProbeSubject subject_;
  std::uint64_t seed_;
  ProbeBackbone backbone_;
  std::unique_ptr<ProbeHost> host_;
  StrategyPtr strategy_;
  std::vector<Stage> stages_;
  Task task_;
  std::vector<ExamplePtr> examples_;  ///< of the stage
  Parameters trainable_;
  std::vector<Slot> slots_;  ///< the optimizer's moments
  StateDict base_;           ///< copies of all base tensors as they were in the beginning
  StateDict frozen_;         ///< copies of what the strategy does not train in this stage
  std::set<Place> listed_;   ///< tensors that parameters() ever named
  std::set<std::string> reached_, unreached_, violations_;
  std::size_t stage_ = 0;
  std::int64_t step_ = -1;  ///< done ones; -1 before the stage
};

}  // namespace mcit
