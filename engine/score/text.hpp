#pragma once
/// Text as scorers compare it: code points, so that no rule ever cuts a UTF-8 sequence in two.

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace mcit::text {

/// Code points of `utf8`. A malformed byte b becomes U+DC00 + b, so that different bytes stay different.
std::u32string decode(std::string_view utf8);

/// The inverse of decode().
std::string encode(std::u32string_view points);

/// Lower case of Latin, Greek, Cyrillic, Armenian and full-width letters; a final sigma counts as a sigma.
/// Other code points are left alone.
char32_t lower(char32_t point);
std::u32string lower(std::u32string_view points);

/// White space as Python's str.isspace() has it.
bool is_space(char32_t point);

/// Without white space at both ends.
std::u32string_view trim(std::u32string_view points);

/// The words between white space.
std::vector<std::u32string> split(std::u32string_view points);

/// Levenshtein distance: insertions, deletions and substitutions of code points.
std::size_t edit_distance(std::u32string_view left, std::u32string_view right);

/// Length of the longest common subsequence.
template <class Word>
std::size_t common_subsequence(const std::vector<Word>& left, const std::vector<Word>& right) {
  std::vector<std::size_t> row(right.size() + 1, 0);
  for (const Word& word : left) {
    std::size_t diagonal = 0;
    for (std::size_t j = 0; j < right.size(); ++j) {
      const std::size_t above = row[j + 1];
      row[j + 1] = word == right[j] ? diagonal + 1 : std::max(above, row[j]);
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace mcit::text
