#pragma once
/// The mixture that the built-in base is pre-trained on. It never draws from the test side (Noto drawings,
/// test faces, test words, test digits, easy-VQA) and never uses the wording of a stream task.
///
/// Text format (template "plain"), for the base and for the stream alike. Words are lower-case and separated
/// by one space, punctuation is a word of its own ("what is this ?"). One sequence is
///
///     <s><image> {question} {answer}</s>
///
/// with exactly one space before the question and before the answer and no newline, so every word is the one
/// token "Ġword" in both. The prompt ends with the question's last word, and the loss begins at the answer's
/// first token. An answer of several words is its words, e.g. "d o g". A caption of the contrastive stage is
/// "<s> {caption}</s>".

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/random.hpp"
#include "mini/canvas.hpp"
#include "mini/pack.hpp"

namespace mcit::mini {

/// Relative share of each kind of sample; zero switches a kind off.
struct MixtureWeights {
  double name = 0.20;        ///< one object: what is it -> "dog"
  double scene = 0.16;       ///< 2-4 objects: what is at a place -> "dog"
  double point = 0.06;       ///< 2-4 objects: where is one -> "top left"
  double read = 0.22;        ///< 1-4 printed letters or digits -> "t r e e"
  double shape = 0.12;       ///< colour and kind of a shape -> "red circle"
  double corner = 0.04;      ///< where a shape is -> "top left"
  double yes_no = 0.05;      ///< is there a ..., half yes
  double choose = 0.05;      ///< which of 2-4 offered names is shown
  double flag = 0.06;        ///< country of a flag
  double relation = 0.02;    ///< how one object lies to another -> "left"
  double copy = 0.06;        ///< repeat 1-4 random words of the vocabulary, or one of them by its number
  double handwritten = 0.0;  ///< one handwritten digit of the training side -> "7"
};

struct MixtureOptions {
  MixtureWeights weights;
  int grid = 8;         ///< patch labels to a side; must divide 64
  double jitter = 1.0;  ///< strength 0..1 of the change of style, 0 = drawings as they are
  int max_letters = 4;  ///< longest text to read, 1..6
  int turns = 1;        ///< most questions about one picture, 1..6; none gives another's answer away
};

struct Question {
  std::string text;
  std::string answer;
};

struct Sample {
  std::array<std::uint8_t, kSide * kSide * 3> pixels;  ///< RGB, row by row
  std::string question;
  std::string answer;
  std::vector<Question> more;  ///< further turns of the same conversation
  std::string caption;         ///< a short true sentence about the picture, for the contrastive stage
  std::string kind;            ///< field of MixtureWeights that it came from, e.g. "scene"
  std::vector<std::int16_t>
      patches;  ///< grid * grid indices into Mixture::labels(), row by row; 0 = background
};

/// Draws samples. Every sample has a picture, also those whose question does not need it. Safe to share
/// between threads: all changing state is in the Rng. The same Rng state gives the same sample.
class Mixture {
 public:
  /// `pack` must outlive the mixture. Throws ConfigError on negative or all-zero weights, a bad grid or
  /// jitter.
  Mixture(const Pack& pack, const MixtureOptions& options);

  Sample draw(Rng& rng) const;

  /// A sample of one kind with one question, for evaluating the base. Throws ConfigError for an unknown kind.
  Sample draw(Rng& rng, std::string_view kind) const;

  /// Names of the kinds, in the order of MixtureWeights.
  static const std::vector<std::string>& kinds();

  /// What a patch label means: "background", then "dog", ..., "flag france", "glyph a", "red circle", ...
  const std::vector<std::string>& labels() const { return labels_; }

  /// Every word that the base or a stream task may use, sorted: the tokenizer holds each as one token.
  const std::vector<std::string>& vocabulary() const { return vocabulary_; }

 private:
  friend class Scene;

  const Pack& pack_;
  MixtureOptions options_;
  std::vector<double> cumulative_;  ///< upper end of each kind's share, of the sum of weights
  std::vector<const Face*> faces_;  ///< of the training side
  std::vector<const Digit*> digits_;
  std::vector<std::string> labels_;
  std::vector<std::string> vocabulary_;
  int first_flag_ = 0, first_glyph_ = 0, first_shape_ = 0;  ///< label indices
};

/// First and last word of what a patch label shows, without "flag" and "glyph"; empty for the background.
std::pair<std::string, std::string> label_words(const std::string& label);

/// Every word that the base or a stream task over `pack` may use, sorted.
std::vector<std::string> vocabulary(const Pack& pack);

}  // namespace mcit::mini
