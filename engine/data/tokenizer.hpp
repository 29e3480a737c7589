#pragma once
/// A Hugging Face tokenizer.json: text to ids and back, through the `tokenizers` crate (tokenizers_c/).

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mcit {

/// Immutable; copies share the same tokenizer, and any thread may use it.
class Tokenizer {
 public:
  /// @throws CheckpointError naming the file.
  static Tokenizer from_file(const std::filesystem::path& file);
  static Tokenizer from_json(std::string_view json, const std::string& where);

  /// @param add_special the template's own tokens, such as a begin token @throws DataError for text that is
  /// not UTF-8.
  std::vector<std::int64_t> encode(std::string_view text, bool add_special = true) const;
  std::string decode(std::span<const std::int64_t> ids, bool skip_special = true) const;
  std::optional<std::int64_t> token_to_id(std::string_view token) const;
  std::int64_t size() const;                             ///< vocabulary, added tokens included
  const std::string& digest() const { return digest_; }  ///< hash of tokenizer.json

 private:
  struct Handle;
  std::shared_ptr<const Handle> handle_;
  std::string digest_;
};

}  // namespace mcit
