// Experience replay: a reservoir of earlier tasks' examples, some of which join every batch.
#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/learner.hpp"
#include "mcit/parts/reservoir.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

class Replay final : public parts::LearnerStrategy, public Causal, public DataParallel {
 public:
  Replay(const Params& params, Host& host)
      : LearnerStrategy(host, parts::Learner::lora(params)),
        replay_batch_(params.integer("replay_batch", 16)),
        buffer_(params.integer("buffer", 200), 0) {
    if (replay_batch_ < 1)
      throw ConfigError("strategy.replay_batch", "must be at least 1",
                        "use the strategy 'sequential' for no replay");
  }

  void on_stream_begin(const StreamInfo& stream) override {
    buffer_ = parts::Reservoir(buffer_.capacity(), stream.seed);
  }

  /// B ∪ M: the loss is then the mean over the supervised tokens of both. Every process draws the same M and
  /// takes its share of it.
  void before_forward(Step& step) override {
    for (ExamplePtr& example :
         peers().share(buffer_.draw(replay_batch_, {step.task.index, step.number, step.micro_step}, host())))
      step.batch.examples.push_back(std::move(example));
  }

  /// Each training example of the stage is offered once, after the stage: while it trains, the buffer holds
  /// earlier stages only.
  void after_task(const Task&, Batches& batches, Backbone&) override {
    for (Batch batch; batches.next(batch);)
      for (const ExamplePtr& example : batch.examples) buffer_.add(example);
  }

 private:
  void save(StateDict& state) const override { buffer_.save(state, "replay"); }
  void load(parts::StateReader& reader) override { buffer_.load(reader, "replay"); }

  std::int64_t replay_batch_;
  parts::Reservoir buffer_;
};

}  // namespace

MCIT_PLUGIN("mcit-replay", MCIT_VERSION,
            mcit::strategy<Replay>("replay", "Experience replay from a reservoir of earlier examples"))
