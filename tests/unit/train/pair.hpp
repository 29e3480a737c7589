#pragma once
/// Two processes of a group, as two threads that meet over the loopback interface.

#include <array>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "mcit/errors.hpp"
#include "train/group.hpp"
#include "unit/train/free_port.hpp"

namespace mcit::test {

inline Launch member(std::int64_t rank, std::int64_t size, std::uint16_t port) {
  return {.rank = rank,
          .size = size,
          .local_rank = rank,
          .local_size = size,
          .address = "127.0.0.1",
          .port = port};
}

/// Runs `body` once for each rank. @return what each threw, empty where it did not
inline std::array<std::string, 2> in_two(const std::function<void(std::unique_ptr<Group>& group)>& body,
                                         std::chrono::milliseconds timeout = std::chrono::seconds(30)) {
  // c10d's recorder of collectives notes new groups in a map of the process without a lock. Real processes
  // have one group.
  ::setenv("TORCH_FR_BUFFER_SIZE", "0", 1);
  const std::uint16_t port = free_port();
  std::array<std::string, 2> thrown;
  std::array<std::thread, 2> threads;
  for (std::size_t rank = 0; rank < 2; ++rank)
    threads[rank] = std::thread([&, rank] {
      try {
        std::unique_ptr<Group> group = Group::join(member(static_cast<std::int64_t>(rank), 2, port), timeout);
        body(group);
      } catch (const std::exception& e) {
        thrown[rank] = cause_of(e);
      }
    });
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

}  // namespace mcit::test
