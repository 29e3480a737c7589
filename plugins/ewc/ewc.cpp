// Elastic weight consolidation (Kirkpatrick et al. 2017): parameters that mattered to earlier tasks are tied
// to where those tasks left them, by a spring as stiff as the diagonal of their Fisher information.
#include <ATen/core/grad_mode.h>

#include "mcit/causal.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "mcit/parts/learner.hpp"
#include "mcit/peers.hpp"
#include "mcit/plugin.hpp"

namespace {

using namespace mcit;

/// The quadratic ½ Σ_i F_i (θ_i − a_i)² + ½ c of all earlier tasks, whatever their number.
///
/// A sum of springs is one spring: with F = Σ_τ F_τ and a = Σ_τ F_τ θ*_τ / F, per coordinate,
///   Σ_τ F_τ (θ − θ*_τ)² = F (θ − a)² + c,   c = Σ_τ F_τ θ*_τ² − F a²,
/// so gradient and value of the summed penalty are exact with two numbers a parameter. F, a and c are kept up
/// to date by the weighted mean's recurrence, whose terms never cancel.
class Springs {
 public:
  void attach(Parameters parameters) {
    parameters_ = std::move(parameters);
    for (const Parameter& p : parameters_) {
      fisher_.push_back(at::zeros_like(p.value.detach()));
      anchor_.push_back(at::zeros_like(p.value.detach()));
    }
  }

  /// Adds a task's springs, fastened where the parameters are now.
  void add(const std::vector<Tensor>& fisher) {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      const Tensor here = parameters_[i].value.detach(), total = fisher_[i] + fisher[i];
      const Tensor share = at::where(total > 0, fisher[i] / total, at::zeros_like(total));
      offset_ += (fisher_[i] * share * (here - anchor_[i]).square()).sum().to(at::kDouble).item<double>();
      anchor_[i].copy_(at::lerp(anchor_[i], here, share));
      fisher_[i].copy_(total);
    }
    tight_ = true;
  }

  /// Online form (Schwarz et al. 2018): old springs weaken by gamma and all are fastened anew where the
  /// parameters are.
  void refasten(const std::vector<Tensor>& fisher, double gamma) {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      fisher_[i].mul_(gamma).add_(fisher[i]);
      anchor_[i].copy_(parameters_[i].value.detach());
    }
    tight_ = true;
  }

  /// .grad += strength · F (θ − a), without a graph. @return the penalty's value when `measure` is set, else
  /// 0
  double pull(double strength, bool measure) const {
    if (!tight_ || parameters_.empty()) return 0.0;
    std::vector<Tensor> values, grads;
    for (const Parameter& p : parameters_) {
      if (!p.value.grad().defined()) p.value.mutable_grad() = at::zeros_like(p.value.detach());
      values.push_back(p.value.detach());
      grads.push_back(p.value.grad());
    }
    const std::vector<Tensor> shift = at::_foreach_sub(values, anchor_);
    at::_foreach_addcmul_(grads, fisher_, shift, strength);
    if (!measure) return 0.0;
    double value = offset_;
    for (std::size_t i = 0; i < shift.size(); ++i)
      value += (fisher_[i] * shift[i].square()).sum().to(at::kDouble).item<double>();
    return 0.5 * strength * value;
  }

  void save(StateDict& state) const {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      state["ewc.fisher." + parameters_[i].name] = parts::state_copy(fisher_[i]);
      state["ewc.anchor." + parameters_[i].name] = parts::state_copy(anchor_[i]);
    }
    state["ewc.offset"] = at::scalar_tensor(offset_, at::kDouble);
    state["ewc.tight"] = at::scalar_tensor(static_cast<std::int64_t>(tight_), at::kLong);
  }

  void load(parts::StateReader& reader) {
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
      reader.copy("ewc.fisher." + parameters_[i].name, fisher_[i]);
      reader.copy("ewc.anchor." + parameters_[i].name, anchor_[i]);
    }
    const Tensor offset = reader.take("ewc.offset", at::kDouble), tight = reader.take("ewc.tight", at::kLong);
    if (offset.numel() != 1 || tight.numel() != 1) throw CheckpointError("ewc.offset", "is no single number");
    reader.then([this, offset, tight] {
      offset_ = offset.item<double>();
      tight_ = tight.item<std::int64_t>() != 0;
    });
  }

 private:
  Parameters parameters_;
  std::vector<Tensor> fisher_, anchor_;  ///< F and a of each parameter
  double offset_ = 0.0;                  ///< c
  bool tight_ = false;                   ///< whether any task is over
};

