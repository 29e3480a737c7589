// MmAP (Xin et al. 2024): text and image prompts made of one source, shared by groups of tasks whose
// gradients agree, and more of them for each task alone.
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "aligned_prompt.hpp"
#include "grouping.hpp"
#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "mcit/parts/subspace.hpp"
#include "mcit/parts/task_keys.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;
using mmap::AlignedPrompt;
using PromptPtr = std::unique_ptr<AlignedPrompt>;

constexpr const char* kGroups = "mmap.groups";        ///< [T] group of each task, -1 before its stage
constexpr const char* kCentroids = "mmap.centroids";  ///< [G, n] sums of the groups' unit gradients

/// What happens to a group's prompts when a task joins it that was not there when they were trained.
enum class SharedUpdate { frozen, ema, projected };

struct Settings {
  explicit Settings(const Params& params)
      : shape(mmap::PromptShape::read(params)),
        multi_task(params.choice("setting", "stream", {"stream", "multi_task"}) == "multi_task"),
        shared(params.flag("shared", true)),
        specific(params.flag("specific", true)),
        add(params.choice("combine", "concat", {"concat", "add"}) == "add"),
        bare(params.flag("bare", false)),
        before_text(params.choice("place", "after_first", {"after_first", "before_text"}) == "before_text"),
        grouping(params.choice("grouping", "cosine", {"cosine", "lookahead", "one", "each"})),
        threshold(params.number("group_threshold", grouping == "lookahead" ? 0.0 : 0.2)),
        probe(params.integer("probe_examples", 64)),
        ema(params.number("ema", 0.9)),
        energy(params.number("eps_old", 0.95)) {
    affinity.measure = grouping == "lookahead" ? mmap::GroupingOptions::Measure::lookahead
                                               : mmap::GroupingOptions::Measure::cosine;
    affinity.steps = params.integer("grouping_steps", affinity.steps);
    affinity.examples = params.integer("grouping_examples", affinity.examples);
    affinity.rate = params.number("grouping_rate", affinity.rate);
    const std::string update = params.choice("shared_update", "frozen", {"frozen", "ema", "projected"});
    shared_update = update == "frozen" ? SharedUpdate::frozen
                    : update == "ema"  ? SharedUpdate::ema
                                       : SharedUpdate::projected;
    given =
        params.choice("task_at_test", multi_task ? "given" : "selected", {"given", "selected"}) == "given";
    const auto check = [](bool holds, const char* key, const char* what) {
      if (!holds) throw ConfigError(std::string("strategy.") + key, what);
    };
    check(shared || specific, "specific",
          "with neither shared nor specific prompts there is nothing to train");
    check(threshold >= -1.0 && threshold <= 1.0, "group_threshold", "must lie between -1 and 1");
    check(probe >= 1, "probe_examples", "must be at least 1");
    check(ema >= 0.0 && ema < 1.0, "ema", "must lie from 0 to below 1");
    check(energy > 0.0 && energy <= 1.0, "eps_old", "must lie above 0 and not above 1");
    check(affinity.steps >= 1, "grouping_steps", "must be at least 1");
    check(affinity.examples >= 1, "grouping_examples", "must be at least 1");
    check(affinity.rate > 0.0, "grouping_rate", "must be positive");
  }

  mmap::PromptShape shape;
  bool multi_task, shared, specific, add, bare, before_text, given = false;
  std::string grouping;
  mmap::GroupingOptions affinity;
  double threshold;
  std::int64_t probe;
  SharedUpdate shared_update = SharedUpdate::frozen;
  double ema, energy;
};

class MmAP final : public Strategy, public Causal, public DataParallel {
 public:
  MmAP(const Params& params, Host& host) : host_(host), settings_(params) {
    if (!settings_.given) keys_.emplace(params);
  }

  void on_stream_begin(const StreamInfo& stream) override {
    tasks_ = static_cast<std::int64_t>(stream.tasks.size());
    settings_.shape.fitted(stream.backbone);
  }

