#pragma once
/// A client of a split model: raw rows, labels and tokenizers, which never leave it. It answers the server's
/// requests and decides nothing.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "split/message.hpp"
#include "split/model.hpp"
#include "split/rows.hpp"
#include "train/optimizer.hpp"

namespace mcit::split {

/// What server and clients must agree on; both read it from the same settings.
struct Training {
  std::uint64_t seed = 1;
  Trained trained;
  std::int64_t steps = 100;  ///< of each task
  std::int64_t batch = 16;   ///< rows of a client in a step
  double rate = 1e-3, head_rate = 1e-3;
  std::string schedule = "cosine";
  double warmup = 0.05;  ///< share of the steps
  AdamWOptions adamw;
  std::optional<at::ScalarType> wire;  ///< dtype of tensors between the two; absent: the model's

  /// Learning rates at a step of a task, by parameter group.
  std::map<std::string, double> rates(std::int64_t step) const;
};

struct ClientParts {
  std::string id;
  std::vector<TaskRows> tasks;
  std::function<Tensor(const Image&)> pixels;  ///< [1, 3, S, S]
  std::filesystem::path folder;                ///< for what it keeps between places; empty: nothing is kept
};

/// What a client spent since it was asked last.
struct ClientCosts {
  double flops = 0.0, cpu_seconds = 0.0;
  std::int64_t rows = 0;  ///< trained on, with repeats
  std::int64_t parameter_bytes =
      0;  ///< held at once: parameters, and of those that train gradient and moments
};

class Client {
 public:
  Client(ClientParts parts, const Base& base, Training training);
  ~Client();

  const std::string& id() const;
  std::int64_t rows(bool test) const;  ///< of all tasks
  /// Never throws for what a request holds: the answer is then an `error`.
  std::string answer(std::string_view request);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mcit::split
