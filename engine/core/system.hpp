#pragma once
/// What a run costs and where it ran: clocks, memory, hardware, build; and the wish to stop.

#include <cfenv>
#include <chrono>
#include <cstdint>
#include <exception>
#include <string>

namespace mcit {

double peak_rss_mb();     ///< largest resident memory of this process so far, MiB
double current_rss_mb();  ///< resident memory now, MiB
double cpu_seconds();     ///< user and system time of all threads of this process

/// Freed blocks of up to 32 MiB stay with the process instead of going back to the kernel, 1 GiB at most:
/// steps and rounds take the same sizes again and again, and fresh pages cost more than what is done with
/// them.
void keep_freed_memory() noexcept;

/// From here on this thread, and those that it starts, take numbers below the smallest normal one as zero:
/// products with them take a hundred times as long, and a network that is sure of its answers is full of
/// them.
void flush_denormals() noexcept;

/// As long as it lives, this thread has the arithmetic of IEEE 754, denormal numbers included: for what must
/// have the same bits in a program that flushes them and in one that does not.
class WholeArithmetic {
 public:
  WholeArithmetic() noexcept;
  ~WholeArithmetic();
  WholeArithmetic(const WholeArithmetic&) = delete;
  WholeArithmetic& operator=(const WholeArithmetic&) = delete;

 private:
  std::fenv_t before_;
};

/// Wall time since it was made or restarted.
class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void restart() { start_ = Clock::now(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

std::string utc_now();  ///< "2026-05-04T03:02:01Z"

struct Hardware {
  std::string cpu;         ///< model name as the kernel gives it
  int logical_cores = 0;   ///< of the machine
  int usable_cores = 0;    ///< this process may run on (affinity and cgroup quota)
  double memory_gb = 0.0;  ///< GiB that this process may use (cgroup limit)
  std::string system;      ///< kernel and architecture
};
Hardware hardware();

std::string build_info();  ///< "mcit 0.1.0, gcc 12.2.0, Release"

/// Ctrl-C or SIGTERM asks loops to stop at the next safe place; a second one ends the process. For the
/// executable.
void install_interrupt_handler();
bool interrupted() noexcept;
void request_interrupt() noexcept;  ///< as if Ctrl-C had been pressed
void clear_interrupt() noexcept;

/// Ends a loop that was asked to stop, once what it did is saved. Whoever catches it says how to go on.
class Interrupted : public std::exception {
 public:
  const char* what() const noexcept override { return "interrupted"; }
};

}  // namespace mcit
