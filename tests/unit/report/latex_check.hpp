#pragma once
/// What LaTeX would stumble over, found without LaTeX.

#include <string>
#include <string_view>
#include <vector>

namespace mcit::test {

/// The first fault in it: braces or environments that do not close, math that does not end, a sign with a
/// meaning that stands bare, a row with another number of cells than its tabular has columns. Empty when
/// there is none.
inline std::string latex_fault(std::string_view text) {
  std::vector<std::string> open;  // environments, and "{" for a brace
  std::size_t columns = 0, cells = 1;
  bool math = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const std::string_view rest = text.substr(i);
    const auto name_at = [&](std::size_t from) {
      const std::size_t end = rest.find('}', from);
      return std::string(rest.substr(from, end - from));
    };
    if (rest.starts_with("\\begin{tabular}{")) {
      columns = name_at(16).size();
      cells = 1;
      open.emplace_back("tabular");
      i += 16 + columns;
    } else if (rest.starts_with("\\begin{")) {
      open.push_back(name_at(7));
      i += 7 + open.back().size();
    } else if (rest.starts_with("\\end{")) {
      const std::string name = name_at(5);
      if (open.empty() || open.back() != name) return "\\end{" + name + "} closes nothing";
      open.pop_back();
      i += 5 + name.size();
    } else if (rest.starts_with("\\\\")) {
      if (cells != columns)
        return std::to_string(cells) + " cells for " + std::to_string(columns) + " columns";
      cells = 1;
      ++i;
    } else if (c == '\\') {
      if (i + 1 == text.size()) return "a lone backslash";
      ++i;  // a command, or an escaped sign
    } else if (c == '%') {
      if (i > 0 && text[i - 1] != '\n') return "a comment begins inside a line";
      i += rest.find('\n');
    } else if (c == '{') {
      open.emplace_back("{");
    } else if (c == '}') {
      if (open.empty() || open.back() != "{") return "a } too many";
      open.pop_back();
    } else if (c == '$') {
      math = !math;
    } else if (c == '&') {
      if (open.empty() || open.back() != "tabular") return "& outside of a tabular";
      ++cells;
    } else if (c == '#' || c == '~' || (!math && (c == '_' || c == '^'))) {
      return std::string("a bare ") + c;
    } else if (!math && (c == '<' || c == '>' || c == '|')) {
      return std::string("a bare ") + c;
    }
  }
  if (math) return "math that does not end";
  return open.empty() ? "" : open.back() + " is not closed";
}

}  // namespace mcit::test
