#include "core/files.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/system.hpp"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& file, const std::string& what, int code) {
  std::string hint;
  if (code == ENOSPC || code == EDQUOT) hint = "the disk is full: free some space, or write somewhere else";
  if (code == EACCES || code == EPERM || code == EROFS)
    hint = "check the permissions of the file and its folder";
  throw DataError(file.string(), what + ": " + std::strerror(code), hint);
}

/// A descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  int get() const { return value_; }

 private:
  int value_;
};

std::uint64_t open_regular(const fs::path& file, const Descriptor& descriptor) {
  if (descriptor.get() < 0) fail(file, "cannot open", errno);
  struct stat status {};
  if (::fstat(descriptor.get(), &status) != 0) fail(file, "cannot look at", errno);
  if (S_ISDIR(status.st_mode)) throw DataError(file.string(), "is a folder, a file is needed");
  if (!S_ISREG(status.st_mode)) throw DataError(file.string(), "is not a regular file");
  return static_cast<std::uint64_t>(status.st_size);
}

void write_all(const fs::path& file, int descriptor, const char* bytes, std::size_t count) {
  while (count > 0) {
    const ssize_t done = ::write(descriptor, bytes, count);
    if (done < 0) {
      if (errno == EINTR) continue;
      fail(file, "cannot write", errno);
    }
    bytes += done;
    count -= static_cast<std::size_t>(done);
  }
}

fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

}  // namespace

