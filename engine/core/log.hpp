#pragma once
/// Log lines of streamed pieces: `log::info("loaded ", rows, " rows")`. Nothing is shown or kept until the
/// executable opens a console or a file, so the libraries stay silent by themselves.

#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>

namespace mcit::log {

enum class Level { debug, info, warn, error, off };

/// Shows lines of this level and above on stderr, plainly, without timestamps. `off` closes the console.
void to_console(Level level = Level::info);
/// The lowest level shown on the console; `off` before to_console().
Level console_level();

/// Appends every line from debug up to `file`, with time stamp and level. @throws DataError when it cannot be
/// opened.
void add_file(const std::filesystem::path& file);
/// Flushes and closes the files.
void close_files();

bool enabled(Level level);
void write(Level level, std::string_view text);

template <class... Pieces>
void line(Level level, const Pieces&... pieces) {
  if (!enabled(level)) return;
  std::ostringstream text;
  (text << ... << pieces);
  write(level, text.str());
}
template <class... Pieces>
void debug(const Pieces&... pieces) {
  line(Level::debug, pieces...);
}
template <class... Pieces>
void info(const Pieces&... pieces) {
  line(Level::info, pieces...);
}
template <class... Pieces>
void warn(const Pieces&... pieces) {
  line(Level::warn, pieces...);
}
template <class... Pieces>
void error(const Pieces&... pieces) {
  line(Level::error, pieces...);
}

}  // namespace mcit::log
