#include "data/tokenizer.hpp"

#include "core/files.hpp"
#include "core/hash.hpp"
#include "data/tokenizers_c/tokenizers_c.h"
#include "mcit/errors.hpp"

namespace mcit {
namespace {

const std::uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const std::uint8_t*>(text.data());
}

/// Copies and frees.
std::string take(mcit_tok_bytes bytes) {
  std::string out(reinterpret_cast<const char*>(bytes.data), bytes.length);
  mcit_tok_free_bytes(bytes);
  return out;
}

}  // namespace

struct Tokenizer::Handle {
  explicit Handle(mcit_tok* tokenizer) : raw(tokenizer) {}
  ~Handle() { mcit_tok_free(raw); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  mcit_tok* raw;
};

Tokenizer Tokenizer::from_file(const std::filesystem::path& file) {
  if (std::error_code ignored; !std::filesystem::exists(file, ignored))
    throw CheckpointError(file.string(), "does not exist", "a model folder needs a tokenizer.json");
  constexpr std::uint64_t kLargest = 128ULL << 20;  // published ones stay below 40 MB
  return from_json(read_file(file, kLargest), file.string());
}

Tokenizer Tokenizer::from_json(std::string_view json, const std::string& where) {
  mcit_tok_bytes error{};
  mcit_tok* raw = mcit_tok_new(bytes_of(json), json.size(), &error);
  if (raw == nullptr) throw CheckpointError(where, "is no tokenizer: " + take(error));
  Tokenizer out;
  out.handle_ = std::make_shared<const Handle>(raw);
  out.digest_ = hash_text(json);
  return out;
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text, bool add_special) const {
  mcit_tok_bytes error{};
  const mcit_tok_ids ids = mcit_tok_encode(handle_->raw, bytes_of(text), text.size(), add_special, &error);
  if (error.data != nullptr) throw DataError("tokenizer", take(error));
  std::vector<std::int64_t> out(ids.data, ids.data + ids.length);
  mcit_tok_free_ids(ids);
  return out;
}

std::string Tokenizer::decode(std::span<const std::int64_t> ids, bool skip_special) const {
  std::vector<std::uint32_t> narrow;
  for (const std::int64_t id : ids) {
    if (id < 0 || id > UINT32_MAX) throw DataError("tokenizer", "id " + std::to_string(id) + " is no token");
    narrow.push_back(static_cast<std::uint32_t>(id));
  }
  mcit_tok_bytes error{};
  const mcit_tok_bytes text =
      mcit_tok_decode(handle_->raw, narrow.data(), narrow.size(), skip_special, &error);
  if (error.data != nullptr) throw DataError("tokenizer", take(error));
  return take(text);
}

std::optional<std::int64_t> Tokenizer::token_to_id(std::string_view token) const {
  const std::int64_t id = mcit_tok_id(handle_->raw, bytes_of(token), token.size());
  return id < 0 ? std::nullopt : std::optional(id);
}

std::int64_t Tokenizer::size() const { return static_cast<std::int64_t>(mcit_tok_size(handle_->raw)); }

}  // namespace mcit