  std::vector<Stage> plan(const StreamInfo& stream) const override {
    return settings_.multi_task ? joint_plan(stream) : Strategy::plan(stream);
  }

  void attach(Backbone& backbone) override {
    info_ = backbone.info();
    settings_.shape = settings_.shape.fitted(info_);
    options_ = at::TensorOptions(backbone.dtype() == at::kDouble ? at::kDouble : at::kFloat)
                   .device(backbone.device());
    initial_ = make("mmap.initial");
    initial_->set_trainable(false);
    specific_.resize(static_cast<std::size_t>(tasks_));
    group_of_.assign(static_cast<std::size_t>(tasks_), -1);
    if (keys_) keys_->attach(backbone, tasks_, host_.generator());
  }

  /// Prompts for the tasks at hand and the group that each of them belongs to; only theirs train.
  void before_task(const Task& task, Batches& batches, Backbone& backbone) override {
    if (keys_) keys_->begin(task.tasks);
    const std::size_t known = shared_.size();
    if (settings_.shared && task.tasks.size() > 1)
      group_together(task, batches, backbone);
    else if (settings_.shared)
      join_group(task.tasks.front(), batches, backbone);
    for (const PromptPtr& prompt : specific_)
      if (prompt) prompt->set_trainable(false);
    for (const std::int64_t t : task.tasks)
      if (settings_.specific) specific_[static_cast<std::size_t>(t)] = make(specific_name(t));
    before_.reset();
    for (std::size_t g = 0; g < shared_.size(); ++g) {
      const bool mine = std::any_of(task.tasks.begin(), task.tasks.end(), [&](std::int64_t t) {
        return group_of_[static_cast<std::size_t>(t)] == static_cast<std::int64_t>(g);
      });
      if (!mine || g >= known) {
        shared_[g]->set_trainable(mine);
        continue;
      }
      shared_[g]->set_trainable(settings_.shared_update == SharedUpdate::ema);
      if (settings_.shared_update == SharedUpdate::projected)  // what the first block reads moves alone
        Tensor(shared_[g]->source(0)).set_requires_grad(true);
      if (settings_.shared_update != SharedUpdate::frozen) {
        joined_ = static_cast<std::int64_t>(g);
        before_ = make("mmap.before");
        before_->copy_from(*shared_[g]);
        before_->set_trainable(false);
      }
    }
  }

  void before_forward(Step& step) override {
    const at::AutoGradMode graph(true);  // the prompts are leaves of this micro-step
    insert(step.batch, step.backbone.route().task, step.backbone);
  }

  Tensor loss(Step& step, Tensor base) override {
    const Tensor align = keys_ ? keys_->loss(step.batch, step.backbone) : Tensor();
    return align.defined() ? base + align : base;
  }

  void on_gradients(Step&) override {
    if (projects()) step_start_ = source().detach().clone();
  }

  /// P_s ← P_s' + (P_s − P_s') (I − Q Qᵀ): no prompt of the group's earlier tasks moves within the space Q
  /// that their inputs use.
  void after_step(Step&) override {
    if (!projects()) return;
    const Tensor moved = source().detach() - step_start_;
    source().detach().copy_(step_start_ +
                            parts::project_off(moved, spaces_[static_cast<std::size_t>(joined_)]));
  }

  void after_task(const Task& task, Batches& batches, Backbone& backbone) override {
    if (keys_) keys_->finish(batches, backbone);
    if (before_ && settings_.shared_update == SharedUpdate::ema) keep_average();
    before_.reset();
    if (settings_.shared && settings_.shared_update == SharedUpdate::projected)
      grow_spaces(task, batches, backbone);
    if (settings_.shared) tell_groups();
  }

  Selection select(const Batch& batch, Backbone& backbone) override {
    std::vector<std::int64_t>& route = backbone.route().task;
    if (keys_) {
      route = keys_->choose(batch, backbone, route);
    } else {
      for (std::size_t b = 0; b < batch.size(); ++b) route[b] = batch.examples[b]->task;
    }
    insert(batch, route, backbone);
    return keys_ ? Selection{route} : Selection{};
  }

