#pragma once
/// A backbone of a few linear sites, in float64 by default, with a host, batches and a training step beside
/// it: small enough that every oracle of a strategy can be written out by hand.

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

#include <map>
#include <memory>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "mcit/strategy.hpp"

namespace mcit::fake {

constexpr std::int64_t kHidden = 8, kInner = 12, kVocabulary = 11, kVision = 4, kLayers = 2, kImageToken = 1,
                       kFeatures = 6;

inline at::Generator generator(std::uint64_t seed) { return at::make_generator<at::CPUGeneratorImpl>(seed); }

/// What a site computes, as Adapter's comment writes it: W x + b + Σ mix(A drop(x), R x) B, one adapter after
/// another.
inline Tensor site_output(const Site& site, const Tensor& x, RouteContext& route, bool training = false) {
  Tensor y = at::linear(x, site.weight(), site.bias());
  for (const AdapterPtr& adapter : site.active()) {
    const Tensor dropped =
        training && adapter->dropout() > 0.0 ? at::dropout(x, adapter->dropout(), true) : x;
    const Tensor z = at::linear(dropped, adapter->down());
    const Tensor rows = adapter->route(route);
    const Tensor logits =
        rows.defined() ? at::linear(router_input(x, adapter->reads(), route.rows), rows) : Tensor();
    y = y + at::linear(adapter->mix(z, logits, route, site.name()), adapter->up());
  }
  return y;
}

class FakeBackbone final : public Backbone {
 public:
  explicit FakeBackbone(at::ScalarType type = at::kDouble) : type_(type) {
    at::Generator random = generator(20);
    const auto weight = [&](std::int64_t rows, std::int64_t columns) {
      return (at::randn({rows, columns}, random, at::TensorOptions(at::kDouble)) /
              std::sqrt(static_cast<double>(columns)))
          .to(type_);
    };
    embedding_ = weight(kVocabulary, kHidden) * 2.0;
    head_ = weight(kVocabulary, kHidden);
    for (std::int64_t i = 0; i < kLayers; ++i) {
      const std::string layer = "language_model.model.layers." + std::to_string(i) + ".mlp.";
      sites_.push_back(std::make_unique<Site>(layer + "up_proj", weight(kInner, kHidden)));
      sites_.push_back(std::make_unique<Site>(layer + "down_proj", weight(kHidden, kInner)));
    }
    sites_.push_back(std::make_unique<Site>("multi_modal_projector.linear_1", weight(kHidden, kVision),
                                            weight(1, kHidden)[0]));
    info_ = {"fake", kLayers, kHidden, kVocabulary, 1, kVision, 1, kFeatures};
  }

  const BackboneInfo& info() const override { return info_; }
  at::Device device() const override { return at::kCPU; }
  at::ScalarType dtype() const override { return type_; }
  RouteContext& route() override { return route_; }
  void set_training(bool training) { training_ = training; }

  std::vector<Site*> sites(std::string_view pattern) override {
    std::vector<Site*> out;
    for (const auto& site : sites_)
      if (matches(pattern, site->name())) out.push_back(site.get());
    if (out.empty()) throw ConfigError(std::string(pattern), "matches no linear site of the model");
    return out;
  }

  Parameters parameters(std::string_view pattern) override {
    Parameters out;
    const auto offer = [&](const std::string& name, const Tensor& value, const char* group) {
      if (matches(pattern, name)) out.push_back({name, value, group});
    };
    offer("language_model.model.embed_tokens.weight", embedding_, "base");
    offer("language_model.lm_head.weight", head_, "base");
    for (const auto& site : sites_) {
      const char* group = site->name().starts_with("multi_modal_projector") ? "connector" : "base";
      offer(site->name() + ".weight", site->weight(), group);
      if (site->bias().defined()) offer(site->name() + ".bias", site->bias(), group);
    }
    if (out.empty()) throw ConfigError(std::string(pattern), "matches no tensor of the model");
    return out;
  }

