#include "report/html.hpp"

#include <cctype>

#include "core/text.hpp"

namespace mcit::html {
namespace {

constexpr char32_t kReplacement = 0xfffd;

/// Takes one code point off the front; kReplacement for a byte that begins none.
char32_t take(std::string_view& rest) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(rest[i]); };
  const unsigned char first = byte(0);
  const std::size_t length = first < 0x80                    ? 1
                             : first >= 0xc2 && first < 0xe0 ? 2
                             : first >= 0xe0 && first < 0xf0 ? 3
                             : first >= 0xf0 && first < 0xf5 ? 4
                                                             : 0;
  bool good = length > 0 && length <= rest.size();
  char32_t point = length == 1 ? first : first & (0x7fU >> length);
  for (std::size_t i = 1; good && i < length; ++i) {
    good = (byte(i) & 0xc0U) == 0x80U;
    point = (point << 6) | (byte(i) & 0x3fU);
  }
  const bool too_long = (length == 3 && point < 0x800) || (length == 4 && point < 0x10000);
  if (!good || too_long || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) {
    rest.remove_prefix(1);
    return kReplacement;
  }
  rest.remove_prefix(length);
  return point;
}

/// Controls, non-characters, and marks that turn the direction of text.
bool is_forbidden(char32_t c) {
  if (c < 0x20) return c != '\n' && c != '\t';
  return (c >= 0x7f && c < 0xa0) || (c & 0xfffeU) == 0xfffeU || (c >= 0xfdd0 && c <= 0xfdef) ||
         (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f;
}

}  // namespace

std::string plain(std::string_view untrusted, std::size_t most) {
  std::string out;
  for (std::size_t taken = 0; !untrusted.empty() && taken < most; ++taken) {
    const std::string_view before = untrusted;
    const char32_t c = take(untrusted);
    if (c == kReplacement || is_forbidden(c))
      out += "\xef\xbf\xbd";
    else
      out += before.substr(0, before.size() - untrusted.size());
  }
  std::size_t left = 0;
  for (; !untrusted.empty(); ++left) take(untrusted);
  if (left > 0) out += "… (+" + std::to_string(left) + (left == 1 ? " character)" : " characters)");
  return out;
}

std::string text(std::string_view untrusted, std::size_t most) {
  std::string out;
  for (const char c : plain(untrusted, most)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string json(const Json& value) {
  std::string out;
  for (const char c : dump_json(value)) {
    if (c == '<')
      out += "\\u003c";
    else if (c == '>')
      out += "\\u003e";
    else if (c == '&')
      out += "\\u0026";
    else
      out += c;
  }
  return out;
}

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    unsigned three = 0;
    for (std::size_t k = 0; k < 3; ++k)
      three = three << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    for (std::size_t k = 0; k < 4; ++k)
      out += i + k > bytes.size() ? '=' : kDigits[(three >> (18 - 6 * k)) & 63U];
  }
  return out;
}

std::string id(std::string_view name) {
  std::string out;
  for (const char c : name) out += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '-';
  return out;
}

std::string column(const std::string& untrusted, const char* style) {
  return std::string("<th scope=\"col\"") + (*style == '\0' ? "" : std::string(" class=\"") + style + "\"") +
         ">" + text(untrusted, 80) + "</th>";
}

std::string row_head(const std::string& untrusted) {
  return "<th scope=\"row\">" + text(untrusted, 120) + "</th>";
}

std::string table(const std::string& style, const std::string& caption, const std::string& head,
                  const std::string& rows) {
  const std::string words = text(caption, 300);
  return "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"" + words + "\"><table class=\"" +
         style + "\"><caption><span>" + words + "</span></caption><thead><tr>" + head +
         "</tr></thead><tbody>\n" + rows + "</tbody></table></div>\n";
}

std::string count(double value) {
  constexpr double kThousand = 1e3, kMillion = 1e6, kBillion = 1e9;
  if (value >= kBillion) return fixed(value / kBillion, 2) + " G";
  if (value >= kMillion) return fixed(value / kMillion, 2) + " M";
  if (value >= 10 * kThousand) return fixed(value / kThousand, 0) + " k";
  return fixed(value, 0);
}

}  // namespace mcit::html
