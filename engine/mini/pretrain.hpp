#pragma once
/// The mixture that the built-in base is pre-trained on. It never draws from the test side (Noto drawings, test
/// faces, words, digits, easy-VQA) and never uses the wording of a stream task.
///
/// Text format ("plain" template), for the base and for the stream alike. Words are lower-case and separated by one
/// space, punctuation is a word of its own ("what is this ?"). One training sequence is
///
///     <s><image> {question} {answer}</s>
///
/// with exactly one space before the question and before the answer, so every word is the single token "Ġword" in
/// both places. The prompt ends with the question's last word; generation therefore starts with the token "Ġ...".
/// A multi-word answer is its words, e.g. "d o g". Captions for the contrastive stage are "<s> {caption}</s>".

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "mini/pack.hpp"

namespace mcit {
class Rng;
}

namespace mcit::mini {

inline constexpr int kSide = 64;  ///< pictures are kSide x kSide RGB

/// Relative share of each kind of sample; zero switches a kind off.
struct MixtureWeights {
  double name = 0.20;      ///< one object: what is it
  double scene = 0.20;     ///< 2-4 objects: what is at a place, where is one
  double read = 0.22;      ///< 1-4 printed letters and digits
  double shape = 0.12;     ///< colour and kind of a shape, its corner
  double yes_no = 0.06;    ///< is there a ..., half yes
  double choose = 0.06;    ///< which of four offered names is shown
  double flag = 0.06;      ///< country of a flag
  double relation = 0.03;  ///< two objects and how they lie
  double copy = 0.05;      ///< repeat 1-4 random words of the vocabulary
};

struct MixtureOptions {
  MixtureWeights weights;
  int grid = 8;            ///< patch labels per side; must divide 64
  double jitter = 1.0;     ///< strength of the style jitter on drawings, 0 = the drawings as they are
  int max_letters = 4;     ///< longest text to read
};

struct Sample {
  std::array<std::uint8_t, kSide * kSide * 3> pixels;  ///< RGB, row by row
  std::string question;
  std::string answer;
  std::string caption;  ///< a short true sentence about the picture, for the contrastive stage
  std::string kind;     ///< field of MixtureWeights that it came from, e.g. "scene"
  std::vector<std::int16_t> patches;  ///< grid * grid indices into Mixture::labels(), row by row; 0 = background
};

/// Draws samples. Thread-safe: all state is in the Rng and the options.
class Mixture {
 public:
  /// `pack` must outlive the mixture. Throws ConfigError on negative or all-zero weights or a bad grid.
  Mixture(const Pack& pack, MixtureOptions options);

  Sample draw(Rng& rng) const;

  /// A sample of one named kind, for evaluating the base. Throws ConfigError for an unknown kind.
  Sample draw(Rng& rng, const std::string& kind) const;

  /// Names of the kinds, in the order of MixtureWeights.
  static const std::vector<std::string>& kinds();

  /// What a patch label means: "background", then "concept dog", "flag france", "glyph a", "shape red circle" ...
  const std::vector<std::string>& labels() const { return labels_; }

  /// Every word that the base or any stream task may use, sorted: the tokenizer holds each as one token.
  const std::vector<std::string>& vocabulary() const { return vocabulary_; }

 private:
  const Pack& pack_;
  MixtureOptions options_;
  std::vector<double> cumulative_;
  std::vector<std::string> labels_;
  std::vector<std::string> vocabulary_;
};

}  // namespace mcit::mini
