#include "report/heatmap.hpp"

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "metrics/matrix_io.hpp"

namespace mcit {
namespace {

using Catch::Matchers::ContainsSubstring;

int count(const std::string& text, const std::string& what) {
  int found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

TEST_CASE("numbers, hatching and frames stand where they belong") {
  const std::string svg = heatmap_svg(matrix_from_text("a b\n50 -\n40 100\n", "m"), "ewc on mini");
  CHECK_THAT(svg, ContainsSubstring("<title>ewc on mini</title>"));
  for (const char* number : {">50.0<", ">40.0<", ">100.0<"}) CHECK(count(svg, number) == 1);
  CHECK(count(svg, "url(#missing)") == 3);                 // the base row and the upper right cell
  CHECK(count(svg, "stroke=\"#d62728\"") == 2);            // the two cells right after learning
  CHECK(count(svg, "#fde725") == 1);                       // 100 % is the bright end of viridis, 253 231 37
  CHECK_THAT(svg, ContainsSubstring("fill=\"#21918c\""));  // 50 % is its middle, 33 145 140
}

TEST_CASE("the same matrix gives the same bytes") {
  const AccuracyMatrix m = matrix_from_text("1.04 2\n3 4\n5 6\n", "m");
  CHECK(heatmap_svg(m, "t") == heatmap_svg(m, "t"));
  CHECK_THAT(heatmap_svg(m, "t"), ContainsSubstring(">1.0<"));
}

TEST_CASE("names cannot break the picture") {
  AccuracyMatrix m({"<script>&\"", "b"}, 1, {1, 0});
  const std::string svg = heatmap_svg(m, "a < b\n\x01", {"stage <1>"});
  CHECK(count(svg, "<script>") == 0);
  CHECK_THAT(svg, ContainsSubstring("&lt;script&gt;&amp;&quot;"));
  CHECK_THAT(svg, ContainsSubstring("stage &lt;1&gt;"));
  CHECK_THAT(svg, ContainsSubstring("<title>a &lt; b  </title>"));
  CHECK(count(svg, "<svg") == 1);
}

TEST_CASE("scores beyond the scale take its ends, and an empty matrix is a picture too") {
  CHECK_THAT(heatmap_svg(matrix_from_text("a b\n169.2 -3\n0 0\n", "m"), "t"), ContainsSubstring(">169.2<"));
  CHECK_THAT(heatmap_svg(AccuracyMatrix(), "t"), ContainsSubstring("</svg>"));
}

}  // namespace
}  // namespace mcit
