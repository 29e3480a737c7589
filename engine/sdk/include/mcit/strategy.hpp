#pragma once
/// The contract of a continual-learning method. The engine owns the loop; a strategy fills in moments of it.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mcit/backbone.hpp"
#include "mcit/params.hpp"
#include "mcit/types.hpp"

namespace mcit {

/// What the engine offers a strategy besides the backbone. Valid for the life of the strategy.
class MCIT_EXPORT Host {
 public:
  virtual ~Host();
  virtual void info(const std::string& message) = 0;
  virtual void warn(const std::string& message) = 0;
  /// A scalar of this step or stage, written to metrics.jsonl and plottable.
  virtual void record(const std::string& name, double value) = 0;
  /// A table of this stage, such as how often each expert was used; one of the same name replaces it.
  virtual void table(const std::string& name, const StageTable& table) = 0;
  /// A pass over data like that of the model's own pre-training, the suite's `probe`. Its examples are of no
  /// task (-1). @throws ConfigError when the suite has none
  virtual std::unique_ptr<Batches> probe() = 0;
  /// Random numbers on the CPU. Seeded anew from (seed, stage, step, hook) before every hook: the draw is the
  /// same after a resume, and there is no generator state to save.
  virtual at::Generator generator() = 0;
  /// A training example that was met before, for replay. @throws Error for a task not yet trained.
  virtual ExamplePtr example(std::int64_t task, std::int64_t index) = 0;
};

/// One optimizer step. `batch` may be changed in before_forward only.
struct Step {
  Task const& task;
  std::int64_t number = 0;      ///< in this stage, 0-based
  std::int64_t micro_step = 0;  ///< inside gradient accumulation
  Backbone& backbone;
  Batch batch;
  Forward out;                             ///< filled before loss()
  std::span<const Parameter> trainable{};  ///< what the optimizer holds; gradients are there in on_gradients
};

/// What a strategy chose for each example at inference, kept beside the prediction.
struct Selection {
  std::vector<std::int64_t> task;  ///< [B] selected task, or empty when the strategy selects nothing
};

/// One client's contribution to a federated round.
struct Upload {
  std::string client;
  std::int64_t examples = 0;
  StateDict state;
};

/// Optional facet: how a strategy takes part in federated rounds. Without it, what travels is the parameters
/// that require a gradient once the strategy is attached.
class MCIT_EXPORT Federated {
 public:
  virtual ~Federated();
  /// [client] Everything that leaves the device: tensors of state(), by their names there. Before the first
  /// before_task() all that may ever leave, the model that a federation begins with; later, tensors may stay
  /// away that this client did not change.
  virtual StateDict upload() = 0;
  /// [server] What `client` is given next, for hosts without a rule of their own; mcit federate has its
  /// rules.
  virtual StateDict aggregate(std::span<const Upload> round, std::string_view client) = 0;
  /// [client] Takes tensors upload() may hold, and what its rule adds. @throws CheckpointError for others
  virtual void download(const StateDict& update) = 0;
};

/// Hooks run on one thread, in the order they are declared. Any exception ends the run with a StrategyError
/// that names strategy, hook, stage and step. Constructed with (const Params&, Host&).
class MCIT_EXPORT Strategy {
 public:
  Strategy() = default;
  Strategy(const Strategy&) = delete;
  Strategy& operator=(const Strategy&) = delete;
  virtual ~Strategy();

  /// Once, first. No gradient.
  virtual void on_stream_begin(const StreamInfo&) {}
  /// The training stages; the default is one stage for each task, in stream order.
  virtual std::vector<Stage> plan(const StreamInfo& stream) const;
  /// Once: put adapters on sites, thaw base tensors. Adapters that start at zero leave the base's outputs
  /// bit-identical.
  virtual void attach(Backbone&) {}
  /// Before each stage: grow, freeze, choose what trains. The optimizer is made afterwards, from what
  /// parameters() says requires a gradient.
  virtual void before_task(const Task&, Batches&, Backbone&) {}
  /// Before each micro-step: mix replay in, choose adapters, set routing.
  virtual void before_forward(Step&) {}
  /// @param base mean cross-entropy over supervised rows; @return the loss that is differentiated.
  virtual Tensor loss(Step&, Tensor base) { return base; }
  /// After backward, before clipping and the optimizer: project or reweight `.grad` of step.trainable. No
  /// grad mode.
  virtual void on_gradients(Step&) {}
  /// After the optimizer: project the applied update, moving averages. No grad mode.
  virtual void after_step(Step&) {}
  /// After each stage: consolidate. The pass over the stage's data starts at its first example.
  virtual void after_task(const Task&, Batches&, Backbone&) {}
  /// Inference: set backbone.route() for these examples. No gradient. The task is unknown where route().task
  /// is -1; where it is not, the engine asks what the answer would be with that task.
  virtual Selection select(const Batch&, Backbone&) { return {}; }

  /// Everything that may be trained, with unique names. Those that require a gradient are optimized.
  virtual Parameters parameters() const = 0;
  /// All that load_state() needs to predict and to go on training exactly as this object would: name ->
  /// tensor.
  virtual StateDict state() const = 0;
  virtual void load_state(const StateDict& state) = 0;
  /// Numbers stored besides the base for inference after the last stage (buffers of examples are not
  /// counted).
  virtual std::int64_t stored_parameters() const;
  virtual Federated* federated() noexcept { return nullptr; }
};

/// The plan of multi-task learning: one stage named "joint" with the data of all tasks.
MCIT_EXPORT std::vector<Stage> joint_plan(const StreamInfo& stream);

/// What a plan must be: every stage names tasks of the stream. @throws Error naming stage and task
MCIT_EXPORT void check_plan(const std::vector<Stage>& stages, const StreamInfo& stream);

/// What a host takes: a name, and a full grid of finite values. @throws Error
MCIT_EXPORT void check_table(const std::string& name, const StageTable& table);

}  // namespace mcit
