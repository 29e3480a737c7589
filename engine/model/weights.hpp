#pragma once
/// The tensors of a checkpoint on their way into a model: each part takes its own by name, with the shape
/// that config.json asks for. The parts' constructors are thereby the one table of a family's tensors:
/// loading, saving and `mcit inspect` all read it.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "mcit/types.hpp"

namespace mcit {

class Weights {
 public:
  struct Problem {
    std::string tensor, what;
  };

  explicit Weights(StateDict tensors) : tensors_(std::move(tensors)) {}
  /// Floating-point tensors are converted when they are taken, so that a file's pages need not all be read
  /// before the first one is dropped.
  Weights(StateDict tensors, at::Device device, at::ScalarType dtype);
  /// @param bytes told of the size of every tensor that was taken, as it lies in the file
  void on_take(std::function<void(std::int64_t bytes)> bytes) { on_take_ = std::move(bytes); }
  /// Notes problems instead of throwing, and gives tensors without storage: for looking at a folder.
  static Weights for_inspection(StateDict tensors);

  /// @param shape every length must agree
  /// @throws CheckpointError naming the tensor, with a near name when it is missing.
  Tensor take(const std::string& name, const std::vector<std::int64_t>& shape);
  bool has(const std::string& name) const { return tensors_.contains(name); }
  /// What take() says besides when this tensor is missing.
  void hint(const std::string& name, const std::string& text) { hints_[name] = text; }

  /// What nobody took. Names outside `expected` are problems. @param expected prefix of tensors that a model
  /// may carry without reading them, or empty for none
  StateDict rest(const std::string& expected);
  const std::vector<Problem>& problems() const { return problems_; }

 private:
  void complain(const std::string& name, const std::string& what, const std::string& hint);

  StateDict tensors_;
  bool convert_ = false, lenient_ = false;
  at::Device device_ = at::kCPU;
  at::ScalarType dtype_ = at::kFloat;
  std::function<void(std::int64_t)> on_take_;
  std::map<std::string, std::string> hints_;
  std::vector<Problem> problems_;
};

}  // namespace mcit
