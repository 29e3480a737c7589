#pragma once
/// The rows of a JSON array or of JSON Lines one after the other, in constant memory.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace mcit {

/// A file that is read at any place. @throws DataError when it cannot be opened or read
class InputFile {
 public:
  explicit InputFile(std::filesystem::path path);
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  /// Up to `size` bytes from `offset` on. @return how many there were
  std::size_t read(std::uint64_t offset, char* into, std::size_t size) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

struct Row {
  std::string_view text;     ///< the row's JSON, valid until the next one is read
  std::uint64_t offset = 0;  ///< of text in the file
  std::int64_t line = 0;     ///< where it begins, from 1
};

/// A file that begins with "[" is an array, and its elements are the rows; any other is one row a line. Rows
/// are parted by brackets and quotes alone: whether each is JSON is for the caller to find out. Empty lines
/// are skipped.
class RowReader {
 public:
  explicit RowReader(const std::filesystem::path& file);

  /// @return nothing at the end. @throws DataError for a row of more than 64 MiB
  std::optional<Row> next();
  bool is_array() const { return array_; }
  std::uint64_t offset() const { return base_ + at_; }  ///< bytes read so far

 private:
  bool more();  ///< another piece of the file behind the buffer; false at its end
  int peek();   ///< the byte at at_, or -1 at the end
  void skip_blanks();
  Row take(std::size_t end);  ///< the bytes from begin_ to end
  std::optional<Row> next_line();
  std::optional<Row> next_element();

  InputFile file_;
  std::string buffer_;
  std::uint64_t base_ = 0;  ///< offset of the buffer's first byte
  std::size_t begin_ = 0;   ///< bytes before it are done with
  std::size_t at_ = 0;
  std::int64_t line_ = 1;
  bool array_ = false, ended_ = false;
};

}  // namespace mcit
