#include "core/console.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>

namespace mcit::console {
namespace {

struct Terminal {
  std::mutex mutex;
  std::string status;
};

Terminal& terminal() {
  static Terminal* const one = new Terminal;  // never destroyed: a log line may come from a static destructor
  return *one;
}

int descriptor(Stream stream) { return stream == Stream::out ? STDOUT_FILENO : STDERR_FILENO; }

/// stderr is written by one call, so that lines of several processes do not mix.
void raw(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::write(STDERR_FILENO, bytes.data(), bytes.size());
    if (done <= 0) return;  // nobody is left to tell
    bytes.remove_prefix(static_cast<std::size_t>(done));
  }
}

/// What takes a status away: its last line, then those above.
std::string erasure(std::string_view status) {
  std::string bytes = "\r\x1b[2K";
  for (const char c : status)
    if (c == '\n') bytes.append("\x1b[A\x1b[2K");
  return bytes;
}

/// Each line cut to the terminal's width.
std::string fitted(std::string_view text) {
  const int most = std::max(1, width(Stream::err) - 1);
  std::string out;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    if (begin > 0) out.push_back('\n');
    out.append(fit(text.substr(begin, end - begin), most));
    begin = end + 1;
  }
  return out;
}

/// Decodes one code point; a byte that is no UTF-8 counts as one column of its own.
char32_t next_code_point(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at++);
  int more = 0;
  char32_t code = lead;
  if (lead >= 0xf0 && lead < 0xf8) {
    more = 3;
    code = lead & 0x07U;
  } else if (lead >= 0xe0) {
    more = 2;
    code = lead & 0x0fU;
  } else if (lead >= 0xc0) {
    more = 1;
    code = lead & 0x1fU;
  }
  for (; more > 0 && at < text.size() && (byte(at) & 0xc0U) == 0x80U; --more)
    code = (code << 6) | (byte(at++) & 0x3fU);
  return code;
}

int columns_of(char32_t code) {
  if ((code >= 0x300 && code < 0x370) || code == 0x200b || code == 0x200d ||
      (code >= 0xfe00 && code <= 0xfe0f))
    return 0;
  const bool wide = (code >= 0x1100 && code <= 0x115f) || (code >= 0x2e80 && code <= 0xa4cf) ||
                    (code >= 0xac00 && code <= 0xd7a3) || (code >= 0xf900 && code <= 0xfaff) ||
                    (code >= 0xfe30 && code <= 0xfe6f) || (code >= 0xff00 && code <= 0xff60) ||
                    (code >= 0x1f300 && code <= 0x1faff) || (code >= 0x20000 && code <= 0x3fffd);
  return wide ? 2 : 1;
}

}  // namespace

bool is_terminal(Stream stream) { return ::isatty(descriptor(stream)) == 1; }

bool colours(Stream stream) {
  if (!is_terminal(stream)) return false;
  const char* const no_color = std::getenv("NO_COLOR");
  if (no_color != nullptr && *no_color != '\0') return false;
  const char* const term = std::getenv("TERM");
  return term != nullptr && std::string_view(term) != "dumb";
}

int width(Stream stream, int fallback) {
  winsize size{};
  if (::ioctl(descriptor(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return fallback;
}

void print(std::string_view text) {
  Terminal& one = terminal();
  const std::lock_guard lock(one.mutex);
  std::string bytes;
  if (!one.status.empty()) bytes.append(erasure(one.status));
  bytes.append(text);
  if (text.empty() || text.back() != '\n') bytes.push_back('\n');
  bytes.append(one.status);
  raw(bytes);
}

void status(std::string_view text) {
  Terminal& one = terminal();
  const std::lock_guard lock(one.mutex);
  if (text.empty() && one.status.empty()) return;
  const std::string before = erasure(one.status);
  one.status = text.empty() ? std::string() : fitted(text);
  raw(before + one.status);
}

int columns(std::string_view text) {
  int total = 0;
  for (std::size_t at = 0; at < text.size();) total += columns_of(next_code_point(text, at));
  return total;
}

std::string fit(std::string_view text, int limit) {
  if (columns(text) <= limit) return std::string(text);
  if (limit < 1) return {};
  int used = 0;
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t after = at;
    const int wide = columns_of(next_code_point(text, after));
    if (used + wide > limit - 1) break;
    used += wide;
    at = after;
  }
  return std::string(text.substr(0, at)) + "…";
}

}  // namespace mcit::console
