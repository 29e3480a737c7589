#pragma once
/// A table of texts, for the terminal, Markdown, CSV and LaTeX.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mcit {

struct TableColumn {
  std::string title;
  bool right = true;  ///< numbers are set flush right, words flush left
};

struct TableCell {
  std::string text;
  bool best = false;  ///< printed bold where that can be done
};

/// A text as LaTeX sets it: what has a meaning there is escaped, and the signs that tables use are spelled
/// out.
std::string latex_text(std::string_view text);

class Table {
 public:
  explicit Table(std::vector<TableColumn> columns) : columns_(std::move(columns)) {}

  /// @throws std::invalid_argument unless there is one cell for each column.
  void row(std::vector<TableCell> cells);
  std::size_t rows() const { return rows_.size(); }
  const std::vector<TableColumn>& columns() const { return columns_; }
  const std::vector<std::vector<TableCell>>& cells() const { return rows_; }  ///< row by row

  /// Aligned by terminal columns (UTF-8, wide characters). What does not fit in `width` goes on in further
  /// blocks, each beginning with the first column again.
  std::string terminal(int width, bool colours) const;
  std::string markdown() const;
  std::string csv() const;
  /// A tabular with the rules of booktabs.
  std::string latex() const;

 private:
  std::vector<TableColumn> columns_;
  std::vector<std::vector<TableCell>> rows_;
};

}  // namespace mcit
