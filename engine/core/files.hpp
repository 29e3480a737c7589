#pragma once
/// Files: whole, atomic, appended, mapped. All failures are DataError "path: what; hint".

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace mcit {

/// @throws DataError when missing, unreadable, a folder, or longer than max_bytes.
std::string read_file(const std::filesystem::path& file, std::uint64_t max_bytes = std::uint64_t{1} << 30);

/// Replaces `file` by `bytes` at once: temporary file in the same folder, fsync, rename, fsync of the folder.
/// Whoever reads sees the old or the new content, also after a crash. Missing folders are made. The temporary
/// file is removed on failure, and the old content kept. @throws DataError on a full disk or an unwritable
/// folder.
void write_atomic(const std::filesystem::path& file, std::string_view bytes);
void write_atomic(const std::filesystem::path& file, std::span<const std::byte> bytes);

/// write_atomic() in pieces, for files too large to hold twice. Without commit() nothing changes.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path file);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(std::span<const std::byte> bytes);
  void write(std::string_view bytes);
  void commit();

 private:
  std::filesystem::path file_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
};

/// Writes into the folder it is given.
using FillFolder = std::function<void(const std::filesystem::path& folder)>;

/// Lets `fill` write into a new folder beside `target`, which then becomes `target`. On any error nothing is
/// left. @throws DataError, also when `target` is there and not empty.
void write_folder(const std::filesystem::path& target, const FillFolder& fill);

/// While it lives no other process holds a lock of the same name: whoever comes second waits, and then finds
/// what the first has made. Where a lock file cannot be written there is no waiting.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& file);
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  ~FileLock();  ///< removes the lock file

 private:
  std::filesystem::path file_;
  int descriptor_ = -1;
};

/// A growing file of lines.
class AppendFile {
 public:
  /// @param keep bytes of an existing file that stay (a resumed run cuts what came after its snapshot)
  explicit AppendFile(std::filesystem::path file, std::uint64_t keep = UINT64_MAX);
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;
  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&& other) noexcept;
  ~AppendFile();  ///< flushes, without reporting errors

  void line(std::string_view text);               ///< text and a newline, buffered
  void flush();                                   ///< to the operating system
  void sync();                                    ///< to the disk
  std::uint64_t bytes() const { return bytes_; }  ///< written so far, buffered ones included

 private:
  void close() noexcept;

  std::filesystem::path file_;
  std::string buffer_;
  std::uint64_t bytes_ = 0;
  int descriptor_ = -1;
};

/// A file mapped read-only. Pages come from the disk when they are touched.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& file);
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::byte* data() const { return data_; }  ///< null for an empty file
  std::size_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// $XDG_CACHE_HOME/mcit or $HOME/.cache/mcit; not created. @throws DataError when neither is set.
std::filesystem::path user_cache_dir();
/// Bytes that may still be written below `path` (its nearest existing folder); 0 when that cannot be told.
std::uint64_t free_space(const std::filesystem::path& path);
/// Folder of the running executable.
std::filesystem::path executable_dir();

}  // namespace mcit
