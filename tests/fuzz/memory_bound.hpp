#pragma once
/// A ceiling on the memory that a reader may ask for, whatever its file claims.

#include <fstream>

#include <sys/resource.h>
#include <unistd.h>

namespace mcit::test {

#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kCountsAddresses = false;  // its shadow memory is far larger than any ceiling
#else
inline constexpr bool kCountsAddresses = true;
#endif

/// While it lives, the process may map this many bytes more than at its beginning.
class MemoryBound {
 public:
  explicit MemoryBound(rlim_t bytes) {
    ::getrlimit(RLIMIT_AS, &before_);
    rlim_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlimit bound{pages * static_cast<rlim_t>(::sysconf(_SC_PAGESIZE)) + bytes, before_.rlim_max};
    if (kCountsAddresses) ::setrlimit(RLIMIT_AS, &bound);
  }
  MemoryBound(const MemoryBound&) = delete;
  MemoryBound& operator=(const MemoryBound&) = delete;
  ~MemoryBound() { ::setrlimit(RLIMIT_AS, &before_); }

 private:
  rlimit before_{};
};

}  // namespace mcit::test
