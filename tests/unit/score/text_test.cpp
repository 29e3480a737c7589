#include "score/text.hpp"

#include <catch2/catch_test_macros.hpp>
#include <string>

namespace text = mcit::text;

namespace {

std::string lowered(std::string_view utf8) { return text::encode(text::lower(text::decode(utf8))); }

}  // namespace

TEST_CASE("decode and encode are inverse, malformed bytes included", "[score][text]") {
  for (const std::string_view utf8 : {"", "plain", "naïve 日本語 \U0001F642", "\x80", "caf\xC3", "\xC0\xAF",
                                      "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "a\xFFz"}) {
    CHECK(text::encode(text::decode(utf8)) == utf8);
  }
  CHECK(text::decode("é") == U"é");
  CHECK(text::decode("\U0001F642") == U"\U0001F642");
  // The overlong form of '/', a surrogate and a value past U+10FFFF (The Unicode Standard, table 3-7) are
  // bytes.
  CHECK(text::decode("\xC0\xAF").size() == 2);
  CHECK(text::decode("\xED\xA0\x80").size() == 3);
  CHECK(text::decode("\xF4\x90\x80\x80").size() == 4);
  CHECK(text::decode("\xC3") != text::decode("\xC4"));
}

// Expected strings: Python 3.11, str.lower(), but for the final sigma.
TEST_CASE("lower knows the alphabets that answers come in", "[score][text]") {
  CHECK(lowered("ABC xyz 123 _[]") == "abc xyz 123 _[]");
  CHECK(lowered("ÀÉÎÕÜÞ×ß") == "àéîõüþ×ß");
  CHECK(lowered("ŁÓDŹ ČEŠTINA Ÿ ŽŐŰ") == "łódź čeština ÿ žőű");
  CHECK(lowered("ĐƯỜNG PHỐ CỔ ƠN") == "đường phố cổ ơn");
  CHECK(lowered("ΆΈΉΊΌΎΏ ΚΑΛΗΜΕΡΑ") == "άέήίόύώ καλημερα");
  CHECK(lowered("ПРИВЕТ ЁЖ ЇЖАК ҐАНОК Ӏ") == "привет ёж їжак ґанок ӏ");
  CHECK(lowered("ԲԱՐԵՎ") == "բարեվ");
  CHECK(lowered("ＡＢＣ") == "ａｂｃ");
  CHECK(lowered("ΟΔΟΣ") == lowered("οδος"));  // Σ is σ inside a word and ς at its end
  CHECK(lowered("日本語 \xC3 \U0001F642") == "日本語 \xC3 \U0001F642");
}

TEST_CASE("trim and split know Unicode white space", "[score][text]") {
  CHECK(text::trim(U"\u00A0 \u2003a b\u3000\n") == U"a b");
  CHECK(text::trim(U" \t ").empty());
  CHECK(text::split(U"  two\u00A0words\n") == std::vector<std::u32string>{U"two", U"words"});
  CHECK(text::split(U" ").empty());
  CHECK(text::split(U"zero\u200Bwidth").size() == 1);  // Python: "\u200b".isspace() is False
}

TEST_CASE("edit distance counts code points", "[score][text]") {
  CHECK(text::edit_distance(U"kitten", U"sitting") ==
        3);  // the textbook pair of Wagner and Fischer's algorithm
  CHECK(text::edit_distance(U"", U"abc") == 3);
  CHECK(text::edit_distance(U"abc", U"") == 3);
  CHECK(text::edit_distance(U"café", U"cafe") == 1);
  CHECK(text::edit_distance(U"same", U"same") == 0);
}
