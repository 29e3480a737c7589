#pragma once
/// Records to token sequences: the prompt template, the image's tokens, labels on the answer only.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/tiles.hpp"
#include "data/records.hpp"
#include "data/tokenizer.hpp"
#include "mcit/types.hpp"

namespace mcit {

/// Names of the prompt templates:
///   plain      "<image> question answer": the built-in base, one word a token
///   llava      "USER: <image>\nquestion ASSISTANT: answer", the chat template of llava-hf checkpoints
///   vicuna_v1  the same behind the system sentence of the original LLaVA repository
///   chatml     "<|im_start|>user\n<image>\nquestion<|im_end|>\n<|im_start|>assistant\nanswer": Qwen2,
///              LLaVA-OneVision
///   smolvlm    "<|im_start|>User:<image>question<end_of_utterance>\nAssistant: answer"
///   question   "question answer": InstructBLIP, and text models without a chat template
/// Each answer ends with the model's end token.
const std::vector<std::string>& prompt_templates();

/// The same number of rows for every picture.
std::function<PictureText(const std::string& path)> fixed_picture(std::int64_t rows);

struct EncoderOptions {
  std::string prompt_template = "plain";
  /// What stands for a picture, by its file.
  std::function<PictureText(const std::string& path)> picture{};
  std::int64_t image_token_id =
      0;  ///< -1: the model sees no pictures, or its tokenizer has no token for them
  std::int64_t eos_token_id = 2;
  std::int64_t max_length = 2048;  ///< rows the model can hold
  std::int64_t vocabulary = 0;     ///< rows of the embedding; 0: not known, nothing is checked
  std::string model{};             ///< what else decides how pictures are written: part of digest()
};

class Encoder {
 public:
  /// @throws ConfigError for an unknown template; CheckpointError when the tokenizer has no "<image>" token.
  Encoder(Tokenizer tokenizer, EncoderOptions options);

  /// Prompt, answers and labels of a training row. @throws DataError naming the id when it is too long or
  /// when the prompt's ids are no prefix of the whole's.
  Example train(const Record& record, std::int64_t task, std::int64_t index) const;
  /// The prompt of a test row; labels are all -100. @param room rows that the answer may take
  Example test(const Record& record, std::int64_t task, std::int64_t index, std::int64_t room) const;

  /// Token ids of a bare answer as it stands behind a prompt, without the end token.
  std::vector<std::int64_t> answer(const std::string& text) const;
  std::string decode(const std::vector<std::int64_t>& ids) const;  ///< without surrounding blanks
  std::int64_t end_token() const { return options_.eos_token_id; }
  const Tokenizer& tokenizer() const { return tokenizer_; }
  std::string digest() const;  ///< of tokenizer and options

 private:
  struct Turn {
    std::string before, answer;  ///< template text up to the answer; the answer as the template writes it
  };
  std::vector<Turn> render(const Record& record, const PictureText* picture) const;
  /// Ids of a turn's text. @param picture what stands in place of "<image>", or null
  std::vector<std::int64_t> tokens(const std::string& text, bool first,
                                   const PictureText* picture = nullptr) const;
  /// What stands for a record's picture. @throws DataError for a model that sees none
  std::optional<PictureText> picture_of(const Record& record) const;
  void check_rows(const Record& record, const std::vector<std::int64_t>& tokens, std::int64_t room) const;

  Tokenizer tokenizer_;
  EncoderOptions options_;
  const struct PromptTemplate* template_;
};

}  // namespace mcit