  /// Rows read the mean of their sequence so far, then each block adds down(tanh(up(x))).
  Forward forward(const Batch& batch) override {
    std::vector<Tensor> logits;
    std::vector<std::int64_t> targets, sequence;
    const Prompts text = route_.text.each();
    for (std::size_t b = 0; b < batch.size(); ++b) {
      const Example& example = *batch.examples[b];
      const std::int64_t added = text.length(),
                         rows = static_cast<std::int64_t>(example.tokens.size()) + added;
      RouteContext route;
      route.task = {b < route_.task.size() ? route_.task[b] : -1};
      route.rows = {at::zeros({rows}, at::kLong),
                    at::arange(rows, at::kLong),
                    at::zeros({1}, at::kLong),
                    at::full({1}, rows - 1, at::kLong),
                    at::full({1}, added + example.prompt_length - 1, at::kLong),
                    {rows}};
      const Prompts vision = route_.vision.each();
      Tensor x = embedded(example, vision.length() == 0
                                       ? Tensor()
                                       : vision.layers[0][static_cast<std::int64_t>(b)].mean(0, true));
      if (added > 0) x = at::cat({text.layers[0][static_cast<std::int64_t>(b)], x});  // in front
      x = x + x.cumsum(0) / at::arange(1, rows + 1, x.options().requires_grad(false)).unsqueeze(1);
      for (std::size_t i = 0; i < kLayers; ++i)
        x = x + site_output(*sites_[2 * i + 1], at::tanh(site_output(*sites_[2 * i], x, route, training_)),
                            route, training_);
      const Tensor scores = at::linear(x, head_);
      for (std::size_t row = 0; row < example.labels.size(); ++row) {
        if (example.labels[row] < 0) continue;
        logits.push_back(scores[static_cast<std::int64_t>(row) + added]);
        targets.push_back(example.labels[row]);
        sequence.push_back(static_cast<std::int64_t>(b));
      }
    }
    return {at::stack(logits), at::tensor(targets, at::kLong), at::tensor(sequence, at::kLong)};
  }

  /// The embeddings before the mean, prompts excluded.
  Tensor input_embeddings(const Batch& batch) override {
    const at::NoGradGuard no_grad;
    std::vector<Tensor> rows;
    for (const ExamplePtr& example : batch.examples) rows.push_back(embedded(*example));
    return at::cat(rows);
  }
  /// Unit vectors around a direction of the example's task; rows without a picture are 0.
  Tensor image_features(const Batch& batch) override {
    std::vector<Tensor> rows;
    for (const ExamplePtr& e : batch.examples)
      rows.push_back(e->image.empty() ? at::zeros({kFeatures}) : feature("picture", *e));
    return at::stack(rows);
  }
  Tensor text_features(const Batch& batch) override {
    std::vector<Tensor> rows;
    for (const ExamplePtr& e : batch.examples) rows.push_back(feature("text", *e));
    return at::stack(rows);
  }

 private:
  static bool matches(std::string_view pattern, const std::string& name) {
    if (pattern == "all") return true;
    if (pattern == "decoder") return name.starts_with("language_model.");
    if (pattern == "connector") return name.starts_with("multi_modal_projector.");
    if (pattern.size() > 2 && pattern.front() == '/' && pattern.back() == '/')
      return std::regex_search(name, std::regex(std::string(pattern.substr(1, pattern.size() - 2))));
    return name.starts_with("language_model.") && name.ends_with("." + std::string(pattern));
  }

  /// @param seen what prompts of the tower add to a picture, or undefined
  Tensor embedded(const Example& example, const Tensor& seen = {}) {
    const Tensor ids = at::tensor(example.tokens, at::kLong), x = at::embedding(embedding_, ids);
    return example.image.empty()
               ? x
               : at::where((ids == kImageToken).unsqueeze(1), connect(example.image, seen), x);
  }

