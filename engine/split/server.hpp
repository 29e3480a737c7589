#pragma once
/// The server's half of a step: predictions out of the tokens of many clients, then one backward pass from
/// the gradients they send back.

#include <map>
#include <memory>
#include <string>

#include "split/client.hpp"
#include "split/model.hpp"

namespace mcit::split {

class Server {
 public:
  Server(const Base& base, const Training& training);

  /// One pass over the rows of all clients, in the order of their ids; with `learning` it stays on the graph
  /// until learn(). @return [B_n, classes] of each
  std::map<std::string, Tensor> predict(const std::map<std::string, Tokens>& tokens, bool learning);

  struct Answer {
    double loss = 0.0;  ///< ℓ_n, the mean over the client's rows
    Tensor gradient;    ///< δ_n = ∂ℓ_n / ∂ŷ_n [B_n, classes]
  };
  /// backward(ŷ, concat_n w_n δ_n) with w_n = |B_n| / Σ |B_m| over those who answered; rows of the others
  /// count nothing. That is the gradient of Σ w_n ℓ_n. Then AdamW steps on body and tail.
  /// @return Σ w_n ℓ_n @throws Error without predict(), or when nobody answered
  double learn(const std::map<std::string, Answer>& answers, std::int64_t step);
  /// ∂ Σ w_n ℓ_n / ∂ s_n after learn(), where heads train.
  const std::map<std::string, Tokens>& token_gradients() const { return token_gradients_; }

  /// Moments start at zero, as at the beginning of a task.
  void restart();
  Body& body() { return body_; }
  StateDict state();  ///< "model/…" what trains, "optimizer/…"
  void load_state(const StateDict& state);

 private:
  Body body_;
  Training training_;
  std::unique_ptr<AdamW> optimizer_;
  std::map<std::string, Tokens> leaves_;  ///< what clients sent, where its gradient is wanted
  std::map<std::string, std::int64_t> rows_;
  Tensor predicted_;
  std::map<std::string, Tokens> token_gradients_;
};

}  // namespace mcit::split
