#include "model/mapping.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "mcit/errors.hpp"

namespace mcit {

Mapping::Mapping(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe would wait for its writer
  if (fd < 0) throw CheckpointError(file.string(), std::string("cannot be opened: ") + std::strerror(errno));
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(fd);
    throw CheckpointError(file.string(), "is not a regular file");
  }
  size_ = static_cast<std::uint64_t>(info.st_size);
  if (size_ > 0) {
    // PROT_WRITE on a private mapping: ATen may hand out a mutable pointer; the file itself never changes.
    void* at = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (at != MAP_FAILED) data_ = static_cast<char*>(at);
  }
  ::close(fd);
  if (size_ > 0 && data_ == nullptr)
    throw CheckpointError(file.string(), std::string("cannot be mapped: ") + std::strerror(errno));
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

}  // namespace mcit
