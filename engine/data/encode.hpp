#pragma once
/// Records to token sequences: the prompt template, the image's tokens, labels on the answer only.

#include <cstdint>
#include <string>
#include <vector>

#include "data/records.hpp"
#include "data/tokenizer.hpp"
#include "mcit/types.hpp"

namespace mcit {

/// Names of the prompt templates:
///   plain      "<image> question answer</s>": the built-in base, one word a token
///   llava      "USER: <image>\nquestion ASSISTANT: answer</s>", the chat template of llava-hf checkpoints
///   vicuna_v1  the same behind the system sentence of the original LLaVA repository
const std::vector<std::string>& prompt_templates();

struct EncoderOptions {
  std::string prompt_template = "plain";
  std::int64_t image_tokens = 0;  ///< visual tokens a picture
  std::int64_t image_token_id = 0;
  std::int64_t eos_token_id = 2;
  std::int64_t max_length = 2048;  ///< rows the model can hold
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
  std::vector<Turn> render(const Record& record) const;
  std::vector<std::int64_t> tokens(const std::string& text, bool first) const;  ///< image token repeated
  void check_length(const Record& record, std::size_t rows, std::int64_t room) const;

  Tokenizer tokenizer_;
  EncoderOptions options_;
};

}  // namespace mcit