std::string read_file(const fs::path& file, std::uint64_t max_bytes) {
  const Descriptor descriptor(
      ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // no waiting for pipes
  const std::uint64_t size = open_regular(file, descriptor);
  if (size > max_bytes)
    throw DataError(file.string(), "has " + std::to_string(size) + " bytes, at most " +
                                       std::to_string(max_bytes) + " are expected here");
  std::string bytes(static_cast<std::size_t>(size), '\0');
  std::size_t have = 0;
  while (have < bytes.size()) {
    const ssize_t got = ::read(descriptor.get(), bytes.data() + have, bytes.size() - have);
    if (got < 0) {
      if (errno == EINTR) continue;
      fail(file, "cannot read", errno);
    }
    if (got == 0) throw DataError(file.string(), "became shorter while it was read");
    have += static_cast<std::size_t>(got);
  }
  return bytes;
}

void write_atomic(const fs::path& file, std::string_view bytes) {
  AtomicFile out(file);
  out.write(bytes);
  out.commit();
}

void write_atomic(const fs::path& file, std::span<const std::byte> bytes) {
  write_atomic(file, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

AtomicFile::AtomicFile(fs::path file) : file_(std::move(file)) {
  const fs::path folder = folder_of(file_);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail(folder, "cannot make the folder", error.value());
  std::string name = (folder / ("." + file_.filename().string() + ".XXXXXX")).string();
  descriptor_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) fail(file_, "cannot make a temporary file beside it", errno);
  temporary_ = name;
  struct stat old {};
  const mode_t mask = ::umask(0);
  ::umask(mask);
  const mode_t mode = ::stat(file_.c_str(), &old) == 0 ? (old.st_mode & 0777U) : (0666U & ~mask);
  ::fchmod(descriptor_, mode);  // mkostemp gives 0600; a result is as readable as any other file
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::string_view bytes) { write_all(file_, descriptor_, bytes.data(), bytes.size()); }

void AtomicFile::write(std::span<const std::byte> bytes) {
  write(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail(file_, "cannot bring to the disk", errno);
  if (::close(std::exchange(descriptor_, -1)) != 0) fail(file_, "cannot close", errno);
  if (::rename(temporary_.c_str(), file_.c_str()) != 0) fail(file_, "cannot put in place", errno);
  temporary_.clear();
  const Descriptor folder(::open(folder_of(file_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() >= 0)
    ::fsync(folder.get());  // some file systems refuse; the content itself is safe by now
}

void write_folder(const fs::path& target, const FillFolder& fill) {
  const fs::path place = target.has_filename() ? target : target.parent_path();  // "folder/" is "folder"
  const fs::path temporary = place.string() + ".tmp" + std::to_string(::getpid());
  std::error_code ignored;
  try {
    fs::remove_all(temporary);
    fs::create_directories(temporary);
    fill(temporary);
    fs::rename(temporary, place);
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(temporary, ignored);
    throw DataError(target.string(), error.code().message());
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
}

FileLock::FileLock(const std::filesystem::path& file) : file_(file) {
  std::error_code ignored;
  fs::create_directories(file_.parent_path(), ignored);
  descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) return;
  while (::flock(descriptor_, LOCK_EX) != 0 && errno == EINTR && !interrupted()) {
  }
}

FileLock::~FileLock() {
  if (descriptor_ < 0) return;
  ::unlink(file_.c_str());
  ::close(descriptor_);
}

AppendFile::AppendFile(fs::path file, std::uint64_t keep) : file_(std::move(file)) {
  std::error_code error;
  fs::create_directories(folder_of(file_), error);
  if (error) fail(folder_of(file_), "cannot make the folder", error.value());
  descriptor_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail(file_, "cannot open", errno);
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) {
    const int code = errno;
    close();
    fail(file_, "cannot look at", code);
  }
  bytes_ = static_cast<std::uint64_t>(status.st_size);
  if (bytes_ > keep) {
    if (::ftruncate(descriptor_, static_cast<off_t>(keep)) != 0) {
      const int code = errno;
      close();
      fail(file_, "cannot cut", code);
    }
    bytes_ = keep;
  }
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : file_(std::move(other.file_)),
      buffer_(std::exchange(other.buffer_, {})),
      bytes_(other.bytes_),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

AppendFile& AppendFile::operator=(AppendFile&& other) noexcept {
  if (this != &other) {
    close();
    file_ = std::move(other.file_);
    buffer_ = std::exchange(other.buffer_, {});
    bytes_ = other.bytes_;
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

AppendFile::~AppendFile() { close(); }

void AppendFile::close() noexcept {
  if (descriptor_ < 0) return;
  try {
    flush();
  } catch (const Error&) {  // whoever must know calls flush() first
  }
  ::close(std::exchange(descriptor_, -1));
}

void AppendFile::line(std::string_view text) {
  constexpr std::size_t kBuffer = std::size_t{64} << 10;
  buffer_.append(text).push_back('\n');
  bytes_ += text.size() + 1;
  if (buffer_.size() >= kBuffer) flush();
}

void AppendFile::flush() {
  if (buffer_.empty()) return;
  const std::string pending = std::exchange(buffer_, {});
  write_all(file_, descriptor_, pending.data(), pending.size());
}

void AppendFile::sync() {
  flush();
  if (::fsync(descriptor_) != 0) fail(file_, "cannot bring to the disk", errno);
}

MappedFile::MappedFile(const fs::path& file) {
  const Descriptor descriptor(
      ::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // no waiting for pipes
  const std::uint64_t size = open_regular(file, descriptor);
  if (size == 0) return;  // nothing to map
  void* const start =
      ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ, MAP_PRIVATE, descriptor.get(), 0);
  if (start == MAP_FAILED) fail(file, "cannot map", errno);
  data_ = static_cast<const std::byte*>(start);
  size_ = static_cast<std::size_t>(size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

fs::path user_cache_dir() {
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/')
    return fs::path(cache) / "mcit";  // the specification ignores relative ones
  const char* const home = std::getenv("HOME");
  if (home != nullptr && *home != '\0') return fs::path(home) / ".cache" / "mcit";
  throw DataError("user cache", "neither XDG_CACHE_HOME nor HOME is set",
                  "set one of them to a writable folder");
}

std::uint64_t free_space(const fs::path& path) {
  std::error_code error;
  fs::path folder = fs::absolute(path, error);
  while (!fs::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  const fs::space_info info = fs::space(folder, error);
  return error ? 0 : static_cast<std::uint64_t>(info.available);
}

fs::path executable_dir() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::current_path() : self.parent_path();
}

}  // namespace mcit
