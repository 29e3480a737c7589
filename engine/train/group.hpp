#pragma once
/// Data parallelism: processes that share each batch among them and train as one.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/launch.hpp"
#include "mcit/peers.hpp"

namespace mcit {

class Strategy;

/// What carries numbers between the processes of a group.
class Channel {
 public:
  virtual ~Channel() = default;
  /// Replaces `values`, of one shape and type in all processes, by their sum: the same bits in each.
  /// @throws Error when a process ended or did not answer in time; Interrupted when this one is to stop
  virtual void add_up(Tensor& values) = 0;
  virtual void set_timeout(std::chrono::milliseconds timeout) = 0;
};

/// The processes of a run. But for rank() and size() every member is a collective: all processes call it at
/// the same place, and none goes on before all have come. A group of one does nothing at all.
class Group final : public Peers {
 public:
  Group() = default;  ///< alone
  Group(std::int64_t rank, std::int64_t size, std::unique_ptr<Channel> channel)
      : rank_(rank), size_(size), channel_(std::move(channel)) {}
  /// Waits for the other processes. @param timeout of this and of whatever follows
  /// @throws Error saying who did not come, ConfigError when there is nobody to meet
  static std::unique_ptr<Group> join(const Launch& launch, std::chrono::milliseconds timeout);

  std::int64_t rank() const override { return rank_; }
  std::int64_t size() const override { return size_; }
  Tensor sum(const Tensor& own) const override;
  bool alone() const { return size_ == 1; }
  bool first() const { return rank_ == 0; }  ///< it alone writes files and talks to people
  /// How long this process waits for another one before it gives up.
  void set_timeout(std::chrono::milliseconds timeout) const;

  /// A mean over `count` rows, scaled so that its mean over the processes is the mean over the rows of all.
  Tensor weighted(const Tensor& mean, std::int64_t count) const;
  /// Each gradient becomes its mean over the processes; one that only some have counts as zero in the others.
  /// One exchange of all float32 and narrower gradients, and one of those in float64.
  void average_gradients(const Parameters& parameters) const;
  bool any(bool own) const;
  std::vector<std::string> gather(const std::string& own) const;  ///< by rank, the same in all
  std::string from_first(std::string own) const;                  ///< what the first process gave
  void meet() const { any(false); }
  /// Runs `body`. When it throws in any process it throws in all: the first process says what was wrong, and
  /// the others are silent.
  void together(const std::function<void()>& body) const;

 private:
  std::int64_t rank_ = 0, size_ = 1;
  std::unique_ptr<Channel> channel_;
};

/// The group of a process that runs by itself.
const Group& no_group();

/// Makes a strategy known to its group. @param name of the strategy
/// @throws ConfigError naming it when several processes cannot train it
void join_group(Strategy& strategy, const std::string& name, const Group& group);
/// @throws ConfigError when a batch of this size cannot be dealt evenly
void check_batch(std::int64_t batch, const Group& group);

}  // namespace mcit
