// BranchLoRA (Zhang et al. 2025): one shared A, branches B behind a sparse router, branches that earlier
// tasks used most frozen, a router for each task and a selector that picks it.
#include <algorithm>
#include <optional>

#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/expert_mixture.hpp"
#include "mcit/parts/learner.hpp"
#include "mcit/parts/task_keys.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;
using parts::ExpertMixture;

constexpr const char* kLayout = "branch.layout";  ///< [sites, 1 + T]: branches, then those each router knows
constexpr const char* kFrozen = "branch.frozen";  ///< [sites, most branches]
constexpr const char* kStages = "branch.stages";  ///< stages begun

struct Settings {
  explicit Settings(const Params& params)
      : lora(parts::LoraOptions::read(params)),
        freeze(params.flag("freeze", true)),
        task_routers(params.flag("task_routers", true)),
        grow(params.flag("grow_branches", false)),
        copy_router(params.choice("router_init", "fresh", {"fresh", "previous"}) == "previous"),
        freeze_a_after(params.integer("freeze_A_after", 0)),
        probe(params.integer("probe_examples", 256)) {
    mixture.shared_down = params.flag("shared_A", true);
    mixture.top_k = 2;
    mixture.reads = Reads::first_row;
    mixture.separate_up = true;
    mixture = parts::MixtureOptions::read(params, mixture);
    mixture.check(lora);
    const std::int64_t k = mixture.top_k == 0 ? mixture.experts : mixture.top_k;
    freeze_k = params.integer("freeze_k", k);
    min_tunable = params.integer("min_tunable", k);
    const auto check = [](bool holds, const char* key, const char* what) {
      if (!holds) throw ConfigError(std::string("strategy.") + key, what);
    };
    check(freeze_k >= 1 && freeze_k <= mixture.experts, "freeze_k",
          "must lie between 1 and the number of experts");
    check(min_tunable >= 0 && min_tunable <= mixture.experts, "min_tunable",
          "must lie between 0 and the number of experts");
    check(freeze_a_after >= 0, "freeze_A_after", "must not be negative");
    check(probe >= 1, "probe_examples", "must be at least 1");
  }

  /// With nothing held back, so many disjoint tasks freeze every branch.
  void check_stream(std::size_t stages) const {
    const auto later = static_cast<std::int64_t>(stages) - 1;
    if (!freeze || grow || min_tunable > 0 || later * freeze_k < mixture.experts) return;
    throw ConfigError("strategy.min_tunable",
                      "with 0, every one of the " + std::to_string(mixture.experts) +
                          " branches may be frozen after " +
                          std::to_string((mixture.experts + freeze_k - 1) / freeze_k) + " of the " +
                          std::to_string(stages) + " stages",
                      "set min_tunable to at least 1, grow_branches = true, or more experts");
  }

  parts::LoraOptions lora;
  parts::MixtureOptions mixture;
  bool freeze, task_routers, grow, copy_router;
  std::int64_t freeze_a_after, probe, freeze_k, min_tunable;
};

parts::Learner branch_learner(const Params& params, const Settings& settings) {
  return parts::Learner(params, "branch_lora",
                        [mixture = settings.mixture, lora = settings.lora](
                            const Site& site, const at::Generator& generator) -> AdapterPtr {
                          return std::make_shared<ExpertMixture>(site, mixture, lora, generator);
                        });
}

class BranchLora final : public parts::LearnerStrategy, public Causal, public DataParallel {
 public:
  BranchLora(const Params& params, Host& host) : BranchLora(params, host, Settings(params)) {}

  void on_stream_begin(const StreamInfo& stream) override {
    settings_.check_stream(plan(stream).size());
    tasks_ = static_cast<std::int64_t>(stream.tasks.size());
  }

  void attach(Backbone& backbone) override {
    LearnerStrategy::attach(backbone);
    for (const auto& entry : learner().adapters().entries()) {
      sites_.push_back({entry.site->name(), std::static_pointer_cast<ExpertMixture>(entry.adapter), {}});
      sites_.back().frozen.assign(static_cast<std::size_t>(settings_.mixture.experts), false);
    }
    if (keys_) keys_->attach(backbone, tasks_, host().generator());
  }

