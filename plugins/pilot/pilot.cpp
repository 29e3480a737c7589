// Pilot (Xiong et al. 2025): task- and client-specific adapters in the connector, pushed apart; then a
// mixture over the other tasks' adapters; LoRA in the decoder. README.md has the equations.
#include <algorithm>
#include <map>
#include <memory>

#include "connector_adapters.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "mcit/parts/learner.hpp"
#include "mcit/parts/lora.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;
using pilot::ConnectorAdapters;
using pilot::ConnectorOptions;

constexpr const char* kOwnKey = "pilot.key";   ///< mean features of this client's rows
constexpr const char* kPlace = "pilot.place";  ///< [2]: task at hand (-1: none), whether CT-MoA answers
constexpr const char* kGated = "pilot.gated";  ///< [tasks]: 1 where this client's W_g has trained
constexpr std::int64_t kFeatureBatch = 32;

void require(bool holds, const char* key, const char* what) {
  if (!holds) throw ConfigError(std::string("strategy.") + key, what);
}

struct Settings {
  explicit Settings(const Params& params)
      : lora(parts::LoraOptions::read(params)),
        targets(params.text("targets", "decoder")),
        freeze_a(params.flag("freeze_A", false)),
        width(params.integer("width", 0)),
        client(params.flag("client_adapter", true)),
        client_scale(params.number("client_scale", 1.0)),
        difference(params.number("difference_weight", 0.1)),
        difference_floor(params.number("difference_floor", 1.0)),
        ct_moa(params.flag("ct_moa", true)),
        own_in_gate(params.choice("gate_over", "others", {"others", "all"}) == "all"),
        mix_all(params.choice("mix_for", "all", {"all", "gated"}) == "all"),
        hold(params.choice("stage_2_trains", "task", {"task", "gate"}) == "gate"),
        first_rounds(params.integer("stage_1_rounds", 1)),
        second_rounds(params.integer("stage_2_rounds", 1)),
        alternate(params.choice("schedule", "sequence", {"sequence", "alternate"}) == "alternate"),
        nearest(params.choice("inference", "nearest", {"nearest", "own"}) == "nearest"),
        key_examples(params.integer("key_examples", 256)) {
    require(width >= 0, "width", "must not be negative");
    require(client_scale > 0.0, "client_scale", "must be positive");
    require(difference >= 0.0, "difference_weight", "must not be negative");
    require(difference_floor >= 0.0, "difference_floor", "must not be negative");
    require(first_rounds >= 0, "stage_1_rounds", "must not be negative");
    require(second_rounds >= 0, "stage_2_rounds", "must not be negative");
    require(first_rounds + second_rounds > 0, "stage_1_rounds", "and stage_2_rounds are both 0");
    require(key_examples >= 1, "key_examples", "must be at least 1");
  }

  /// Whether this step of a task belongs to stage 2. The task's steps are its rounds', all of one length.
  bool second(std::int64_t step, std::int64_t steps) const {
    const std::int64_t round = step * (first_rounds + second_rounds) / std::max<std::int64_t>(steps, 1);
    if (!ct_moa || second_rounds == 0) return false;
    if (alternate && first_rounds > 0) return round % 2 == 1;
    return round >= first_rounds;
  }

  parts::LoraOptions lora;
  std::string targets;
  bool freeze_a;
  std::int64_t width;
  bool client;
  double client_scale, difference, difference_floor;
  bool ct_moa, own_in_gate, mix_all, hold;
  std::int64_t first_rounds, second_rounds;
  bool alternate, nearest;
  std::int64_t key_examples;
};

/// LoRA alone: the pre-trained connector stays as it is.
parts::Learner decoder_lora(const Settings& settings) {
  const std::map<std::string, Params::Value> values{{"targets", settings.targets},
                                                    {"train_connector", false}};
  return parts::Learner(
      Params(values), "lora",
      [options = settings.lora](const Site& site, const at::Generator& generator) -> AdapterPtr {
        return std::make_shared<parts::Lora>(site, options, generator);
      });
}

class Pilot final : public parts::LearnerStrategy, public Federated, public DataParallel {
 public:
  Pilot(const Params& params, Host& host) : Pilot(host, Settings(params)) {}

  void on_stream_begin(const StreamInfo& stream) override {
    ConnectorOptions options{{},
                             settings_.width,
                             settings_.client,
                             settings_.client_scale,
                             settings_.difference_floor,
                             settings_.own_in_gate};
    for (const TaskInfo& task : stream.tasks) options.tasks.push_back(task.name);
    tasks_ = static_cast<std::int64_t>(options.tasks.size());
    connector_ = std::make_shared<ConnectorAdapters>(std::move(options));
  }

