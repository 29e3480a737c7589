#include "plugin/probe_run.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/random.hpp"
#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "plugin/probe_stream.hpp"

namespace mcit {
namespace {

constexpr double kLearningRate = 0.02, kBeta1 = 0.9, kBeta2 = 0.999, kEpsilon = 1e-8;

Tensor copy(const Tensor& tensor) { return tensor.detach().clone(); }

void seed_default_generator(std::uint64_t seed) {
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  const std::lock_guard lock(generator.mutex());
  generator.set_current_seed(seed);
}

std::vector<std::int64_t> tasks_of(const Batch& batch) {
  std::vector<std::int64_t> tasks;
  for (const ExamplePtr& example : batch.examples) tasks.push_back(example->task);
  return tasks;
}

}  // namespace

class ProbeRun::ProbeHost final : public Host {
 public:
  explicit ProbeHost(std::uint64_t seed)
      : seed_(seed), generator_(at::make_generator<at::CPUGeneratorImpl>()) {}

  void info(const std::string&) override {}
  void warn(const std::string&) override {}
  void record(const std::string& name, double) override {
    if (name.empty()) throw Error("host.record", "a scalar needs a name");
  }
  void table(const std::string& name, const StageTable& table) override { check_table(name, table); }
  std::unique_ptr<Batches> probe() override {
    return std::make_unique<parts::ExampleBatches>(probe_stream().front().test);
  }
  at::Generator generator() override {
    if (pending_) generator_.set_current_seed(*std::exchange(pending_, std::nullopt));
    return generator_;
  }
  ExamplePtr example(std::int64_t task, std::int64_t index) override {
    if (!met.contains(task))
      throw Error("host.example", "task " + std::to_string(task) + " was not trained yet");
    const auto& train = probe_stream()[static_cast<std::size_t>(task)].train;
    if (index < 0 || index >= static_cast<std::int64_t>(train.size()))
      throw Error("host.example",
                  "task " + std::to_string(task) + " has no training example " + std::to_string(index));
    return train[static_cast<std::size_t>(index)];
  }
  /// A hook begins: its draws depend on where it stands alone.
  void enter(const char* hook) { pending_ = derive(seed_, {"strategy", hook, stage, step}); }

  std::set<std::int64_t> met;
  std::int64_t stage = -1, step = -1;

