#include "report/table.hpp"

#include <algorithm>
#include <stdexcept>

#include "core/console.hpp"
#include "core/text.hpp"

namespace mcit {
namespace {

constexpr int kGap = 2;  // spaces between columns

std::string padded(const std::string& text, int width, bool right) {
  const std::string blanks(static_cast<std::size_t>(std::max(0, width - console::columns(text))), ' ');
  return right ? blanks + text : text + blanks;
}

std::string bold(const std::string& text, bool on) { return on ? "\x1b[1m" + text + "\x1b[0m" : text; }

std::string without_trailing_blanks(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line;
}

std::string markdown_field(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '|') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

}  // namespace

void Table::row(std::vector<TableCell> cells) {
  if (cells.size() != columns_.size())
    throw std::invalid_argument("a table row needs one cell for each column");
  rows_.push_back(std::move(cells));
}

std::string Table::terminal(int width, bool colours) const {
  std::vector<int> widths;
  for (std::size_t c = 0; c < columns_.size(); ++c) {
    int widest = console::columns(columns_[c].title);
    for (const auto& cells : rows_) widest = std::max(widest, console::columns(cells[c].text));
    widths.push_back(widest);
  }
  std::string out;
  for (std::size_t next = 1; next < columns_.size() || out.empty();) {
    std::vector<std::size_t> block{0};
    int used = widths.empty() ? 0 : widths[0];
    while (next < columns_.size() && (block.size() == 1 || used + kGap + widths[next] <= width)) {
      used += kGap + widths[next];
      block.push_back(next++);
    }
    if (columns_.empty()) return {};
    if (!out.empty()) out += '\n';
    std::string head;
    for (const std::size_t c : block)
      head += (c == block.front() ? "" : std::string(kGap, ' ')) +
              padded(columns_[c].title, widths[c], columns_[c].right);
    out += bold(without_trailing_blanks(head), colours) + '\n';
    for (const auto& cells : rows_) {
      std::string line;
      for (const std::size_t c : block)
        line += (c == block.front() ? "" : std::string(kGap, ' ')) +
                bold(padded(cells[c].text, widths[c], columns_[c].right), colours && cells[c].best);
      out += without_trailing_blanks(line) + '\n';
    }
  }
  return out;
}

std::string Table::markdown() const {
  std::string out = "|";
  for (const TableColumn& column : columns_) out += " " + markdown_field(column.title) + " |";
  out += "\n|";
  for (const TableColumn& column : columns_) out += column.right ? "---:|" : "---|";
  for (const auto& cells : rows_) {
    out += "\n|";
    for (const TableCell& cell : cells) {
      const std::string mark = cell.best ? "**" : "";
      out += " " + mark + markdown_field(cell.text) + mark + " |";
    }
  }
  return out + "\n";
}

std::string Table::csv() const {
  std::string out;
  for (std::size_t c = 0; c < columns_.size(); ++c) out += (c == 0 ? "" : ",") + csv_field(columns_[c].title);
  for (const auto& cells : rows_) {
    out += '\n';
    for (std::size_t c = 0; c < cells.size(); ++c) out += (c == 0 ? "" : ",") + csv_field(cells[c].text);
  }
  return out + "\n";
}

}  // namespace mcit
