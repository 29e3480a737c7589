#pragma once
/// The terminal, shared by log lines and progress bars so that neither tears the other.

#include <string>
#include <string_view>

namespace mcit::console {

enum class Stream { out, err };

bool is_terminal(Stream stream);
/// Colours are used on a terminal only, and not with NO_COLOR or TERM=dumb.
bool colours(Stream stream);
/// Columns of the terminal, or `fallback` when the stream is no terminal.
int width(Stream stream, int fallback = 100);

/// Writes whole lines to stderr above the status line. Thread-safe.
void print(std::string_view text);
/// Replaces the status, the last line or lines of the terminal, redrawn in place; empty removes it.
void status(std::string_view text);

/// Terminal columns of UTF-8 text: code points, wide East Asian ones counted twice, combining marks not at
/// all.
int columns(std::string_view text);
/// `text` cut to at most `limit` columns, ending in "…" when something was cut.
std::string fit(std::string_view text, int limit);

}  // namespace mcit::console
