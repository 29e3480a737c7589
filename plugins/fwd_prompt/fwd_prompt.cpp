// Fwd-Prompt (Zheng et al. 2024): a pool of prompts whose updates stay inside the directions that the
// pre-trained model knows and outside of those that earlier tasks use.
#include <ATen/core/grad_mode.h>

#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "mcit/parts/prompt_pool.hpp"
#include "mcit/parts/subspace.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;
using parts::project_off;
using parts::project_onto;

// Orthonormal bases, float64, one direction a column, by their names in the state.
constexpr const char *kKnown = "space.known",  ///< Q_pre: what enters the pre-trained model's first block
    *kOld = "space.old",                       ///< Q_old: the same of earlier tasks
        *kOldImages = "space.image_keys", *kOldTexts = "space.text_keys";  ///< features of earlier tasks

Tensor no_directions(std::int64_t width) { return at::zeros({width, 0}, at::TensorOptions(at::kDouble)); }

class FwdPrompt final : public Strategy, public Causal, public DataParallel {
 public:
  FwdPrompt(const Params& params, Host& host)
      : host_(host),
        pool_(parts::PoolOptions::read(params)),
        mode_(params.choice("mode", "both", {"both", "residual", "pretrained", "off"})),
        project_gradient_(params.choice("project", "update", {"update", "gradient"}) == "gradient"),
        project_keys_(params.flag("project_keys", true)),
        before_text_(params.choice("place", "after_first", {"after_first", "before_text"}) == "before_text"),
        key_lambda_(params.number("key_lambda", 0.1)),
        energy_known_(params.number("eps_pre", 0.95)),
        energy_old_(params.number("eps_old", 0.95)),
        energy_keys_(params.number("eps_keys", 0.97)),
        blend_(params.number("blend", 1.0)),
        least_rank_(params.integer("min_rank", 1)),
        examples_(params.integer("subspace_examples", 768)) {
    const auto share = [](double value, const char* key) {
      if (!(value > 0.0 && value <= 1.0))
        throw ConfigError(std::string("strategy.") + key, "must lie above 0 and not above 1");
    };
    share(energy_known_, "eps_pre");
    share(energy_old_, "eps_old");
    share(energy_keys_, "eps_keys");
    if (!(blend_ >= 0.0 && blend_ <= 1.0)) throw ConfigError("strategy.blend", "must lie between 0 and 1");
    if (!(key_lambda_ >= 0.0)) throw ConfigError("strategy.key_lambda", "must not be negative");
    if (least_rank_ < 1) throw ConfigError("strategy.min_rank", "must be at least 1");
    if (examples_ < 1) throw ConfigError("strategy.subspace_examples", "must be at least 1");
  }

  void attach(Backbone& backbone) override {
    const BackboneInfo& info = backbone.info();
    if (info.feature_dim == 0)
      throw ConfigError("fwd_prompt", "drawing prompts needs image and text features",
                        "the model folder needs a clip/ folder beside its config.json");
    const auto type = backbone.dtype() == at::kDouble ? at::kDouble : at::kFloat;
    pool_.attach(info.hidden, info.feature_dim, at::TensorOptions(type).device(backbone.device()),
                 host_.generator());
    bases_[kKnown] = bases_[kOld] = no_directions(info.hidden);
    bases_[kOldImages] = bases_[kOldTexts] = no_directions(info.feature_dim);
  }

  /// Q_pre: the directions of what enters the first block on data like the model's own, before any task.
  void before_task(const Task& task, Batches&, Backbone& backbone) override {
    if (task.index > 0 || mode_ == "off" || mode_ == "residual") return;
    const std::unique_ptr<Batches> probe = host_.probe();
    const parts::SecondMoment moment = embedding_moment(*probe, backbone);
    bases_[kKnown] = parts::core_subspace(moment.mean(), energy_known_);
    free_.reset();
    host_.record("rank_pre", static_cast<double>(bases_[kKnown].size(1)));
    keep_spectrum(moment, "pretrained");
  }

