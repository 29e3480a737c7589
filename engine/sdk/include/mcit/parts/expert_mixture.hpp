#pragma once
/// Mixtures of small LoRAs behind a router: dense or top-k, with one A for each expert or a shared one,
/// routed by row or by sequence, with one router or one a task. MoE-LoRA (CoIN), HydraLoRA and BranchLoRA are
/// members of this family.

#include <map>
#include <memory>
#include <span>
#include <vector>

#include "mcit/parts/lora.hpp"
#include "mcit/peers.hpp"

namespace mcit::parts {

struct MixtureOptions {
  std::int64_t experts = 8;
  bool shared_down = false;      ///< one A of rank / experts rows that all experts read
  std::int64_t top_k = 0;        ///< experts that answer; 0: all
  bool renormalize = true;       ///< the chosen gates sum to 1; false: they keep their share among all
  Reads reads = Reads::own_row;  ///< what the router reads
  bool separate_up = false;      ///< each expert's B is a tensor of its own, so that it can be frozen

  /// Settings experts, top_k, renorm, pool ("per_token", "first", "mean_prompt", "last_prompt").
  /// @throws ConfigError for a value out of range
  static MCIT_EXPORT MixtureOptions read(const Params& params, MixtureOptions defaults);
  /// @throws ConfigError when the experts do not divide the rank or top_k is more than there are
  MCIT_EXPORT void check(const LoraOptions& lora) const;
};

/// y += s · Σ_e g_e · B_e A_e drop(x), s = alpha / rank with the total rank; g = softmax(R x̄) over all
/// experts or, zero elsewhere, over the top k, x̄ what the router reads.
///
/// The experts lie one after the other in B's columns (and in A's rows, where those are not shared), so that
/// the sum is one product in which each expert's part is scaled by its gate. All experts see the same dropout
/// mask.
class MCIT_EXPORT ExpertMixture final : public Adapter {
 public:
  /// @param options rank is the total over all experts
  /// @throws ConfigError when the experts do not divide the rank or top_k is more than there are
  ExpertMixture(const Site& site, const MixtureOptions& mixture, const LoraOptions& options,
                const at::Generator& generator);
  ~ExpertMixture() override;

  Tensor down() const override { return a_; }  ///< [E·r_e or r_e, in]
  Tensor up() const override;                  ///< [out, E·r_e]
  /// The router, or those of the batch's tasks one below the other. [Σ E_t, in]
  Tensor route(const RouteContext& route) const override;
  Reads reads() const override { return mixture_.reads; }
  double dropout() const override { return options_.dropout; }
  Tensor mix(const Tensor& z, const Tensor& logits, RouteContext& route,
             const std::string& site) const override;
  /// "lora_A.weight", "lora_B.weight" or "lora_B.<expert>.weight", "lora_router.weight" or, one a task,
  /// "lora_router.<task>.weight"
  Parameters parameters() const override;

  /// Gates of rows of logits [.., E]: at least float32, zero outside the top k. @param top_k 0: all
  static Tensor gates(const Tensor& logits, std::int64_t top_k = 0, bool renormalize = true);

  std::int64_t experts() const { return mixture_.experts; }
  std::int64_t width() const { return width_; }  ///< r_e
  const MixtureOptions& mixture() const { return mixture_; }
  const LoraOptions& options() const { return options_; }

  /// From the first call on, each task has a router of its own and the one that served all is gone.
  /// @param copy_of a task whose router it starts as, or -1 for a fresh one
  void add_router(std::int64_t task, std::int64_t copy_of, const at::Generator& generator);
  const std::map<std::int64_t, Tensor>& routers() const { return routers_; }
  /// Adds an expert whose B is zero. Tasks' routers keep to the experts they know; the common router gets a
  /// fresh row. @throws Error without separate_up
  void add_expert(const at::Generator& generator);
  /// B of one expert, [out, r_e]. @throws Error without separate_up
  const Tensor& expert_up(std::int64_t expert) const;
  void set_down_trainable(bool trainable) { a_.set_requires_grad(trainable); }

  /// Sums each row's (or sequence's) gates into usage() from now on; false stops and keeps the sums.
  void count_usage(bool count);
  const Tensor& usage() const { return usage_; }  ///< [E] float64; undefined before count_usage(true)

  /// Keeps every training pass's softmax over all experts until it is taken, on the graph.
  void keep_shares(bool keep) { keep_shares_ = keep; }
  Tensor take_shares();  ///< [R, E] of the last pass; undefined when there was none

  /// Numbers of such a mixture at an [out, in] site with `routers` routers.
  static std::int64_t count(std::int64_t in, std::int64_t out, const MixtureOptions& mixture,
                            const LoraOptions& options, std::int64_t routers = 1) {
    return (mixture.shared_down ? options.rank / mixture.experts : options.rank) * in + options.rank * out +
           routers * mixture.experts * in;
  }

 private:
  std::vector<std::int64_t> tasks_of(const RouteContext& route) const;
  Tensor decide(const Tensor& logits, const RouteContext& route) const;

  MixtureOptions mixture_;
  LoraOptions options_;
  std::int64_t width_;
  std::int64_t newest_ = -1;  ///< task of the newest router, which serves examples of unknown task
  Tensor a_;
  std::vector<Tensor> b_;
  Tensor router_;                           ///< [E, in]; undefined once tasks have their own
  std::map<std::int64_t, Tensor> routers_;  ///< task -> [E_t, in]
  mutable Tensor usage_, shares_;
  bool count_usage_ = false, keep_shares_ = false;
};

/// Fills usage() of every mixture with the gates that examples spread evenly over the stage get, each routed
/// to its own task. @param examples how many at most
MCIT_EXPORT void measure_usage(std::span<const std::shared_ptr<ExpertMixture>> mixtures, Batches& batches,
                               Backbone& backbone, std::int64_t examples);

/// The share of each expert in usage() at every site, percent, as a heat map.
MCIT_EXPORT StageTable usage_table(const std::vector<std::string>& sites,
                                   std::span<const std::shared_ptr<ExpertMixture>> mixtures);

/// The load-balancing loss of Switch Transformers (Fedus et al. 2022, eq. 4) of one router: E Σ_e f_e P_e, f
/// the fraction of the rows whose top k hold expert e, divided by k, P the mean share; 1 when all are used
/// alike. @param shares [R, E], softmax over all experts; @param top_k 0, a dense mixture, counts first
/// places
MCIT_EXPORT Tensor balance_loss(const Tensor& shares, std::int64_t top_k);

/// The mean over routers of their load-balancing losses, with f and P over the rows of all processes: the
/// mean over the processes of what each gets. @param shares of each router, all of as many experts
MCIT_EXPORT Tensor balance_loss(std::span<const Tensor> shares, std::int64_t top_k, const Peers& peers);

}  // namespace mcit::parts
