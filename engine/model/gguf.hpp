#pragma once
/// A language model in llama.cpp's GGUF format, as the Hugging Face folder it was made of.

#include <filesystem>
#include <optional>
#include <string>

#include "mcit/types.hpp"

namespace mcit {

/// What the files of the folder hold.
struct GgufModel {
  /// Names of LlamaForCausalLM or Qwen2ForCausalLM; lm_head.weight only where the file has a head of its own.
  /// Some may point into the file: they must not be written to.
  StateDict tensors;
  std::string config_json;
  std::string tokenizer_json;         ///< empty where it cannot be rebuilt
  std::string tokenizer_config_json;  ///< special tokens and chat template, likewise
  std::string tokenizer_missing;      ///< why the two are empty
};

/// Reads architecture llama (Mistral and SmolLM among them) or qwen2, tokenizers gpt2 (byte-level BPE) or
/// llama (SentencePiece BPE); K-quants and others become plain numbers.
/// @param dtype of all tensors; without one float16 stays float16, everything else becomes float32
/// @throws CheckpointError naming the file and the key or tensor; Interrupted between two tensors.
GgufModel read_gguf(const std::filesystem::path& file, std::optional<at::ScalarType> dtype = {});

}  // namespace mcit
