#pragma once
/// Reads a page as strictly as the page is written: every element closed, every attribute in double quotes.

#include <catch2/catch_test_macros.hpp>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace mcit::test {

struct Page {
  std::map<std::string, int> elements;                          ///< how often each stands there
  std::vector<std::pair<std::string, std::string>> attributes;  ///< all of them, in order
  std::string words;  ///< everything outside of tags, scripts and styles
};

/// Fails the test at the first thing that is no such page.
inline Page read_page(const std::string& html) {
  static const std::set<std::string> kVoid = {"meta", "img", "br"};
  // drawn shapes close themselves
  Page page;
  std::vector<std::string> open;
  const auto name_end = [&](std::size_t at) { return html.find_first_of(" \n/>=", at); };
  std::size_t at = html.find('\n');  // behind the doctype
  REQUIRE(html.starts_with("<!doctype html>\n"));
  while (at < html.size()) {
    const std::size_t tag = html.find('<', at);
    page.words += html.substr(at, tag - at);
    if (tag == std::string::npos) break;
    INFO("at byte " << tag << ": " << html.substr(tag, 80));
    if (html[tag + 1] == '/') {
      const std::size_t end = html.find('>', tag);
      REQUIRE_FALSE(open.empty());
      REQUIRE(open.back() == html.substr(tag + 2, end - tag - 2));
      open.pop_back();
      at = end + 1;
      continue;
    }
    std::size_t here = name_end(tag + 1);
    const std::string name = html.substr(tag + 1, here - tag - 1);
    REQUIRE(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz123456") == std::string::npos);
    ++page.elements[name];
    while (html[here] != '>' && html[here] != '/') {
      here = html.find_first_not_of(" \n", here);
      if (html[here] == '>' || html[here] == '/') break;
      const std::size_t end = name_end(here);
      const std::string attribute = html.substr(here, end - here);
      here = end;
      std::string value;
      if (html[here] == '=') {
        REQUIRE(html[here + 1] == '"');
        const std::size_t quote = html.find('"', here + 2);
        value = html.substr(here + 2, quote - here - 2);
        here = quote + 1;
      }
      page.attributes.emplace_back(attribute, value);
    }
    const bool closed = html[here] == '/';
    at = html.find('>', here) + 1;
    if (name == "script" || name == "style") {
      at = html.find("</" + name + ">", at);
      REQUIRE(at != std::string::npos);
    }
    if (!closed && !kVoid.contains(name)) open.push_back(name);
  }
  CHECK(open.empty());
  return page;
}

/// Whether every byte belongs to well-formed UTF-8.
inline bool is_utf8(const std::string& text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    const std::size_t length = c < 0x80                ? 1
                               : c >= 0xc2 && c < 0xe0 ? 2
                               : c >= 0xe0 && c < 0xf0 ? 3
                               : c >= 0xf0 && c < 0xf5 ? 4
                                                       : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (std::size_t k = 1; k < length; ++k)
      if ((static_cast<unsigned char>(text[i + k]) & 0xc0) != 0x80) return false;
    i += length;
  }
  return true;
}

}  // namespace mcit::test
