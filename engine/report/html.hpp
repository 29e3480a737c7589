#pragma once
/// Texts as they may stand in a page: nothing that a run, a record or a model wrote can become markup.
/// Private to this library.

#include <cstddef>
#include <string>
#include <string_view>

#include "core/json.hpp"

namespace mcit::html {

/// UTF-8 for people: bytes that are none, and characters that HTML forbids or that would turn the direction
/// of what follows, become U+FFFD. Not escaped: for labels that text() or json() still sees.
/// @param most code points; what is beyond is counted: "… (+120 characters)"
std::string plain(std::string_view untrusted, std::size_t most = static_cast<std::size_t>(-1));

/// plain(), as the content of an element or of an attribute in double quotes.
std::string text(std::string_view untrusted, std::size_t most = static_cast<std::size_t>(-1));

/// JSON as the content of a script element: no "<", ">" or "&" outside of escapes.
std::string json(const Json& value);

/// RFC 4648, padded.
std::string base64(std::string_view bytes);

/// A name as part of an id attribute: letters and digits stay, the rest becomes "-".
std::string id(std::string_view name);

/// A name at the head of a column, or of a row. @param style class, or empty
std::string column(const std::string& untrusted, const char* style = "");
std::string row_head(const std::string& untrusted);
/// A table in a box that scrolls sideways where the window is narrow. @param caption untrusted
/// @param head,rows markup: what column() gave, and whole <tr> elements
std::string table(const std::string& style, const std::string& caption, const std::string& head,
                  const std::string& rows);

/// "1.23 M", "168 k", "950".
std::string count(double value);

}  // namespace mcit::html