  void attach(Backbone& backbone) override {
    const std::int64_t features = backbone.info().feature_dim;
    if (settings_.nearest && features == 0)
      throw ConfigError("strategy.inference", "'nearest' needs a model folder with CLIP towers",
                        "set strategy.inference = \"own\"");
    LearnerStrategy::attach(backbone);
    connector_->attach(backbone, host().generator());
    if (settings_.freeze_a) freeze_a();
    keys_.clear();
    for (std::int64_t t = 0; t < tasks_; ++t) keys_.push_back(at::zeros({2 * features}, at::kFloat));
    own_key_ = at::zeros({2 * features}, at::kFloat);
    gated_.assign(static_cast<std::size_t>(tasks_), false);
    refresh();
  }

  void before_task(const Task& task, Batches& batches, Backbone& backbone) override {
    task_ = task.tasks.front();
    mixing_ = false;
    connector_->set_trainable(task_);
    refresh();
    if (settings_.nearest) measure_key(batches, backbone);
  }

  void before_forward(Step& step) override {
    mixing_ = settings_.second(step.number, step.task.steps);
    if (mixing_) gated_.at(static_cast<std::size_t>(task_)) = true;
    route(step.batch, step.backbone.route().task, settings_.difference > 0.0);
  }

  Tensor loss(Step&, Tensor base) override {
    if (settings_.difference == 0.0) return base;
    const Tensor difference = connector_->difference();
    return difference.defined() ? base + settings_.difference * difference : base;
  }

  void after_task(const Task&, Batches&, Backbone&) override { refresh(); }

  Selection select(const Batch& batch, Backbone& backbone) override {
    std::vector<std::int64_t>& tasks = backbone.route().task;
    tasks.resize(batch.size(), -1);
    if (std::find(tasks.begin(), tasks.end(), -1) != tasks.end()) choose(batch, backbone, tasks);
    route(batch, tasks, false);
    if (std::find(tasks.begin(), tasks.end(), -1) != tasks.end()) return {};  // nobody has trained yet
    return {tasks};
  }

  Parameters parameters() const override {
    Parameters out = LearnerStrategy::parameters();
    for (Parameter& p : connector_->parameters()) out.push_back(std::move(p));
    return out;
  }

  std::int64_t stored_parameters() const override {
    std::int64_t total = LearnerStrategy::stored_parameters();
    for (const Parameter& p : connector_->parameters()) total += p.value.numel();
    for (const Tensor& key : keys_) total += key.numel();
    return total;
  }

  Federated* federated() noexcept override { return this; }

  std::string obstacle() const override {
    return settings_.difference == 0.0 ? ""
                                       : "the difference loss is of all pictures of a batch together; set "
                                         "strategy.difference_weight = 0, or start one process";
  }

  /// LoRA, and of the connector this client's task alone; ψ_s and W_g never.
  StateDict upload() override {
    StateDict out = parts::state_of(learner().parameters());
    for (std::int64_t t = 0; t < tasks_; ++t) {
      if (task_ >= 0 && t != task_) continue;
      out.merge(parts::state_of(connector_->of_task(t)));
      if (settings_.nearest) out[key_name(t)] = parts::state_copy(t == task_ ? own_key_ : key(t));
    }
    return out;
  }

  /// Each tensor's mean over the clients that sent it, weighted by their examples.
  StateDict aggregate(std::span<const Upload> round, std::string_view) override {
    std::map<std::string, double> weight;
    std::map<std::string, at::ScalarType> type;
    StateDict sum;
    for (const Upload& upload : round)
      for (const auto& [name, tensor] : upload.state) {
        const double n = static_cast<double>(upload.examples);
        const Tensor part = tensor.to(at::kDouble) * n;
        weight[name] += n;
        type[name] = tensor.scalar_type();
        sum[name] = sum.contains(name) ? sum[name] + part : part;
      }
    for (auto& [name, tensor] : sum) {
      if (weight[name] <= 0.0) throw Error("pilot", "no client that sent '" + name + "' has an example");
      tensor = (tensor / weight[name]).to(type[name]);
    }
    return sum;
  }

  void download(const StateDict& update) override {
    parts::StateReader reader(update);
    for (const auto& [name, tensor] : shared())
      if (reader.has(name)) reader.copy(name, tensor);
    reader.then([this] { refresh(); });
    reader.commit();
  }

 private:
  Pilot(Host& host, const Settings& settings)
      : LearnerStrategy(host, decoder_lora(settings)), settings_(settings) {}

  std::string key_name(std::int64_t t) const { return connector_->prefix(t) + "key"; }
  const Tensor& key(std::int64_t t) const { return keys_.at(static_cast<std::size_t>(t)); }

  /// What a download may replace.
  StateDict shared() const {
    StateDict out;
    for (const Parameter& p : learner().parameters()) out[p.name] = p.value;
    for (std::int64_t t = 0; t < tasks_; ++t) {
      for (const Parameter& p : connector_->of_task(t)) out[p.name] = p.value;
      out[key_name(t)] = key(t);
    }
    return out;
  }

  void freeze_a() {
    for (const Parameter& p : learner().parameters())
      if (p.name.ends_with("lora_A.weight")) p.value.set_requires_grad(false);
  }

