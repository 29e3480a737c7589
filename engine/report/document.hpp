#pragma once
/// Titles, sentences and tables in a row, the same for the terminal, Markdown and LaTeX.

#include <optional>
#include <string>
#include <vector>

#include "report/table.hpp"

namespace mcit {

struct Block {
  std::string title;
  std::vector<std::string> text;  ///< sentences before the table
  std::optional<Table> table;
  std::vector<std::string> notes;  ///< what a reader must know, after it
};

/// @param width columns of the terminal
std::string blocks_terminal(const std::vector<Block>& blocks, int width, bool colours);
std::string blocks_markdown(const std::vector<Block>& blocks);
/// Table environments with booktabs' rules, to be included from a document of the user's. A block without a
/// table becomes a comment.
std::string blocks_latex(const std::vector<Block>& blocks);

}  // namespace mcit
