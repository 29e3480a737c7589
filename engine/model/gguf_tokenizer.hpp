#pragma once
/// The tokenizer inside a GGUF file as a Hugging Face tokenizer.json.

#include <string>

#include "model/gguf_file.hpp"

namespace mcit {

struct GgufTokenizer {
  std::string json, config_json;
  std::string missing;  ///< why both are empty
};

/// @param rows of the embedding; no more tokens than that @throws CheckpointError for damaged vocabularies.
GgufTokenizer read_gguf_tokenizer(const GgufFile& file, std::int64_t rows);

}  // namespace mcit
