#pragma once
/// Small things that are done to texts everywhere.

#include <string>
#include <string_view>
#include <vector>

namespace mcit {

/// Without blanks, tabs and line ends around it.
std::string_view trimmed(std::string_view text);
/// ASCII letters in lower case, all other bytes as they are.
std::string lowered(std::string_view text);
/// One text of several. @param between stands between each two
std::string joined(const std::vector<std::string>& texts, std::string_view between);
/// A field of a CSV file (RFC 4180), quoted where it must be.
std::string csv_field(std::string_view text);
/// Shortest decimal text that reads back as the same number.
std::string shortest(double value);
/// With a fixed number of decimals; never "-0".
std::string fixed(double value, int decimals);

}  // namespace mcit
