#include "report/html.hpp"

#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

#include "report/chart.hpp"
#include "report/chart_svg.hpp"

namespace mcit {
namespace {

TEST_CASE("texts cannot leave an element or an attribute") {
  CHECK(html::text("<b a=\"1\" c='2'>&") == "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;");
  CHECK(html::text("größer 日本 🙂") == "größer 日本 🙂");
  CHECK(html::text("two\nlines\tand a tab") == "two\nlines\tand a tab");
}

TEST_CASE("what is no text becomes the replacement character") {
  const std::string r = "\xef\xbf\xbd";
  CHECK(html::text(std::string("a\0b", 3)) == "a" + r + "b");
  CHECK(html::text("\x1b[31m") == r + "[31m");
  CHECK(html::text("\xff") == r);
  CHECK(html::text("\xc3") == r);                          // cut short
  CHECK(html::text("\xc0\xbc") == r + r);                  // '<' in two bytes: an overlong form
  CHECK(html::text("\xe0\x80\xbc") == r + r + r);          // and in three
  CHECK(html::text("\xed\xa0\x80") == r + r + r);          // half of a surrogate pair
  CHECK(html::text("\xf4\x90\x80\x80") == r + r + r + r);  // beyond U+10FFFF
  CHECK(html::text("\xef\xbf\xbf") == r);                  // U+FFFF is no character
  CHECK(html::text("a\xe2\x80\xae"
                   "b") == "a" + r + "b");  // right-to-left override
}

TEST_CASE("long texts are cut between characters, and the rest is counted") {
  CHECK(html::text("ääää", 4) == "ääää");
  CHECK(html::text("ääää", 3) == "äää… (+1 character)");
  CHECK(html::text(std::string(1000, 'x'), 2) == "xx… (+998 characters)");
  CHECK(html::text("<<<", 1) == "&lt;… (+2 characters)");
}

TEST_CASE("data for scripts cannot end the script") {
  const Json value = {{"a", "</script><!--<script>"}, {"b", "\xff&"}};
  const std::string text = html::json(value);
  CHECK(text.find_first_of("<>&") == std::string::npos);
  CHECK(Json::parse(text).at("a") == "</script><!--<script>");
}

TEST_CASE("base64 is that of RFC 4648") {  // its section 10
  CHECK(html::base64("").empty());
  CHECK(html::base64("f") == "Zg==");
  CHECK(html::base64("fo") == "Zm8=");
  CHECK(html::base64("foo") == "Zm9v");
  CHECK(html::base64("foob") == "Zm9vYg==");
  CHECK(html::base64("fooba") == "Zm9vYmE=");
  CHECK(html::base64("foobar") == "Zm9vYmFy");
  CHECK(html::base64("\xff\xfe\xfd") == "//79");
}

TEST_CASE("ticks are labelled with the decimals that they have") {
  CHECK(chart::tick_text(52.5) == "52.5");
  CHECK(chart::tick_text(100) == "100");
  CHECK(chart::tick_text(0.1 + 0.2) == "0.3");
  CHECK(chart::tick_text(-0.0) == "0");
}

TEST_CASE("ticks are round numbers that lie in the range") {
  CHECK(chart::ticks(0, 100, 4) == std::vector<double>{0, 25, 50, 75, 100});
  CHECK(chart::ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(chart::ticks(-1, 1, 2) == std::vector<double>{-1, 0, 1});
  CHECK(chart::ticks(3, 3, 4) == std::vector<double>{3});
}

}  // namespace
}  // namespace mcit