 private:
  std::uint64_t seed_;
  at::Generator generator_;
  std::optional<std::uint64_t> pending_;
};

/// Where AdamW is with one parameter.
struct ProbeRun::Slot {
  Tensor mean, square;
  std::int64_t steps = 0;
};

ProbeRun::ProbeRun(const ProbeSubject& subject, std::uint64_t seed)
    : subject_(subject), seed_(seed), host_(std::make_unique<ProbeHost>(seed)) {
  // Whoever draws from the process's generator instead of the host's gets other numbers in every run, as in
  // life.
  static std::uint64_t runs = 0;
  seed_default_generator(derive(++runs, {"unseeded"}));
  for (const Parameter& p : backbone_.parameters("all")) base_[p.name] = copy(p.value);
  host_->enter("create");
  strategy_ = subject_.catalogue.create(subject_.strategy, subject_.params, *host_);
}

ProbeRun::~ProbeRun() = default;

void ProbeRun::guard(const char* hook, bool grad, const std::function<void()>& body) {
  host_->enter(hook);
  const at::AutoGradMode mode(grad);
  std::string cause = "threw something that is no std::exception";
  try {
    return body();
  } catch (const UnsupportedBackbone&) {
    throw;
  } catch (const std::exception& e) {
    cause = cause_of(e);
  } catch (...) {  // `cause` says it
  }
  std::string where = "'" + subject_.strategy + "' in " + hook;
  if (host_->stage >= 0) where += ", task " + std::to_string(host_->stage + 1) + " '" + task_.name + "'";
  if (host_->step >= 0) where += ", step " + std::to_string(host_->step);
  throw StrategyError(where, cause);
}

void ProbeRun::begin(bool other_future) {
  StreamInfo stream{{}, seed_, backbone_.info()};
  for (const ProbeTask& task : probe_stream()) stream.tasks.push_back(task.info);
  if (other_future) stream.tasks.back() = {"another task", 3, 2, {"never", "always"}};
  guard("on_stream_begin", false, [&] { strategy_->on_stream_begin(stream); });
  std::vector<Stage> stages;
  guard("plan", false, [&] {
    stages = strategy_->plan(stream);
    check_plan(stages, stream);
  });
  stages_ = std::move(stages);
}

void ProbeRun::attach() {
  guard("attach", false, [&] { strategy_->attach(backbone_); });
}

bool ProbeRun::advance() {
  if (stage_ == stages_.size()) return false;
  if (step_ < 0) {
    enter_stage();
    step_ = 0;
  } else if (step_ < kSteps && !trainable_.empty()) {
    train_step();
    ++step_;
  } else {
    leave_stage();
    step_ = -1;
    ++stage_;
  }
  return true;
}

void ProbeRun::advance_to(std::size_t stage, std::int64_t step) {
  while ((stage_ < stage || (stage_ == stage && step_ < step)) && advance()) {
  }
}

void ProbeRun::finish() {
  while (advance()) {
  }
  for (const Parameter& p : backbone_.parameters("all"))
    if (!listed_.contains(place_of(p.value)) && !p.value.equal(base_.at(p.name)))
      violations_.insert(p.name + " of the backbone changed, but parameters() never named it");
}

void ProbeRun::open_stage() {
  const Stage& stage = stages_[stage_];
  examples_.clear();
  for (const std::int64_t task : stage.tasks) {
    const auto& train = probe_stream()[static_cast<std::size_t>(task)].train;
    examples_.insert(examples_.end(), train.begin(), train.end());
    host_->met.insert(task);
  }
  task_ = {static_cast<std::int64_t>(stage_), stage.name, stage.tasks, kSteps};
  host_->stage = task_.index;
}

void ProbeRun::enter_stage() {
  open_stage();
  parts::ExampleBatches batches(examples_);
  guard("before_task", true, [&] { strategy_->before_task(task_, batches, backbone_); });
  make_optimizer();
}

void ProbeRun::make_optimizer() {
  trainable_.clear();
  slots_.clear();
  frozen_.clear();
  reached_.clear();
  for (const Parameter& p : parameters()) {
    listed_.insert(place_of(p.value));
    if (p.value.requires_grad()) {
      trainable_.push_back(p);
      slots_.push_back({at::zeros_like(p.value.detach()), at::zeros_like(p.value.detach()), 0});
    } else {
      frozen_[p.name] = copy(p.value);
    }
  }
}

Batch ProbeRun::batch_of(std::int64_t index) const {
  Batch batch;
  for (std::int64_t i = 0; i < kBatch; ++i)
    batch.examples.push_back(examples_[static_cast<std::size_t>(index * kBatch + i) * 7 % examples_.size()]);
  return batch;
}

Tensor ProbeRun::checked_loss(Step& step) {
  Tensor loss;
  guard("loss", true, [&] {
    loss = strategy_->loss(step, answer_loss(step.out));
    if (!loss.defined() || loss.numel() != 1) throw Error("", "the loss is no single number");
    if (!std::isfinite(loss.item<double>())) throw Error("", "the loss is not finite");
    if (!loss.requires_grad()) throw Error("", "the loss does not depend on anything that is trained");
  });
  return loss;
}

void ProbeRun::train_step() {
  host_->step = step_;
  backbone_.set_training(true);
  for (const Parameter& p : trainable_) p.value.mutable_grad().reset();
  Step step{
      .task = task_, .number = step_, .backbone = backbone_, .batch = {}, .out = {}, .trainable = trainable_};
  for (step.micro_step = 0; step.micro_step < kMicroSteps; ++step.micro_step) {
    const std::int64_t index = step_ * kMicroSteps + step.micro_step;
    step.batch = batch_of(index);
    backbone_.route().task = tasks_of(step.batch);
    backbone_.route().memo.clear();
    backbone_.route().clear();
    seed_default_generator(derive(seed_, {"dropout", task_.index, index}));
    guard("before_forward", false, [&] { strategy_->before_forward(step); });
    guard("the forward pass", true, [&] { step.out = backbone_.forward(step.batch); });
    const Tensor loss = checked_loss(step);
    guard("the backward pass", true, [&] { (loss / static_cast<double>(kMicroSteps)).backward(); });
    backbone_.route().clear();
  }
  guard("on_gradients", false, [&] { strategy_->on_gradients(step); });
  update();
  guard("after_step", false, [&] { strategy_->after_step(step); });
  backbone_.set_training(false);
  host_->step = -1;
}

/// AdamW without weight decay (Loshchilov and Hutter 2019).
void ProbeRun::update() {
  const at::NoGradGuard no_grad;
  for (std::size_t i = 0; i < trainable_.size(); ++i) {
    const Tensor& value = trainable_[i].value;
    const Tensor& grad = value.grad();
    if (!grad.defined()) continue;
    reached_.insert(trainable_[i].name);
    Slot& slot = slots_[i];
    ++slot.steps;
    slot.mean.mul_(kBeta1).add_(grad, 1.0 - kBeta1);
    slot.square.mul_(kBeta2).addcmul_(grad, grad, 1.0 - kBeta2);
    const auto steps = static_cast<double>(slot.steps);
    const Tensor mean = slot.mean / (1.0 - std::pow(kBeta1, steps)),
                 square = slot.square / (1.0 - std::pow(kBeta2, steps));
    Tensor(value).sub_(kLearningRate * mean / (square.sqrt() + kEpsilon));
  }
}

void ProbeRun::leave_stage() {
  for (const Parameter& p : parameters()) {
    const auto kept = frozen_.find(p.name);
    if (kept != frozen_.end() && !p.value.equal(kept->second))
      violations_.insert(p.name + " required no gradient in stage '" + task_.name +
                         "' but changed while it was trained");
  }
  for (const Parameter& p : trainable_)
    if (!reached_.contains(p.name)) unreached_.insert(p.name);
  parts::ExampleBatches batches(examples_);
  guard("after_task", true, [&] { strategy_->after_task(task_, batches, backbone_); });
  for (const Parameter& p : trainable_) p.value.mutable_grad().reset();
  guard("stored_parameters", false, [&] {
    if (strategy_->stored_parameters() < 0) throw Error("", "is negative");
  });
  predict();
}

Batch ProbeRun::test_batch() const {
  Batch batch;
  for (std::size_t i = 0; i < probe_stream().front().test.size(); ++i)
    for (const ProbeTask& task : probe_stream()) batch.examples.push_back(task.test[i]);
  return batch;
}

Tensor ProbeRun::predict() { return predict(test_batch()); }

Tensor ProbeRun::predict(const Batch& batch) {
  Tensor logits;
  const at::NoGradGuard no_grad;
  backbone_.route().task.assign(batch.size(), -1);
  backbone_.route().memo.clear();
  backbone_.route().clear();
  guard("select", false, [&] {
    const Selection selection = strategy_->select(batch, backbone_);
    if (!selection.task.empty() && selection.task.size() != batch.size())
      throw Error("", "chose " + std::to_string(selection.task.size()) + " tasks for " +
                          std::to_string(batch.size()) + " examples");
    for (const std::int64_t task : selection.task)
      if (task < -1 || task >= static_cast<std::int64_t>(probe_stream().size()))
        throw Error("", "chose task " + std::to_string(task) + " of a stream of " +
                            std::to_string(probe_stream().size()));
  });
  guard("the forward pass", false, [&] { logits = backbone_.forward(batch).logits; });
  return logits;
}

Tensor ProbeRun::decode(const Batch& batch) {
  Tensor logits;
  backbone_.route().task.assign(batch.size(), -1);
  backbone_.route().memo.clear();
  backbone_.route().clear();
  guard("select", false, [&] { strategy_->select(batch, backbone_); });
  guard("decoding", false, [&] { logits = backbone_.decode_answers(batch); });
  return logits;
}

StateDict ProbeRun::state() {
  StateDict out;
  guard("state", false, [&] {
    for (const auto& [name, tensor] : strategy_->state()) {
      if (!tensor.defined()) throw Error(name, "is no tensor");
      out[name] = copy(tensor);
    }
  });
  return out;
}

void ProbeRun::load_state(const StateDict& state) {
  guard("load_state", false, [&] { strategy_->load_state(state); });
}

Parameters ProbeRun::parameters() {
  Parameters out;
  guard("parameters", false, [&] { out = strategy_->parameters(); });
  return out;
}

Federated* ProbeRun::federated() { return strategy_->federated(); }
bool ProbeRun::is_causal() const { return dynamic_cast<const Causal*>(strategy_.get()) != nullptr; }

ProbeSnapshot ProbeRun::snapshot() {
  ProbeSnapshot out{stage_, step_, state(), {}, {}};
  if (step_ < 0) return out;
  for (std::size_t i = 0; i < trainable_.size(); ++i) {
    out.optimizer[trainable_[i].name + ".mean"] = copy(slots_[i].mean);
    out.optimizer[trainable_[i].name + ".square"] = copy(slots_[i].square);
    out.optimizer[trainable_[i].name + ".steps"] = at::scalar_tensor(slots_[i].steps, at::kLong);
  }
  for (const Parameter& p : parameters())
    if (p.value.requires_grad()) out.trainable.insert(p.name);
  return out;
}

void ProbeRun::resume(const ProbeSnapshot& snapshot) {
  stage_ = snapshot.stage;
  step_ = snapshot.step;
  for (std::size_t i = 0; i < stage_; ++i)
    host_->met.insert(stages_[i].tasks.begin(), stages_[i].tasks.end());
  if (step_ >= 0) open_stage();
  load_state(snapshot.strategy);
  if (step_ < 0) return;
  for (const Parameter& p : parameters())
    Tensor(p.value).set_requires_grad(snapshot.trainable.contains(p.name));
  make_optimizer();
  for (std::size_t i = 0; i < trainable_.size(); ++i) {
    const auto part = [&](const char* suffix) {
      const auto found = snapshot.optimizer.find(trainable_[i].name + suffix);
      if (found == snapshot.optimizer.end())
        throw Error(trainable_[i].name, "is trained after the resume, but was not before");
      return found->second.clone();
    };
    slots_[i] = {part(".mean"), part(".square"), part(".steps").item<std::int64_t>()};
  }
}

}  // namespace mcit
