#pragma once
/// The built-in data pack (benchmarks/mcit/mini/pack): drawings, flags, glyphs, digits, easy-VQA.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace mcit::mini {

/// Whose drawing of a thing. Everything trained on is Twemoji; Noto is the test style.
enum class Vendor { kTwemoji = 0, kNoto = 1 };

/// A square RGBA picture with premultiplied alpha, row by row.
struct Sprite {
  int side = 0;
  std::vector<std::uint8_t> rgba;  ///< side * side * 4
};

/// One drawing at full size and at half size, so that shrinking needs no wide filter.
struct Drawing {
  Sprite full;
  Sprite half;
};

struct Concept {
  std::string name;   ///< one word, e.g. "dog"
  std::string group;  ///< its class, e.g. "mammal"
  int group_id = 0;   ///< index into Pack::groups
  std::array<Drawing, 2> drawing;  ///< by Vendor
};

struct Flag {
  std::string name;       ///< country, lower-case words separated by single spaces
  std::string continent;  ///< one of Pack::continents
  std::array<Drawing, 2> drawing;
};

/// One character of one face, 8-bit coverage. Distances are in pixels at the size of the sheet.
struct Glyph {
  int width = 0;
  int height = 0;
  int left = 0;     ///< from the pen to the first column
  int top = 0;      ///< from the baseline up to the first row
  int advance = 0;  ///< to the next pen position
  std::vector<std::uint8_t> coverage;  ///< width * height
};

struct Face {
  std::string name;
  bool test = false;       ///< kept for test items
  int size = 0;            ///< em size in pixels
  std::vector<Glyph> glyphs;  ///< in the order of kGlyphs
};

/// The characters that every face holds, in order.
inline constexpr char kGlyphs[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// A handwritten digit of 8 x 8 values 0..16.
struct Digit {
  int value = 0;
  bool test = false;
  std::array<std::uint8_t, 64> ink{};
};

/// One easy-VQA question: which picture of its split, text, answer.
struct VqaItem {
  int picture = 0;
  std::string question;
  std::string answer;
};

/// Assets read once and shared read-only between threads.
class Pack {
 public:
  /// Reads every file of `folder`. Throws DataError naming the file when one is missing or damaged.
  explicit Pack(const std::filesystem::path& folder);

  std::vector<std::string> groups;      ///< class names
  std::vector<std::string> continents;  ///< the four of the `geo` task
  std::vector<Concept> concepts;
  std::vector<Flag> flags;
  std::vector<Face> faces;
  std::vector<Digit> digits;
  std::vector<std::string> train_words;  ///< words to read, 1-5 letters
  std::vector<std::string> test_words;   ///< disjoint from train_words
  std::vector<VqaItem> vqa_train;
  std::vector<VqaItem> vqa_test;

  /// Pixels (64 x 64 RGB) of picture `index` of an easy-VQA split.
  std::vector<std::uint8_t> vqa_picture(bool test, int index) const;

  /// Hash of every file of the pack, hexadecimal: goes into the meta data of what was made from it.
  const std::string& digest() const { return digest_; }

 private:
  std::filesystem::path folder_;
  std::string digest_;
};

}  // namespace mcit::mini
