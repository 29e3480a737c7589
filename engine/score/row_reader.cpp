#include "score/row_reader.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 18;
constexpr std::size_t kLongestRow = std::size_t{64} << 20;

bool is_blank(int c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

}  // namespace

InputFile::InputFile(std::filesystem::path path)
    : path_(std::move(path)), descriptor_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC)) {
  if (descriptor_ < 0) throw DataError(path_.string(), std::strerror(errno));
  std::error_code ignored;
  if (std::filesystem::is_directory(path_, ignored)) {
    ::close(descriptor_);
    throw DataError(path_.string(), "is a folder, expected a file");
  }
}

InputFile::~InputFile() { ::close(descriptor_); }

std::size_t InputFile::read(std::uint64_t offset, char* into, std::size_t size) const {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = ::pread(descriptor_, into + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw DataError(path_.string(), std::strerror(errno));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

RowReader::RowReader(const std::filesystem::path& file) : file_(file) {
  if (more() && buffer_.starts_with("\xEF\xBB\xBF")) at_ = begin_ = 3;  // a byte order mark
  skip_blanks();
  array_ = peek() == '[';
  if (array_) ++at_;
}

bool RowReader::more() {
  if (begin_ > 0) {
    buffer_.erase(0, begin_);
    base_ += begin_;
    at_ -= begin_;
    begin_ = 0;
  }
  const std::size_t known = buffer_.size();
  if (known > kLongestRow)
    throw DataError(file_.path().string() + ":" + std::to_string(line_), "a row of more than 64 MiB",
                    "is a bracket or quote not closed?");
  buffer_.resize(known + kPiece);
  buffer_.resize(known + file_.read(base_ + known, buffer_.data() + known, kPiece));
  return buffer_.size() > known;
}

int RowReader::peek() {
  if (at_ == buffer_.size() && !more()) return -1;
  return static_cast<unsigned char>(buffer_[at_]);
}

void RowReader::skip_blanks() {
  for (int c = peek(); is_blank(c) || (array_ && c == ','); c = peek()) {
    line_ += c == '\n' ? 1 : 0;
    begin_ = ++at_;
  }
  begin_ = at_;
}

Row RowReader::take(std::size_t end) {
  std::string_view text(buffer_.data() + begin_, end - begin_);
  while (!text.empty() && is_blank(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  const Row row{text, base_ + begin_, line_};
  line_ += std::count(text.begin(), text.end(), '\n');
  begin_ = at_;
  return row;
}

std::optional<Row> RowReader::next() {
  if (ended_) return std::nullopt;
  skip_blanks();
  return array_ ? next_element() : next_line();
}

std::optional<Row> RowReader::next_line() {
  if (peek() < 0) return std::nullopt;
  for (;;) {
    const auto* found =
        static_cast<const char*>(std::memchr(buffer_.data() + at_, '\n', buffer_.size() - at_));
    at_ = found != nullptr ? static_cast<std::size_t>(found - buffer_.data()) : buffer_.size();
    if (found != nullptr || !more()) return take(at_);
  }
}

std::optional<Row> RowReader::next_element() {
  int depth = 0;
  bool quoted = false;
  for (int c = peek();; c = peek()) {
    if (c < 0) {  // the file ends inside the array; what is left is a row of its own, to be found faulty
      ended_ = true;
      return at_ > begin_ ? std::optional(take(at_)) : std::nullopt;
    }
    if (quoted) {
      if (c == '\\' && at_ + 1 == buffer_.size()) more();
      if (c == '\\' && at_ + 1 < buffer_.size()) ++at_;
      if (c == '"') quoted = false;
    } else if (c == '"') {
      quoted = true;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (depth == 0 && (c == ',' || c == ']')) {
      const std::size_t end = at_;
      ended_ = c == ']';
      if (end == begin_) return std::nullopt;  // "]" behind the last comma
      return take(end);
    } else if (c == '}' || c == ']') {
      if (--depth == 0) {
        ++at_;
        return take(at_);
      }
    }
    ++at_;
  }
}

}  // namespace mcit