  void refresh() {
    known_.assign(static_cast<std::size_t>(tasks_), false);
    for (std::int64_t t = 0; t < tasks_; ++t) known_[static_cast<std::size_t>(t)] = connector_->touched(t);
  }

  /// Pictures go through the connector in the batch's order.
  void route(const Batch& batch, const std::vector<std::int64_t>& tasks, bool keep) {
    pilot::ConnectorRoute route{{}, known_, mixing_, keep};
    if (!settings_.mix_all) route.mixed = gated_;
    route.hold = mixing_ && settings_.hold;
    if (task_ >= 0) route.known[static_cast<std::size_t>(task_)] = true;
    for (std::size_t b = 0; b < batch.size(); ++b)
      if (!batch.examples[b]->image.empty()) route.tasks.push_back(tasks.at(b));
    connector_->route(std::move(route));
  }

  static Tensor features(const Batch& batch, Backbone& backbone) {
    return at::cat({backbone.image_features(batch), backbone.text_features(batch)}, 1)
        .to(at::kCPU, at::kFloat);
  }

  void measure_key(Batches& batches, Backbone& backbone) {
    const at::NoGradGuard no_grad;
    Tensor sum = at::zeros_like(own_key_);
    const std::int64_t count =
        parts::visit_spread(batches, settings_.key_examples, kFeatureBatch,
                            [&](const Batch& batch) { sum += features(batch, backbone).sum(0); });
    own_key_.copy_(sum / static_cast<double>(std::max<std::int64_t>(count, 1)));
    key(task_).copy_(own_key_);
  }

  /// Fills in the task of each example where it is -1: the client's own, or the one whose mean picture and
  /// text features are nearest, cos + cos.
  void choose(const Batch& batch, Backbone& backbone, std::vector<std::int64_t>& tasks) const {
    std::vector<std::int64_t> found(tasks.size(), settings_.nearest ? -1 : task_);
    std::vector<std::int64_t> met;
    std::vector<Tensor> rows;
    for (std::int64_t t = 0; settings_.nearest && t < tasks_; ++t) {
      if (key(t).count_nonzero().item<std::int64_t>() == 0) continue;
      const Tensor halves = key(t).view({2, -1});
      rows.push_back((halves / halves.norm(2, 1, true).clamp_min(1e-12)).flatten());
      met.push_back(t);
    }
    if (!met.empty()) {
      const Tensor nearest = at::mm(features(batch, backbone), at::stack(rows).t()).argmax(1).contiguous();
      for (std::size_t b = 0; b < found.size(); ++b)
        found[b] = met[static_cast<std::size_t>(nearest.const_data_ptr<std::int64_t>()[b])];
    }
    for (std::size_t b = 0; b < tasks.size(); ++b)
      if (tasks[b] < 0) tasks[b] = found[b];
  }

  void save(StateDict& state) const override {
    state.merge(parts::state_of(connector_->parameters()));
    for (std::int64_t t = 0; t < tasks_; ++t) state[key_name(t)] = parts::state_copy(key(t));
    state[kOwnKey] = parts::state_copy(own_key_);
    state[kPlace] = at::tensor(std::vector<std::int64_t>{task_, mixing_ ? 1 : 0}, at::kLong);
    state[kGated] = at::tensor(std::vector<std::int64_t>(gated_.begin(), gated_.end()), at::kLong);
  }

  void load(parts::StateReader& reader) override {
    parts::load_parameters(connector_->parameters(), reader);
    for (std::int64_t t = 0; t < tasks_; ++t) reader.copy(key_name(t), key(t));
    reader.copy(kOwnKey, own_key_);
    const Tensor place = reader.take(kPlace, at::kLong);
    if (place.numel() != 2 || place[0].item<std::int64_t>() < -1 || place[0].item<std::int64_t>() >= tasks_)
      throw CheckpointError(kPlace, "names no task of this stream");
    const Tensor gated = reader.take(kGated, at::kLong);
    if (gated.numel() != tasks_) throw CheckpointError(kGated, "is of another stream");
    reader.then([this, place, gated] {
      for (std::int64_t t = 0; t < tasks_; ++t)
        gated_[static_cast<std::size_t>(t)] = gated[t].item<std::int64_t>() != 0;
      task_ = place[0].item<std::int64_t>();
      mixing_ = place[1].item<std::int64_t>() != 0;
      refresh();
    });
  }

  Settings settings_;
  std::shared_ptr<ConnectorAdapters> connector_;
  std::int64_t tasks_ = 0, task_ = -1;
  bool mixing_ = false;
  std::vector<bool> known_;   ///< tasks whose MLP has been trained by somebody
  std::vector<bool> gated_;   ///< tasks in whose stage 2 this client took part
  std::vector<Tensor> keys_;  ///< [T] of [2 features]: means of picture and text embeddings, on the CPU
  Tensor own_key_;
};

}  // namespace

MCIT_PLUGIN("mcit-pilot", MCIT_VERSION,
            mcit::strategy<Pilot>(
                "pilot", "Pilot: task and client adapters in the connector, mixed across tasks; federated"))
