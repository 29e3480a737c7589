#pragma once
/// The built-in data pack (benchmarks/mcit/mini/pack): drawings, flags, glyphs, digits, easy-VQA.

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "mini/raster.hpp"

namespace mcit::mini {

/// Whose drawing of a thing. Everything trained on is Twemoji; Noto is the test style.
enum class Vendor { kTwemoji = 0, kNoto = 1 };

/// A thing that both vendors drew: a concept or a flag.
struct Thing {
  std::string name;                ///< lower-case words; a concept has one, e.g. "dog"
  std::string group;               ///< class of a concept, e.g. "mammal"; continent of a flag
  std::array<Texture, 2> drawing;  ///< RGBA, by Vendor

  const Texture& by(Vendor vendor) const { return drawing[static_cast<std::size_t>(vendor)]; }
};

/// One character of one face. Distances are in pixels of the sheet.
struct Glyph {
  Texture ink;      ///< coverage, one channel
  int left = 0;     ///< from the pen to the first column
  int top = 0;      ///< from the baseline up to the first row
  int advance = 0;  ///< to the next pen position
};

struct Face {
  std::string name;
  bool test = false;          ///< kept for test items
  std::vector<Glyph> glyphs;  ///< in the order of kGlyphs
};

/// The characters that every face holds, in order, and the em of their pictures in pixels.
inline constexpr std::string_view kGlyphs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
inline constexpr int kGlyphEm = 40;

/// A handwritten digit, 8 x 8 values 0..16.
struct Digit {
  int value = 0;
  bool test = false;
  std::array<std::uint8_t, 64> ink{};
};

/// One easy-VQA question about a picture of its split, in the "plain" form (punctuation is a word of its
/// own).
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

  std::vector<Thing> concepts;
  std::vector<Thing> flags;
  std::vector<std::string> classes;     ///< groups of the concepts, in order of first use
  std::vector<std::string> continents;  ///< groups of the flags
  std::vector<Face> faces;
  std::vector<Digit> digits;
  std::vector<std::string> train_words;  ///< words to read, 3-5 letters
  std::vector<std::string> test_words;   ///< disjoint from train_words
  std::vector<VqaItem> vqa_train;
  std::vector<VqaItem> vqa_test;

  /// The pictures (64 x 64 RGB) of an easy-VQA split.
  std::vector<Raster> vqa_pictures(bool test) const;

  /// Hash of the names and bytes of the pack's files.
  const std::string& digest() const { return digest_; }

 private:
  std::filesystem::path folder_;
  std::string digest_;
  std::array<int, 2> vqa_count_{};  ///< pictures of the train and test split
};

}  // namespace mcit::mini
