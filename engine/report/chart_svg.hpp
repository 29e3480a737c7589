#pragma once
/// The few SVG elements that charts are drawn of. Texts arrive escaped. Private to this library.

#include <string>

namespace mcit::chart {

/// A tick of ticks(): as many decimals as it has, at most three.
std::string tick_text(double tick);
/// "12.5,3 ": one decimal.
std::string svg_pair(double x, double y);
std::string svg_line(double x1, double y1, double x2, double y2, const char* style);
std::string svg_text(double x, double y, const std::string& escaped, const char* style);
/// Ends at (x, y), rising to it at 40 degrees.
std::string svg_slanted(double x, double y, const std::string& escaped, const char* style);
/// As wide as its container. @param says escaped
std::string svg_document(double width, double height, const std::string& says, const std::string& body);

/// "c3", or "cn" for a neutral series.
std::string series_class(int colour);
/// Path of a series' point around (x, y).
std::string marker(int colour, double x, double y, double radius);

}  // namespace mcit::chart
