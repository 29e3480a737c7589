#include <array>
#include <string_view>
#include <utility>

#include "report/table.hpp"

namespace mcit {
namespace {

using Spelling = std::pair<std::string_view, std::string_view>;
constexpr std::array<Spelling, 28> kSpellings{{
    {"\\", "\\textbackslash{}"},
    {"{", "\\{"},
    {"}", "\\}"},
    {"$", "\\$"},
    {"&", "\\&"},
    {"#", "\\#"},
    {"%", "\\%"},
    {"_", "\\_"},
    {"~", "\\textasciitilde{}"},
    {"^", "\\textasciicircum{}"},
    {"<", "$<$"},
    {">", "$>$"},
    {"|", "$|$"},
    {"\n", " "},
    {"–", "--"},
    {"—", "---"},
    {"±", "$\\pm$"},
    {"→", "$\\rightarrow$"},
    {"≤", "$\\leq$"},
    {"≥", "$\\geq$"},
    {"×", "$\\times$"},
    {"√", "$\\surd$"},
    {"α", "$\\alpha$"},
    {"β", "$\\beta$"},
    {"χ", "$\\chi$"},
    {"²", "$^2$"},
    {"Σ", "$\\Sigma$"},
    {"…", "\\dots{}"},
}};

/// A negative number has a minus sign, not a hyphen.
std::string cell_text(std::string_view text) {
  const bool negative = text.size() > 1 && text[0] == '-' && text[1] >= '0' && text[1] <= '9';
  return negative ? "$-$" + latex_text(text.substr(1)) : latex_text(text);
}

}  // namespace

std::string latex_text(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const Spelling* found = nullptr;
    for (const Spelling& spelling : kSpellings)
      if (text.starts_with(spelling.first)) found = &spelling;
    if (found == nullptr) {
      out += text.front();
      text.remove_prefix(1);
    } else {
      out += found->second;
      text.remove_prefix(found->first.size());
    }
  }
  return out;
}

std::string Table::latex() const {
  std::string out = "\\begin{tabular}{";
  for (const TableColumn& column : columns_) out += column.right ? 'r' : 'l';
  out += "}\n\\toprule\n";
  for (std::size_t c = 0; c < columns_.size(); ++c)
    out += (c == 0 ? "" : " & ") + latex_text(columns_[c].title);
  out += " \\\\\n\\midrule\n";
  for (const auto& cells : rows_) {
    for (std::size_t c = 0; c < cells.size(); ++c) {
      const std::string text = cell_text(cells[c].text);
      const bool argument = c == 0 && !cells[c].best && (text.starts_with('[') || text.starts_with('*'));
      if (argument) out += "{}";  // else the line break before it would take it for its own
      out += (c == 0 ? "" : " & ") + (cells[c].best ? "\\textbf{" + text + "}" : text);
    }
    out += " \\\\\n";
  }
  return out + "\\bottomrule\n\\end{tabular}\n";
}

}  // namespace mcit