  Parameters parameters() const override {
    Parameters out;
    const auto add = [&](const Parameters& more) { out.insert(out.end(), more.begin(), more.end()); };
    for (const PromptPtr& prompt : shared_) add(prompt->parameters());
    for (const PromptPtr& prompt : specific_)
      if (prompt) add(prompt->parameters());
    if (keys_) add(keys_->parameters());
    return out;
  }

  std::int64_t stored_parameters() const override {
    std::int64_t total = keys_ ? keys_->size() : 0;
    for (const auto* prompts : {&shared_, &specific_})
      for (const PromptPtr& prompt : *prompts)
        if (prompt)
          for (const Parameter& p : prompt->parameters()) total += p.value.numel();
    return total;
  }

  StateDict state() const override {
    StateDict out = parts::state_of(kept());
    if (keys_) keys_->save(out);
    out[kGroups] = at::tensor(group_of_, at::kLong);
    out[kCentroids] = parts::state_copy(centroids_);
    for (std::size_t g = 0; g < spaces_.size(); ++g) out[space_name(g)] = parts::state_copy(spaces_[g]);
    return out;
  }

  /// Groups and prompts come with the tasks: a state may hold more of them than a fresh strategy.
  void load_state(const StateDict& state) override {
    parts::StateReader reader(state);
    const Tensor groups = reader.take(kGroups, at::kLong), centroids = reader.take(kCentroids, at::kDouble);
    if (groups.dim() != 1 || groups.size(0) != tasks_ || (groups < -1).any().item<bool>() ||
        (groups >= tasks_).any().item<bool>())
      throw CheckpointError(kGroups, "names other tasks or groups than can be here");
    if (centroids.dim() != 2) throw CheckpointError(kCentroids, "is no list of gradients");
    const std::int64_t count = tasks_ == 0 ? 0 : groups.max().item<std::int64_t>() + 1;
    while (static_cast<std::int64_t>(shared_.size()) < count) open_group();
    for (std::int64_t t = 0; t < tasks_; ++t)
      if (auto& prompt = specific_[static_cast<std::size_t>(t)];
          !prompt && reader.has(specific_name(t) + ".source.0"))
        prompt = make(specific_name(t));
    before_.reset();
    if (reader.has("mmap.before.source.0")) {
      before_ = make("mmap.before");
      before_->set_trainable(false);
    }
    parts::load_parameters(kept(), reader);
    if (keys_) keys_->load(reader);
    for (std::size_t g = 0; reader.has(space_name(g)); ++g) {
      const Tensor basis = reader.take(space_name(g), at::kDouble);
      if (basis.dim() != 2 || basis.size(0) != settings_.shape.source_width || basis.size(1) > basis.size(0))
        throw CheckpointError(space_name(g), "is no basis of the source's width");
      reader.then([this, g, basis] {
        if (spaces_.size() <= g) spaces_.resize(g + 1);
        spaces_[g] = basis.clone();
      });
    }
    reader.then([this, groups, centroids] {
      group_of_.assign(groups.const_data_ptr<std::int64_t>(), groups.const_data_ptr<std::int64_t>() + tasks_);
      centroids_ = centroids.clone();
      const auto newest =
          std::find_if(group_of_.rbegin(), group_of_.rend(), [](std::int64_t g) { return g >= 0; });
      joined_ = newest == group_of_.rend() ? -1 : *newest;
    });
    reader.commit();
  }

 private:
  static std::string specific_name(std::int64_t task) { return "mmap.task." + std::to_string(task); }
  static std::string space_name(std::size_t group) { return "mmap.space." + std::to_string(group); }

  PromptPtr make(const std::string& name) const {
    return std::make_unique<AlignedPrompt>(name, settings_.shape, info_, options_, host_.generator());
  }

  /// A group's prompts start where every group's do, at the prompts that affinities are measured with.
  std::size_t open_group() {
    shared_.push_back(make("mmap.group." + std::to_string(shared_.size())));
    shared_.back()->copy_from(*initial_);
    return shared_.size() - 1;
  }

