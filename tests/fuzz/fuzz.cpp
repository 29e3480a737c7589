// Feeds damaged copies of the fixtures to everything that reads files from outside. An input must be read or
// refused with an error of ours, in 5 seconds and 256 MB. Case n of a seed is always the same.
#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <new>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "core/files.hpp"
#include "fuzz/memory_bound.hpp"
#include "fuzz/targets.hpp"
#include "mcit/errors.hpp"
#include "unit/core/temporary.hpp"

using namespace mcit;
using namespace mcit::fuzz;
using Clock = std::chrono::steady_clock;

#ifdef __SANITIZE_ADDRESS__
// Freed memory is kept back, which counts as memory taken: a little will do.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "quarantine_size_mb=8:max_allocation_size_mb=512";
}
#endif

namespace {

constexpr rlim_t kMostBytes = 256 << 20;
constexpr int kMostSeconds = 5, kMostFailures = 20;

/// What parent and child both see.
struct Ledger {
  std::atomic<std::uint64_t> at, read, refused;
  char failure[1 << 10];
};

std::string input_of(const Target& target, std::uint64_t seed, std::uint64_t number) {
  Rng rng(derive(seed, {"fuzz", target.name, number}));
  return target.damage(target.inputs, rng);
}

/// Of the process so far, in bytes.
rlim_t peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<rlim_t>(usage.ru_maxrss) << 10;
}

/// What is wrong with how the input was received, or empty. @param refused set when it was an error of ours
std::string receive(const Target& target, const std::string& input, const std::filesystem::path& folder,
                    bool& refused) {
  try {
    target.feed(input, folder);
  } catch (const Error& error) {
    refused = true;
    if (std::strlen(error.what()) > std::strlen(": ")) return {};
    return "refused without a word";
  } catch (const std::exception& error) {
    return std::string("another exception: ") + typeid(error).name() + ": " + cause_of(error);
  }
  return {};
}

/// Works until the time is over or an input fails. Ends the process.
[[noreturn]] void child(const Target& target, std::uint64_t seed, Clock::time_point end,
                        const std::filesystem::path& folder, Ledger& ledger) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  const test::MemoryBound bound(kMostBytes);
  const rlim_t most = peak_memory() + kMostBytes;
  while (Clock::now() < end) {
    const std::string input = input_of(target, seed, ledger.at);
    const itimerval patience{{0, 0},
                             {kMostSeconds, 0}};  // of this process's own time, however busy the machine
    ::setitimer(ITIMER_PROF, &patience, nullptr);
    bool refused = false;
    std::string failure = receive(target, input, folder, refused);
    if (failure.empty() && peak_memory() > most) failure = "takes more than 256 MB";
    if (!failure.empty()) {
      std::snprintf(ledger.failure, sizeof ledger.failure, "%s", failure.c_str());
      std::_Exit(1);
    }
    ++(refused ? ledger.refused : ledger.read);
    ++ledger.at;
  }
  std::_Exit(0);
}

/// How a child ended that did not end well.
std::string reason(int status, const Ledger& ledger) {
  if (!WIFSIGNALED(status)) return *ledger.failure == '\0' ? "a sanitizer's report" : ledger.failure;
  if (WTERMSIG(status) == SIGPROF) return "takes more than " + std::to_string(kMostSeconds) + " seconds";
  return std::string("crash: ") + ::strsignal(WTERMSIG(status));
}

/// @return how many inputs failed
int run(const Target& target, std::uint64_t seed, double seconds) {
  void* shared = ::mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) throw Error("fuzz", "cannot share memory with its children");
  Ledger& ledger = *new (shared) Ledger{};
  const auto end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  int failures = 0;
  while (Clock::now() < end && failures < kMostFailures) {
    const test::TemporaryFolder folder;
    std::cout.flush();
    *ledger.failure = '\0';
    const pid_t process = ::fork();
    if (process < 0) throw Error("fuzz", "cannot start a child");
    if (process == 0) child(target, seed, end, folder.path(), ledger);
    int status = 0;
    ::waitpid(process, &status, 0);
    if (status == 0) break;
    const std::uint64_t number = ledger.at++;
    const std::string file =
        "fuzz-" + std::string(target.name) + "-" + std::to_string(seed) + "-" + std::to_string(number);
    write_atomic(file, input_of(target, seed, number));
    std::cout << target.name << ": " << reason(status, ledger) << "\n  input in " << file
              << "; again with: fuzz --seed " << seed << " --case " << number << " " << target.name << "\n";
    ++failures;
  }
  std::cout << target.name << ": " << ledger.read << " read, " << ledger.refused << " refused, " << failures
            << " failed\n";
  ::munmap(shared, sizeof(Ledger));
  return failures;
}

/// One input in this process, for a debugger.
int once(const Target& target, const std::string& input) {
  const test::TemporaryFolder folder;
  const test::MemoryBound bound(kMostBytes);
  bool refused = false;
  const std::string failure = receive(target, input, folder.path(), refused);
  std::cout << target.name << ": " << (!failure.empty() ? failure : refused ? "refused" : "read") << "\n";
  return failure.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  double seconds = 8;
  std::uint64_t seed = 1;
  std::int64_t number = -1;
  std::string file;
  std::vector<std::string> wanted;
  CLI::App app("Damaged files for every reader of files from outside");
  app.add_option("--seconds", seconds, "For all targets together");
  app.add_option("--seed", seed, "Another seed, other damage");
  app.add_option("--case", number, "This case alone, in this process");
  app.add_option("--input", file, "This file alone, in this process");
  app.add_option("TARGET", wanted, "safetensors, gguf, tokenizer, png, jpeg, config, preprocessor, adapter");
  CLI11_PARSE(app, argc, argv);
  std::vector<Target> targets = all_targets();
  std::erase_if(targets, [&](const Target& target) {
    return !wanted.empty() && std::find(wanted.begin(), wanted.end(), target.name) == wanted.end();
  });
  if (targets.empty() || (!wanted.empty() && targets.size() != wanted.size())) {
    std::cerr << "no such target; --help names them\n";
    return 2;
  }
  int failures = 0;
  for (const Target& target : targets)
    failures += !file.empty() ? once(target, read_file(file))
                : number >= 0 ? once(target, input_of(target, seed, static_cast<std::uint64_t>(number)))
                              : run(target, seed, seconds / static_cast<double>(targets.size()));
  return failures == 0 ? 0 : 1;
}
