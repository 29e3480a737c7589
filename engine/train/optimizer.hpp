#pragma once
/// Optimizers over named parameters, with a state that can be saved and restored to the bit.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "mcit/types.hpp"

namespace mcit {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
};

/// AdamW (Loshchilov and Hutter 2019), one fused pass per learning-rate group. Moments are float32 at least.
/// A parameter in bfloat16 or float16 is the rounding of a float32 master, so that updates below its
/// resolution add up; what others do to the parameter between steps is done to the master as well.
class AdamW {
 public:
  /// Holds the parameters that require a gradient; moments start at zero.
  AdamW(Parameters parameters, AdamWOptions options);

  /// One update. Parameters without a gradient keep value and moments.
  /// @param learning_rate by Parameter::group
  void step(const std::map<std::string, double>& learning_rate);
  void zero_grad();

  const Parameters& parameters() const { return parameters_; }
  /// "<name>.exp_avg", "<name>.exp_avg_sq", "<name>.step" of every parameter, "<name>.master" where there is
  /// one.
  StateDict state() const;
  /// @throws CheckpointError when a moment is missing or has another shape.
  void load_state(const StateDict& state);

 private:
  Parameters parameters_;
  AdamWOptions options_;
  std::vector<Tensor> master_, exp_avg_, exp_avg_sq_, steps_;
};

struct MuonOptions {
  double momentum = 0.95;
  int iterations = 5;         ///< Newton-Schulz steps
  double weight_decay = 0.0;  ///< decoupled: a step first shrinks the value by learning_rate * weight_decay
};

/// Muon (Jordan et al. 2024): momentum, then the nearest semi-orthogonal matrix by Newton-Schulz iteration.
/// For matrices; each parameter is orthogonalised by itself, so q, k and v are three.
class Muon {
 public:
  Muon(Parameters parameters, MuonOptions options);
  void step(double learning_rate);
  void zero_grad();
  const Parameters& parameters() const { return parameters_; }
  StateDict state() const;
  void load_state(const StateDict& state);

 private:
  Parameters parameters_;
  MuonOptions options_;
  std::vector<Tensor> momentum_;
};

/// Scales all gradients so that their joint 2-norm is at most `limit` (0 = leave them). @return the norm
/// before
double clip_gradients(const Parameters& parameters, double limit);

/// Learning-rate factor in [0, 1]: from zero up linearly over the first `warmup` steps, then `decay` to zero
/// at `total`; the schedules of transformers' Trainer, step for step.
/// @param decay "cosine", "linear" or "constant"
double schedule_factor(const std::string& decay, std::int64_t step, std::int64_t warmup, std::int64_t total);

}  // namespace mcit