  /// Everything that state() holds of prompts.
  Parameters kept() const {
    Parameters out;
    const auto add = [&](const PromptPtr& prompt) {
      if (!prompt) return;
      const Parameters more = prompt->parameters();
      out.insert(out.end(), more.begin(), more.end());
    };
    add(initial_);
    for (const PromptPtr& prompt : shared_) add(prompt);
    for (const PromptPtr& prompt : specific_) add(prompt);
    add(before_);
    return out;
  }

  bool projects() const { return before_ && settings_.shared_update == SharedUpdate::projected; }
  const Tensor& source() const { return shared_[static_cast<std::size_t>(joined_)]->source(0); }

  /// Loss under one prompt for all tasks, which affinities and signatures are measured with.
  mmap::GroupLoss loss_under(const AlignedPrompt& prompt, Backbone& backbone) const {
    return [this, &prompt, &backbone](const Batch& batch) {
      RouteContext& route = backbone.route();
      route.clear();
      route.task.clear();
      for (const ExamplePtr& example : batch.examples) route.task.push_back(example->task);
      const std::vector<std::int64_t> all(batch.size(), 0);
      const auto only = [&](const std::vector<Tensor>& layers) {
        std::vector<Tensor> out;
        for (const Tensor& layer : layers) out.push_back(layer.unsqueeze(0));
        return out;
      };
      put(route, only(prompt.text()), only(prompt.image()), all);
      const Tensor loss = answer_loss(backbone.forward(batch));
      route.clear();
      return loss;
    };
  }

  /// Multi-task: the partition of all tasks that their gradients in one shared prompt favour.
  void group_together(const Task& task, Batches& batches, Backbone& backbone) {
    std::vector<std::vector<ExamplePtr>> data(task.tasks.size());
    Batch batch;
    constexpr std::int64_t kBatch = 256;
    for (batches.rewind(kBatch); batches.next(batch);)
      for (const ExamplePtr& example : batch.examples) {
        const auto at = std::find(task.tasks.begin(), task.tasks.end(), example->task);
        data[static_cast<std::size_t>(at - task.tasks.begin())].push_back(example);
      }
    mmap::Partition partition(task.tasks.size(), 0);
    if (settings_.grouping == "each") {
      for (std::size_t i = 0; i < partition.size(); ++i) partition[i] = static_cast<std::int64_t>(i);
    } else if (settings_.grouping != "one") {
      const PromptPtr trial = make("mmap.trial");
      trial->copy_from(*initial_);
      const mmap::Affinity affinity = mmap::measure_affinity(trial->parameters(), data, settings_.affinity,
                                                             host_.generator(), loss_under(*trial, backbone));
      partition = mmap::best_partition(affinity, settings_.threshold);
      StageTable table;
      for (const std::int64_t t : task.tasks) table.rows.push_back("task " + std::to_string(t + 1));
      table.columns = table.rows;
      table.values = affinity;
      host_.table("affinity", table);
    }
    for (std::size_t i = 0; i < partition.size(); ++i) {
      while (static_cast<std::int64_t>(shared_.size()) <= partition[i]) open_group();
      group_of_[static_cast<std::size_t>(task.tasks[i])] = partition[i];
    }
  }

  /// Stream: the group whose gradients point most nearly where this task's do, or a new one.
  void join_group(std::int64_t task, Batches& batches, Backbone& backbone) {
    std::int64_t group = -1;
    if (settings_.grouping == "each" || (settings_.grouping == "one" && shared_.empty())) {
      group = static_cast<std::int64_t>(open_group());
    } else if (settings_.grouping == "one") {
      group = 0;
    } else {
      const Tensor own = signature(batches, backbone);
      double best = settings_.threshold;
      for (std::size_t g = 0; g < shared_.size(); ++g) {
        const Tensor sum = centroids_[static_cast<std::int64_t>(g)];
        const double cosine = (sum.dot(own) / sum.norm().clamp_min(1e-300)).item<double>();
        host_.record("cosine_to_group_" + std::to_string(g + 1), cosine);
        if (cosine < best) continue;
        best = cosine;
        group = static_cast<std::int64_t>(g);
      }
      if (group < 0) {
        group = static_cast<std::int64_t>(open_group());
        centroids_ = centroids_.numel() == 0 ? own.unsqueeze(0) : at::cat({centroids_, own.unsqueeze(0)});
      } else {
        centroids_[group] += own;
      }
    }
    group_of_[static_cast<std::size_t>(task)] = group;
  }