  void before_forward(Step& step) override {
    const at::AutoGradMode graph(true);  // the prompts are leaves of this micro-step
    insert(step.batch, step.backbone);
  }

  Tensor loss(Step&, Tensor base) override {
    if (key_lambda_ == 0.0) return base;
    return base + key_lambda_ * pool_.key_loss(features_, chosen_);
  }

  /// The optimizer's step is projected, not its gradient: Adam rescales every coordinate, and so leaves the
  /// space that a projected gradient lies in.
  void on_gradients(Step&) override {
    for (const Parameter& p : projected_parameters()) {
      if (!project_gradient_)
        before_[p.name] = p.value.detach().clone();
      else if (p.value.grad().defined())
        p.value.mutable_grad().copy_(projected(p.value.grad(), p.name));
    }
  }

  /// θ ← θ_old + (θ − θ_old) P
  void after_step(Step&) override {
    if (project_gradient_) return;
    for (const Parameter& p : projected_parameters()) {
      const Tensor& before = before_.at(p.name);
      p.value.detach().copy_(before + projected(p.value.detach() - before, p.name));
    }
  }

  /// Q_old grows by the directions of this task's embeddings; the keys' spaces by those of its features.
  void after_task(const Task&, Batches& batches, Backbone& backbone) override {
    const at::NoGradGuard no_grad;
    const parts::SecondMoment moment = embedding_moment(batches, backbone);
    bases_[kOld] = parts::grown_subspace(bases_[kOld], moment.mean(), energy_old_);
    free_.reset();
    host_.record("rank_old", static_cast<double>(bases_[kOld].size(1)));
    keep_spectrum(moment, "task");
    if (project_keys_) grow_key_spaces(batches, backbone);
    chosen_.reset();
  }

  Selection select(const Batch& batch, Backbone& backbone) override {
    insert(batch, backbone);
    chosen_.reset();
    return {};
  }

  Parameters parameters() const override { return pool_.parameters(); }
  StateDict state() const override {
    StateDict out = parts::state_of(parameters());
    for (const auto& [name, basis] : bases_) out[name] = parts::state_copy(basis);
    return out;
  }
  void load_state(const StateDict& state) override {
    parts::StateReader reader(state);
    parts::load_parameters(parameters(), reader);
    for (const auto& [name, here] : bases_) {
      const Tensor basis = reader.take(name, at::kDouble);
      if (basis.dim() != 2 || basis.size(0) != here.size(0) || basis.size(1) > basis.size(0))
        throw CheckpointError(name, "is no basis of " + std::to_string(here.size(0)) + " dimensions");
      reader.then([this, key = name, basis] { bases_[key] = basis.clone(); });
    }
    reader.commit();
    free_.reset();
  }
  std::int64_t stored_parameters() const override {
    std::int64_t total = 0;
    for (const Parameter& p : parameters()) total += p.value.numel();
    return total;
  }

 private:
  Parameters projected_parameters() const {
    if (mode_ == "off") return {};
    Parameters out = pool_.parameters();
    if (!project_keys_) std::erase_if(out, [](const Parameter& p) { return p.name != "pool.prompts"; });
    return out;
  }

