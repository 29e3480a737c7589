#include "core/system.hpp"

#include <malloc.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string_view>
#include <thread>

#include "mcit/abi.hpp"

namespace mcit {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
constexpr double kGiB = 1024.0 * kMiB;

std::string first_line(const char* file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

/// The text behind "<key>  : " in a /proc file.
std::string proc_field(const char* file, std::string_view key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!line.starts_with(key)) continue;
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? std::string() : line.substr(start);
  }
  return {};
}

double leading_number(const std::string& text) {
  double value = 0.0;
  std::istringstream(text) >> value;
  return value;
}

int usable_cores(int logical) {
  int cores = logical;
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) == 0) cores = std::min(cores, CPU_COUNT(&set));
  std::istringstream quota(
      first_line("/sys/fs/cgroup/cpu.max"));  // "<quota> <period>", quota "max" without a limit
  double allowed = 0.0;
  double period = 0.0;
  if (quota >> allowed >> period && period > 0.0)
    cores = std::min(cores, std::max(1, static_cast<int>(std::ceil(allowed / period))));
  return std::max(1, cores);
}

double usable_memory_gb() {
  double bytes = leading_number(proc_field("/proc/meminfo", "MemTotal")) * 1024.0;
  for (const char* file : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const double limit = leading_number(first_line(file));  // "max" reads as 0
    if (limit > 0.0) bytes = bytes > 0.0 ? std::min(bytes, limit) : limit;
  }
  return bytes / kGiB;
}

std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "set by a signal handler");

extern "C" void on_interrupt(int signal) {
  if (stop.exchange(true)) {
    std::signal(signal, SIG_DFL);
    std::raise(signal);
  }
}

}  // namespace

void keep_freed_memory() noexcept {
#ifdef __GLIBC__
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
}

void flush_denormals() noexcept {
#if defined(__x86_64__)
  constexpr unsigned kResultsAndOperands = 0x8040;  // FTZ and DAZ
  _mm_setcsr(_mm_getcsr() | kResultsAndOperands);
#elif defined(__aarch64__)
  constexpr std::uint64_t kFlushToZero = std::uint64_t{1} << 24U;
  std::uint64_t control = 0;
  __asm__ volatile("mrs %0, fpcr" : "=r"(control));
  __asm__ volatile("msr fpcr, %0" : : "r"(control | kFlushToZero));
#endif
}

WholeArithmetic::WholeArithmetic() noexcept : before_() {
  std::fegetenv(&before_);
  std::fesetenv(FE_DFL_ENV);
}

WholeArithmetic::~WholeArithmetic() { std::fesetenv(&before_); }

double peak_rss_mb() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

double current_rss_mb() {
  std::istringstream pages(first_line("/proc/self/statm"));
  double total = 0.0;
  double resident = 0.0;
  pages >> total >> resident;
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE)) / kMiB;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

Hardware hardware() {
  Hardware found;
  found.cpu = proc_field("/proc/cpuinfo", "model name");
  found.logical_cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  found.usable_cores = usable_cores(found.logical_cores);
  found.memory_gb = usable_memory_gb();
  utsname name{};
  if (::uname(&name) == 0) {
    found.system = std::string(name.sysname) + " " + name.release + " " + name.machine;
    if (found.cpu.empty()) found.cpu = name.machine;
  }
  return found;
}

std::string build_info() {
#if defined(__clang__)
  const std::string compiler = "clang " __clang_version__;
#else
  const std::string compiler = "gcc " __VERSION__;
#endif
  return std::string("mcit ") + MCIT_VERSION + ", " + compiler + ", " + MCIT_BUILD_TYPE;
}

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;  // a write in progress goes on
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() noexcept { return stop.load(std::memory_order_relaxed); }
void request_interrupt() noexcept { stop = true; }
void clear_interrupt() noexcept { stop = false; }

}  // namespace mcit