  static Tensor feature(const std::string& kind, const Example& e) {
    const auto drawn = [&](const std::string& of) {
      return at::randn({kFeatures}, generator(std::hash<std::string>{}(kind + of)),
                       at::TensorOptions(at::kFloat));
    };
    const Tensor x =
        drawn(std::to_string(e.task)) + 0.3 * drawn(std::to_string(e.task) + "." + std::to_string(e.index));
    return x / x.norm();
  }

  /// The tower: a fixed function of the picture's name.
  Tensor connect(const std::string& image, const Tensor& seen) {
    Tensor picture =
        at::randn({1, kVision}, generator(std::hash<std::string>{}(image)), at::TensorOptions(at::kDouble))
            .to(type_);
    if (seen.defined()) picture = picture + seen;
    return site_output(*sites_.back(), picture, route_, training_);
  }

  at::ScalarType type_;
  Tensor embedding_, head_;
  std::vector<std::unique_ptr<Site>> sites_;
  BackboneInfo info_;
  RouteContext route_;
  bool training_ = false;
};

/// `count` examples of a task: three prompt tokens, a picture for every other example, one or two answer
/// tokens.
inline std::vector<ExamplePtr> make_task(std::int64_t task, std::int64_t count) {
  std::vector<ExamplePtr> out;
  at::Generator random = generator(static_cast<std::uint64_t>(1000 + task));
  for (std::int64_t i = 0; i < count; ++i) {
    auto example = std::make_shared<Example>();
    example->task = task;
    example->index = i;
    example->image = i % 2 == 0 ? "picture " + std::to_string(task * 1000 + i) : "";
    const std::int64_t length = 4 + i % 2;
    const Tensor ids = at::randint(2, kVocabulary, {length}, random, at::TensorOptions(at::kLong));
    example->tokens.assign(ids.const_data_ptr<std::int64_t>(), ids.const_data_ptr<std::int64_t>() + length);
    if (!example->image.empty()) example->tokens[0] = kImageToken;
    example->prompt_length = 3;
    example->labels.assign(example->tokens.size(), -100);
    for (std::size_t row = 2; row + 1 < example->tokens.size(); ++row)
      example->labels[row] = example->tokens[row + 1];
    out.push_back(std::move(example));
  }
  return out;
}

using FakeBatches = parts::ExampleBatches;

class FakeHost final : public Host {
 public:
  void info(const std::string&) override {}
  void warn(const std::string&) override {}
  void record(const std::string& name, double value) override { records.emplace_back(name, value); }
  void table(const std::string& name, const StageTable& table) override { tables[name] = table; }
  std::unique_ptr<Batches> probe() override { return std::make_unique<FakeBatches>(probe_data); }
  at::Generator generator() override { return fake::generator(seed); }
  ExamplePtr example(std::int64_t task, std::int64_t index) override {
    ++lookups;
    if (task >= trained) throw Error("example", "task " + std::to_string(task) + " is not yet trained");
    return tasks.at(task).at(static_cast<std::size_t>(index));
  }

  std::map<std::int64_t, std::vector<ExamplePtr>> tasks;
  std::int64_t trained = 0;  ///< tasks before this one may be looked up
  std::vector<std::pair<std::string, double>> records;
  std::map<std::string, StageTable> tables;
  std::vector<ExamplePtr> probe_data = make_task(-1, 12);
  std::int64_t lookups = 0;
  std::uint64_t seed = 5;
};

/// What the engine does for one strategy, with plain gradient descent: enough to see every hook at work.
class Run {
 public:
  Run(Strategy& strategy, FakeBackbone& backbone, FakeHost& host, std::int64_t tasks)
      : strategy_(strategy), backbone_(backbone), host_(host) {
    for (std::int64_t t = 0; t < tasks; ++t) {
      host.tasks[t] = make_task(t, 12);
      stream_.tasks.push_back({"task" + std::to_string(t), 12, 12, {}});
    }
    stream_.seed = 3;
    stream_.backbone = backbone.info();
    const at::NoGradGuard no_grad;
    strategy.on_stream_begin(stream_);
    stages_ = strategy.plan(stream_);
    strategy.attach(backbone);
  }

