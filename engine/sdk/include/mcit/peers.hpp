#pragma once
/// Several processes that train one model together, each with a share of every batch.

#include <string>
#include <vector>

#include "mcit/types.hpp"

namespace mcit {

/// The processes as a strategy sees them. In the hooks of a step each has its own rows of the batch and the
/// same parameters; everywhere else each has the same data and computes the same.
class MCIT_EXPORT Peers {
 public:
  Peers() = default;
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;
  virtual ~Peers();

  virtual std::int64_t rank() const { return 0; }  ///< of this process
  virtual std::int64_t size() const { return 1; }  ///< how many there are
  /// The sum of all processes' tensors, of one shape and type, without gradient: the same bits in each. All
  /// must call it at the same place. @throws Error when one of them ended or does not answer
  virtual Tensor sum(const Tensor& own) const { return own; }
  /// This process's rows of those that all have in the same order: every size()-th.
  std::vector<ExamplePtr> share(const std::vector<ExamplePtr>& all) const;
};

/// A strategy that also derives from this one promises that several processes can train it: the mean over the
/// processes of loss(), each with as many rows of the batch, is the loss of the whole batch. That is so for
/// `base`, which arrives weighted by the supervised rows of each, for means over sequences, and for terms of
/// parameters alone. What is no such mean is made one with Peers::sum(); of what before_forward() adds to a
/// batch each process takes its share. on_gradients() and after_step() see the gradients of the whole batch;
/// hooks outside of steps see all rows. The engine starts several processes for no strategy that does not
/// promise it.
class MCIT_EXPORT DataParallel {
 public:
  DataParallel();
  DataParallel(const DataParallel&) = delete;
  DataParallel& operator=(const DataParallel&) = delete;
  virtual ~DataParallel();

  /// The setting in effect that several processes cannot train with, and what to do about it; empty: none.
  virtual std::string obstacle() const { return {}; }
  /// Before everything else where there are several processes. @param peers outlives the strategy
  void join(const Peers& peers) { peers_ = &peers; }

 protected:
  const Peers& peers() const { return *peers_; }  ///< a group of one before join()

 private:
  const Peers* peers_;
};

}  // namespace mcit
