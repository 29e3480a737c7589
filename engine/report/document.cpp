#include "report/document.hpp"

#include <sstream>

#include "core/console.hpp"

namespace mcit {
namespace {

/// Broken at blanks; lines after the first are indented.
std::string wrapped(const std::string& text, int width, const std::string& indent) {
  std::istringstream words(text);
  std::string out, line, word;
  while (words >> word) {
    if (!line.empty() && console::columns(line) + 1 + console::columns(word) > width) {
      out += line + '\n';
      line = indent + word;
    } else {
      line += (line.empty() ? "" : " ") + word;
    }
  }
  return out + line + '\n';
}

std::string comment(const std::string& text) {
  std::string out = "% ";
  for (const char c : text) out += c == '\n' ? ' ' : c;
  return out + '\n';
}

}  // namespace

std::string blocks_terminal(const std::vector<Block>& blocks, int width, bool colours) {
  std::string out;
  for (const Block& block : blocks) {
    if (!out.empty()) out += '\n';
    out += (colours ? "\x1b[1m" + block.title + "\x1b[0m" : block.title) + '\n';
    for (const std::string& text : block.text) out += wrapped(text, width, "");
    if (block.table) out += '\n' + block.table->terminal(width, colours);
    for (const std::string& note : block.notes)
      out += (&note == &block.notes.front() ? "\n" : "") + wrapped("note: " + note, width, "  ");
  }
  return out;
}

std::string blocks_markdown(const std::vector<Block>& blocks) {
  std::string out;
  for (const Block& block : blocks) {
    out += (out.empty() ? "## " : "\n## ") + block.title + '\n';
    for (const std::string& text : block.text) out += '\n' + text + '\n';
    if (block.table) out += '\n' + block.table->markdown();
    for (const std::string& note : block.notes)
      out += (&note == &block.notes.front() ? "\n- " : "- ") + note + '\n';
  }
  return out;
}

std::string blocks_latex(const std::vector<Block>& blocks) {
  std::string out = "% Needs \\usepackage{booktabs}.\n";
  for (const Block& block : blocks) {
    out += '\n';
    if (!block.table) {
      out += comment(block.title);
      for (const std::string& text : block.text) out += comment(text);
      for (const std::string& note : block.notes) out += comment(note);
      continue;
    }
    out += "\\begin{table}\n\\centering\n\\caption{" + latex_text(block.title) + "}\n";
    out += block.table->latex();
    for (const auto* sentences : {&block.text, &block.notes})
      for (const std::string& text : *sentences) out += "\\par{\\footnotesize " + latex_text(text) + "}\n";
    out += "\\end{table}\n";
  }
  return out;
}

}  // namespace mcit