  /// A router and keys for the tasks at hand; what trains is they, A, and the branches that are not frozen.
  void before_task(const Task& task, Batches&, Backbone&) override {
    const at::Generator generator = host().generator();
    for (BranchSite& site : sites_) {
      if (settings_.grow)
        while (site.tunable() < std::max<std::int64_t>(1, settings_.mixture.top_k)) site.grow(generator);
      if (settings_.task_routers)
        for (const std::int64_t t : task.tasks) {
          const auto& known = site.mixture->routers();
          const std::int64_t previous = settings_.copy_router && !known.empty() ? known.rbegin()->first : -1;
          site.mixture->add_router(t, previous, generator);
        }
    }
    ++stages_;
    set_trainable(task);
    if (keys_) keys_->begin(task.tasks);
  }

  Tensor loss(Step& step, Tensor base) override {
    const Tensor align = keys_ ? keys_->loss(step.batch, step.backbone) : Tensor();
    return align.defined() ? base + align : base;
  }

  void after_task(const Task&, Batches& batches, Backbone& backbone) override {
    if (keys_) keys_->finish(batches, backbone);
    parts::measure_usage(mixtures(), batches, backbone, settings_.probe);
    if (settings_.freeze)
      for (BranchSite& site : sites_) site.freeze(settings_.freeze_k, settings_.min_tunable);
    std::vector<std::string> names;
    for (const BranchSite& site : sites_) names.push_back(site.name);
    host().table("branches", parts::usage_table(names, mixtures()));
    std::int64_t frozen = 0, all = 0;
    for (const BranchSite& site : sites_) {
      all += static_cast<std::int64_t>(site.frozen.size());
      frozen += static_cast<std::int64_t>(site.frozen.size()) - site.tunable();
    }
    host().record("frozen_branches", static_cast<double>(frozen) / static_cast<double>(all));
  }

  Selection select(const Batch& batch, Backbone& backbone) override {
    if (!keys_) return {};
    std::vector<std::int64_t>& route = backbone.route().task;
    route = keys_->choose(batch, backbone, route);
    return {route};
  }

  Parameters parameters() const override {
    Parameters out = LearnerStrategy::parameters();
    if (!keys_) return out;
    const Parameters keys = keys_->parameters();
    out.insert(out.end(), keys.begin(), keys.end());
    return out;
  }

  std::int64_t stored_parameters() const override {
    return LearnerStrategy::stored_parameters() + (keys_ ? keys_->size() : 0);
  }

  /// Branches and routers come with the tasks: a state may hold more of them than a fresh strategy.
  void load_state(const StateDict& state) override {
    fit(state);
    LearnerStrategy::load_state(state);
  }

 private:
  /// One linear layer's branches.
  struct BranchSite {
    std::string name;
    std::shared_ptr<ExpertMixture> mixture;
    std::vector<bool> frozen;

    std::int64_t tunable() const { return std::count(frozen.begin(), frozen.end(), false); }
    void grow(const at::Generator& generator) {
      mixture->add_expert(generator);
      frozen.push_back(false);
    }
    /// F ← F ∪ topk(c, k), as long as `least` branches stay tunable.
    void freeze(std::int64_t k, std::int64_t least) {
      const Tensor& c = mixture->usage();
      const Tensor order = at::argsort(c, /*stable=*/true, /*dim=*/0, /*descending=*/true);
      for (std::int64_t i = 0; i < std::min(k, order.size(0)); ++i) {
        const auto branch = static_cast<std::size_t>(order[i].item<std::int64_t>());
        if (!frozen[branch] && tunable() > least) frozen[branch] = true;
      }
    }
  };

  BranchLora(const Params& params, Host& host, const Settings& settings)
      : LearnerStrategy(host, branch_learner(params, settings)), settings_(settings) {
    if (settings_.task_routers) keys_.emplace(params);
  }

  void set_trainable(const Task& task) {
    const bool a = settings_.freeze_a_after == 0 || stages_ <= settings_.freeze_a_after;
    for (const BranchSite& site : sites_) {
      site.mixture->set_down_trainable(a);
      for (std::size_t j = 0; j < site.frozen.size(); ++j)
        site.mixture->expert_up(static_cast<std::int64_t>(j)).set_requires_grad(!site.frozen[j]);
      for (const auto& [t, router] : site.mixture->routers())
        router.set_requires_grad(std::find(task.tasks.begin(), task.tasks.end(), t) != task.tasks.end());
    }
  }