  /// The direction of the task's gradient in the initial prompts, over examples spread through its data.
  Tensor signature(Batches& batches, Backbone& backbone) const {
    constexpr std::int64_t kBatch = 32;
    initial_->set_trainable(true);
    Tensor sum;
    parts::visit_spread(batches, settings_.probe, kBatch, [&](const Batch& batch) {
      const Tensor g =
          mmap::gradient_signature(initial_->parameters(), batch, loss_under(*initial_, backbone));
      sum = sum.defined() ? sum + g : g;
    });
    initial_->set_trainable(false);
    return sum / sum.norm().clamp_min(1e-300);
  }

  /// P ← ema · P_before + (1 − ema) · P_trained
  void keep_average() {
    const at::NoGradGuard no_grad;
    const Parameters now = shared_[static_cast<std::size_t>(joined_)]->parameters(),
                     before = before_->parameters();
    for (std::size_t i = 0; i < now.size(); ++i)
      now[i].value.detach().mul_(1.0 - settings_.ema).add_(before[i].value, settings_.ema);
  }

  /// Q of the group grows by the directions that slices of the task's inputs use: a row of P_l is K_l's
  /// numbers times one row of P_s, slice by slice.
  void grow_spaces(const Task& task, Batches& batches, Backbone& backbone) {
    const at::NoGradGuard no_grad;
    constexpr std::int64_t kBatch = 32, kExamples = 256;
    const std::int64_t width = settings_.shape.source_width;
    spaces_.resize(shared_.size(), at::zeros({width, 0}, at::TensorOptions(at::kDouble)));
    std::vector<parts::SecondMoment> moments(shared_.size(), parts::SecondMoment(width));
    parts::visit_spread(batches, kExamples, kBatch, [&](const Batch& batch) {
      std::map<std::int64_t, Batch> parts_of;
      for (const ExamplePtr& example : batch.examples)
        parts_of[group_of_[static_cast<std::size_t>(example->task)]].examples.push_back(example);
      for (const auto& [group, own] : parts_of)
        moments[static_cast<std::size_t>(group)].add(backbone.input_embeddings(own).reshape({-1, width}));
    });
    for (const std::int64_t t : task.tasks) {
      const auto g = static_cast<std::size_t>(group_of_[static_cast<std::size_t>(t)]);
      spaces_[g] = parts::grown_subspace(spaces_[g], moments[g].mean(), settings_.energy);
    }
  }

  void tell_groups() const {
    StageTable table;
    for (std::size_t g = 0; g < shared_.size(); ++g)
      table.columns.push_back("group " + std::to_string(g + 1));
    for (std::size_t t = 0; t < group_of_.size(); ++t) {
      if (group_of_[t] < 0) continue;
      table.rows.push_back("task " + std::to_string(t + 1));
      table.values.emplace_back(shared_.size(), 0.0);
      table.values.back()[static_cast<std::size_t>(group_of_[t])] = 1.0;
    }
    host_.table("groups", table);
    host_.record("groups", static_cast<double>(shared_.size()));
  }

  void put(RouteContext& route, std::vector<Tensor> text, std::vector<Tensor> image,
           const std::vector<std::int64_t>& entry) const {
    const auto place = settings_.before_text ? Prompts::Place::before_text : Prompts::Place::after_first;
    route.text = {std::move(text), place, entry, settings_.bare};
    route.vision = {std::move(image), Prompts::Place::after_first, entry, false};
  }