  /// x P. P is I for mode "off"; I − Q_old Q_oldᵀ for "residual" and for keys; Q_pre Q_preᵀ for "pretrained";
  /// for "both" the projector onto what of Q_pre lies outside of Q_old, blended with the residual's. One
  /// projector after the other would be none.
  Tensor projected(const Tensor& x, const std::string& parameter) {
    const Tensor rows = x.reshape({-1, x.size(-1)});
    if (parameter != "pool.prompts")
      return project_off(rows, bases_.at(parameter == "pool.image_keys" ? kOldImages : kOldTexts));
    const Tensor &known = bases_.at(kKnown), &old = bases_.at(kOld);
    if (mode_ == "residual") return project_off(rows, old).view(x.sizes());
    if (mode_ == "pretrained") return project_onto(rows, known).view(x.sizes());
    if (!free_.defined()) free_ = parts::outside_subspace(known, old);
    if (free_.size(1) < least_rank_) return project_off(rows, old).view(x.sizes());
    const Tensor inside = project_onto(rows, free_);
    if (blend_ == 1.0) return inside.view(x.sizes());
    return (blend_ * inside + (1.0 - blend_) * project_off(rows, old)).view(x.sizes());
  }

  parts::TaskFeatures features_of(const Batch& batch, Backbone& backbone) const {
    const at::NoGradGuard no_grad;
    return {pool_.options().image ? backbone.image_features(batch) : Tensor(),
            pool_.options().text ? backbone.text_features(batch) : Tensor()};
  }

  void insert(const Batch& batch, Backbone& backbone) {
    features_ = features_of(batch, backbone);
    chosen_ = pool_.choose(features_);
    Prompts& prompts = backbone.route().text;
    prompts.layers = {pool_.gather(chosen_)};
    prompts.place = before_text_ ? Prompts::Place::before_text : Prompts::Place::after_first;
  }

  parts::SecondMoment embedding_moment(Batches& batches, Backbone& backbone) const {
    constexpr std::int64_t kBatch = 32;
    parts::SecondMoment moment(backbone.info().hidden);
    parts::visit_spread(batches, examples_, kBatch,
                        [&](const Batch& batch) { moment.add(backbone.input_embeddings(batch)); });
    return moment;
  }

  void grow_key_spaces(Batches& batches, Backbone& backbone) {
    constexpr std::int64_t kBatch = 32;
    parts::SecondMoment image(backbone.info().feature_dim), text(backbone.info().feature_dim);
    parts::visit_spread(batches, examples_, kBatch, [&](const Batch& batch) {
      const parts::TaskFeatures e = features_of(batch, backbone);
      if (e.image.defined()) image.add(e.image);
      if (e.text.defined()) text.add(e.text);
    });
    bases_[kOldImages] = parts::grown_subspace(bases_[kOldImages], image.mean(), energy_keys_);
    bases_[kOldTexts] = parts::grown_subspace(bases_[kOldTexts], text.mean(), energy_keys_);
  }

  /// Share of the energy that the leading directions hold, for the run's plots.
  void keep_spectrum(const parts::SecondMoment& moment, const std::string& row) {
    const Tensor values = parts::spectrum(moment.mean()).first;
    const Tensor shares = values.cumsum(0) / values.sum().clamp_min(1e-300);
    StageTable table{{row}, {}, {{}}, StageTable::Plot::lines};
    for (std::int64_t i = 0; i < shares.size(0); ++i) {
      table.columns.push_back(std::to_string(i + 1));
      table.values[0].push_back(shares[i].item<double>());
    }
    host_.table("energy_" + row, table);
  }

  Host& host_;
  parts::PromptPool pool_;
  std::string mode_;
  bool project_gradient_, project_keys_, before_text_;
  double key_lambda_, energy_known_, energy_old_, energy_keys_, blend_;
  std::int64_t least_rank_, examples_;
  std::map<std::string, Tensor> bases_;
  Tensor free_;  ///< what of Q_pre lies outside of Q_old; undefined until it is needed
  std::map<std::string, Tensor> before_;  ///< the pool before the optimizer's step
  parts::TaskFeatures features_;          ///< of the batch at hand
  Tensor chosen_;                         ///< and its J
};

}  // namespace

MCIT_PLUGIN("mcit-fwd-prompt", MCIT_VERSION,
            mcit::strategy<FwdPrompt>(
                "fwd_prompt",
                "Fwd-Prompt: prompts updated in the pre-trained space, off earlier tasks' space"))