  /// Trains stage `index`, from step `first` on.
  void train(std::int64_t index, std::int64_t steps = 6) {
    begin(index, steps);
    for (std::int64_t number = 0; number < steps; ++number) step(index, number, steps);
    end(index, steps);
  }
  void begin(std::int64_t index, std::int64_t steps) {
    const std::vector<ExamplePtr> examples = data(index);
    FakeBatches batches(examples);
    strategy_.before_task(task(index, steps), batches, backbone_);
  }
  void end(std::int64_t index, std::int64_t steps) {
    const Stage& stage = stages_.at(static_cast<std::size_t>(index));
    for (const std::int64_t t : stage.tasks) host_.trained = std::max(host_.trained, t + 1);
    const std::vector<ExamplePtr> examples = data(index);
    FakeBatches batches(examples);
    strategy_.after_task(task(index, steps), batches, backbone_);
  }

  /// Two micro-steps of three examples, then θ ← θ − 0.05 g. @return the batches as the model saw them
  std::vector<Batch> step(std::int64_t index, std::int64_t number, std::int64_t steps) {
    constexpr double kRate = 0.05;
    const Task now = task(index, steps);
    const std::vector<ExamplePtr> examples = data(index);
    Parameters trainable = strategy_.parameters();
    std::erase_if(trainable, [](const Parameter& p) { return !p.value.requires_grad(); });
    for (const Parameter& p : trainable) p.value.mutable_grad().reset();
    Step step{
        .task = now, .number = number, .backbone = backbone_, .batch = {}, .out = {}, .trainable = trainable};
    std::vector<Batch> seen;
    for (step.micro_step = 0; step.micro_step < 2; ++step.micro_step) {
      step.batch.examples.clear();
      for (std::size_t i = 0; i < 3; ++i)
        step.batch.examples.push_back(
            examples[(static_cast<std::size_t>(number * 2 + step.micro_step) * 3 + i) % examples.size()]);
      backbone_.route().clear();
      backbone_.route().task.clear();
      for (const ExamplePtr& e : step.batch.examples) backbone_.route().task.push_back(e->task);
      {
        const at::NoGradGuard no_grad;
        strategy_.before_forward(step);
      }
      seen.push_back(step.batch);
      step.out = backbone_.forward(step.batch);
      const Tensor loss = strategy_.loss(step, answer_loss(step.out)) / 2.0;
      if (loss.requires_grad()) loss.backward();
    }
    const at::NoGradGuard no_grad;
    strategy_.on_gradients(step);
    for (const Parameter& p : trainable)
      if (p.value.grad().defined()) p.value.detach().sub_(p.value.grad() * kRate);
    strategy_.after_step(step);
    return seen;
  }

  std::vector<ExamplePtr> data(std::int64_t index) const {
    std::vector<ExamplePtr> out;
    for (const std::int64_t t : stages_.at(static_cast<std::size_t>(index)).tasks)
      out.insert(out.end(), host_.tasks.at(t).begin(), host_.tasks.at(t).end());
    return out;
  }
  Task task(std::int64_t index, std::int64_t steps) const {
    const Stage& stage = stages_.at(static_cast<std::size_t>(index));
    return {index, stage.name, stage.tasks, steps};
  }
  const std::vector<Stage>& stages() const { return stages_; }
  const StreamInfo& stream() const { return stream_; }

  /// Logits of the first examples of every task, without gradient.
  Tensor outputs() {
    const at::NoGradGuard no_grad;
    Batch batch;
    for (const auto& [t, examples] : host_.tasks)
      batch.examples.insert(batch.examples.end(), examples.begin(), examples.begin() + 4);
    backbone_.route().task.assign(batch.size(), -1);
    backbone_.route().clear();
    strategy_.select(batch, backbone_);
    return backbone_.forward(batch).logits;
  }

 private:
  Strategy& strategy_;
  FakeBackbone& backbone_;
  FakeHost& host_;
  StreamInfo stream_;
  std::vector<Stage> stages_;
};

}  // namespace mcit::fake