  /// The prompts of each row's task: its group's and its own, side by side or added up. Rows of a task that
  /// was not trained yet read the initial prompts: every row of a batch has as many.
  void insert(const Batch& batch, const std::vector<std::int64_t>& tasks, Backbone& backbone) {
    if (shared_.empty() && std::none_of(specific_.begin(), specific_.end(),
                                        [](const PromptPtr& prompt) { return prompt != nullptr; }))
      return;
    std::vector<std::int64_t> distinct, entry;
    for (std::size_t b = 0; b < batch.size(); ++b) {
      const std::int64_t task = trained(tasks[b]) ? tasks[b] : -1;
      const auto at = std::find(distinct.begin(), distinct.end(), task);
      entry.push_back(at - distinct.begin());
      if (at == distinct.end()) distinct.push_back(task);
    }
    std::vector<std::vector<Tensor>> text, image;
    for (const std::int64_t task : distinct) {
      const auto [shared, specific] = prompts_of(task);
      text.push_back(combined(shared ? shared->text() : std::vector<Tensor>{},
                              specific ? specific->text() : std::vector<Tensor>{}));
      image.push_back(combined(shared ? shared->image() : std::vector<Tensor>{},
                               specific ? specific->image() : std::vector<Tensor>{}));
    }
    put(backbone.route(), stacked(text), stacked(image), entry);
  }

  bool trained(std::int64_t task) const {
    if (task < 0) return false;
    const auto t = static_cast<std::size_t>(task);
    return settings_.specific ? specific_[t] != nullptr : group_of_[t] >= 0;
  }

  std::pair<const AlignedPrompt*, const AlignedPrompt*> prompts_of(std::int64_t task) const {
    const AlignedPrompt *shared = nullptr, *specific = nullptr;
    if (settings_.shared)
      shared = task < 0 ? initial_.get()
                        : shared_[static_cast<std::size_t>(group_of_[static_cast<std::size_t>(task)])].get();
    if (settings_.specific)
      specific = task < 0 ? initial_.get() : specific_[static_cast<std::size_t>(task)].get();
    return {shared, specific};
  }

  std::vector<Tensor> combined(std::vector<Tensor> shared, const std::vector<Tensor>& specific) const {
    if (shared.empty()) return specific;
    for (std::size_t i = 0; i < specific.size(); ++i)
      shared[i] = settings_.add ? shared[i] + specific[i] : at::cat({shared[i], specific[i]});
    return shared;
  }

  /// [P, b, width] a block
  static std::vector<Tensor> stacked(const std::vector<std::vector<Tensor>>& of_tasks) {
    std::vector<Tensor> out;
    for (std::size_t layer = 0; layer < of_tasks.front().size(); ++layer) {
      std::vector<Tensor> rows;
      for (const auto& own : of_tasks) rows.push_back(own[layer]);
      out.push_back(at::stack(rows));
    }
    return out;
  }

  Host& host_;
  Settings settings_;
  std::optional<parts::TaskKeys> keys_;  ///< where a task must be chosen at inference
  BackboneInfo info_;
  at::TensorOptions options_;
  std::int64_t tasks_ = 0;
  PromptPtr initial_;                ///< never trained
  std::vector<PromptPtr> shared_;    ///< by group
  std::vector<PromptPtr> specific_;  ///< by task; null before its stage
  std::vector<std::int64_t> group_of_;
  Tensor centroids_ = at::zeros({0, 0}, at::TensorOptions(at::kDouble));
  PromptPtr before_;            ///< an old group's prompts before the stage that joined it
  std::int64_t joined_ = -1;    ///< that group
  std::vector<Tensor> spaces_;  ///< [d_s, k] by group: Q
  Tensor step_start_;           ///< a projected source before the optimizer's step
};

}  // namespace

MCIT_PLUGIN("mcit-mmap", MCIT_VERSION,
            mcit::strategy<MmAP>(
                "mmap", "MmAP: aligned text and image prompts, shared by groups of tasks and one's own"))