  std::vector<std::shared_ptr<ExpertMixture>> mixtures() const {
    std::vector<std::shared_ptr<ExpertMixture>> out;
    for (const BranchSite& site : sites_) out.push_back(site.mixture);
    return out;
  }

  Tensor layout() const {
    Tensor out =
        at::zeros({static_cast<std::int64_t>(sites_.size()), 1 + tasks_}, at::TensorOptions(at::kLong));
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      const Tensor row = out[static_cast<std::int64_t>(i)];
      row[0] = sites_[i].mixture->experts();
      for (const auto& [t, router] : sites_[i].mixture->routers()) row[1 + t] = router.size(0);
    }
    return out;
  }

  /// Makes room for the branches and routers that `state` speaks of.
  void fit(const StateDict& state) {
    constexpr std::int64_t kMostBranches = 1 << 16;
    parts::StateReader reader(state);
    const Tensor wanted = reader.take(kLayout, at::kLong), have = layout();
    const bool grows = wanted.sizes() == have.sizes() && (wanted >= have).all().item<bool>() &&
                       (wanted <= kMostBranches).all().item<bool>();
    if (!grows)
      throw CheckpointError(kLayout, "does not fit the branches here",
                            "the state belongs to another strategy, backbone or other settings");
    const at::Generator generator = host().generator();
    for (std::size_t i = 0; i < sites_.size(); ++i) {
      const Tensor row = wanted[static_cast<std::int64_t>(i)];
      for (std::int64_t t = 0; t < tasks_; ++t) {  // a router knows the branches that were there when it came
        const auto branches = row[1 + t].item<std::int64_t>();
        if (branches == 0 || sites_[i].mixture->routers().contains(t)) continue;
        while (sites_[i].mixture->experts() < branches) sites_[i].grow(generator);
        sites_[i].mixture->add_router(t, -1, generator);
      }
      while (sites_[i].mixture->experts() < row[0].item<std::int64_t>()) sites_[i].grow(generator);
    }
  }

  void save(StateDict& state) const override {
    if (keys_) keys_->save(state);
    state[kLayout] = layout();
    state[kStages] = at::scalar_tensor(stages_, at::kLong);
    std::size_t most = 0;
    for (const BranchSite& site : sites_) most = std::max(most, site.frozen.size());
    Tensor frozen = at::zeros({static_cast<std::int64_t>(sites_.size()), static_cast<std::int64_t>(most)},
                              at::TensorOptions(at::kLong));
    for (std::size_t i = 0; i < sites_.size(); ++i)
      for (std::size_t j = 0; j < sites_[i].frozen.size(); ++j)
        if (sites_[i].frozen[j]) frozen[static_cast<std::int64_t>(i)][static_cast<std::int64_t>(j)] = 1;
    state[kFrozen] = frozen;
  }

  void load(parts::StateReader& reader) override {
    if (keys_) keys_->load(reader);
    reader.take(kLayout, at::kLong);
    const Tensor frozen = reader.take(kFrozen, at::kLong), stages = reader.take(kStages, at::kLong);
    if (frozen.dim() != 2 || frozen.size(0) != static_cast<std::int64_t>(sites_.size()) ||
        stages.numel() != 1)
      throw CheckpointError(kFrozen, "has another shape than the branches here");
    for (const BranchSite& site : sites_)
      if (frozen.size(1) < static_cast<std::int64_t>(site.frozen.size()))
        throw CheckpointError(kFrozen, "knows fewer branches than " + site.name + " has");
    reader.then([this, frozen, stages] {
      stages_ = stages.item<std::int64_t>();
      for (std::size_t i = 0; i < sites_.size(); ++i)
        for (std::size_t j = 0; j < sites_[i].frozen.size(); ++j)
          sites_[i].frozen[j] =
              frozen[static_cast<std::int64_t>(i)][static_cast<std::int64_t>(j)].item<std::int64_t>() != 0;
    });
  }

  Settings settings_;
  std::optional<parts::TaskKeys> keys_;  ///< with task routers: chooses among them
  std::vector<BranchSite> sites_;
  std::int64_t tasks_ = 0, stages_ = 0;
};

}  // namespace

MCIT_PLUGIN("mcit-branch-lora", MCIT_VERSION,
            mcit::strategy<BranchLora>(
                "branch_lora",
                "BranchLoRA: shared A, sparse branches that freeze, a router and a key for each task"))