class Ewc final : public parts::LearnerStrategy, public Causal, public DataParallel {
 public:
  Ewc(const Params& params, Host& host)
      : LearnerStrategy(host, parts::Learner::lora(params)),
        lambda_(params.number("lambda", 5000.0)),
        online_(params.flag("online", false)),
        gamma_(params.number("gamma", 1.0)),
        per_sample_(params.choice("fisher", "per_sample", {"per_sample", "batch_mean"}) == "per_sample"),
        fisher_batches_(params.integer("fisher_batches", 50)),
        fisher_batch_(params.integer("fisher_batch", 4)),
        record_every_(params.integer("record_every", 10)) {
    if (!(lambda_ >= 0.0)) throw ConfigError("strategy.lambda", "must not be negative");
    if (!(gamma_ >= 0.0 && gamma_ <= 1.0)) throw ConfigError("strategy.gamma", "must lie between 0 and 1");
    if (fisher_batches_ < 1) throw ConfigError("strategy.fisher_batches", "must be at least 1");
    if (fisher_batch_ < 1) throw ConfigError("strategy.fisher_batch", "must be at least 1");
    if (record_every_ < 0) throw ConfigError("strategy.record_every", "must not be negative");
  }

  void attach(Backbone& backbone) override {
    LearnerStrategy::attach(backbone);
    springs_.attach(learner().parameters());
  }

  /// ∇ (λ/2) Σ_τ Σ_i F_τ,i (θ_i − θ*_τ,i)²
  void on_gradients(Step& step) override {
    const bool record = record_every_ > 0 && step.number % record_every_ == 0;
    const double penalty = springs_.pull(lambda_, record);
    if (record) host().record("ewc_penalty", penalty);
  }

  void after_task(const Task&, Batches& batches, Backbone& backbone) override {
    const std::vector<Tensor> fisher = measure_fisher(batches, backbone);
    const at::NoGradGuard no_grad;
    if (online_)
      springs_.refasten(fisher, gamma_);
    else
      springs_.add(fisher);
  }

 private:
  void save(StateDict& state) const override { springs_.save(state); }
  void load(parts::StateReader& reader) override { springs_.load(reader); }

  /// Mean squared gradient of the answer loss over examples spread evenly over the stage: of each example by
  /// itself, or, with fisher = "batch_mean", of the mean over each batch.
  std::vector<Tensor> measure_fisher(Batches& batches, Backbone& backbone) const {
    const Parameters parameters = learner().parameters();
    std::vector<Tensor> fisher;
    for (const Parameter& p : parameters) {
      fisher.push_back(at::zeros_like(p.value.detach()));
      p.value.mutable_grad().reset();
    }
    const std::int64_t all = batches.examples();
    const std::int64_t wanted = fisher_batches_ > all / fisher_batch_ ? all : fisher_batches_ * fisher_batch_;
    std::int64_t squares = 0;
    parts::visit_spread(batches, wanted, per_sample_ ? 1 : fisher_batch_, [&](const Batch& picked) {
      add_square(picked, parameters, backbone, fisher);
      ++squares;
    });
    if (squares == 0) throw Error("fisher", "the stage has no training example");
    for (const Tensor& f : fisher) f.div_(static_cast<double>(squares));
    return fisher;
  }

  static void add_square(const Batch& batch, const Parameters& parameters, Backbone& backbone,
                         const std::vector<Tensor>& fisher) {
    answer_loss(backbone.forward(batch)).backward();
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      Tensor& grad = parameters[i].value.mutable_grad();
      if (grad.defined()) fisher[i].addcmul_(grad, grad);
      grad.reset();
    }
  }

  double lambda_;
  bool online_;
  double gamma_;
  bool per_sample_;
  std::int64_t fisher_batches_, fisher_batch_, record_every_;
  Springs springs_;
};

}  // namespace

MCIT_PLUGIN("mcit-ewc", MCIT_VERSION,
            mcit::strategy<Ewc>(
                "ewc", "Elastic weight consolidation: a Fisher-weighted pull towards earlier solutions"))
