#include "model/gguf_tokenizer.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <tuple>
#include <unordered_map>

#include "mcit/errors.hpp"

namespace mcit {
namespace {

using nlohmann::json;  // not the ordered one, which looks every key of a vocabulary up from the beginning

enum TokenType : std::int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

constexpr std::size_t kLongestToken = 1024;  // bytes; published vocabularies stay below 300

constexpr char kSpace[] = "\u2581";
constexpr char kQwen2Pattern[] =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

std::string key_of(const char* name) { return std::string("tokenizer.ggml.") + name; }

/// Tokens in order of their ids.
struct Vocabulary {
  std::vector<std::string_view> tokens;
  std::vector<std::int64_t> types;
  std::unordered_map<std::string_view, std::size_t> ids;
};

Vocabulary read_vocabulary(const GgufFile& file, std::int64_t rows) {
  const std::string key = key_of("tokens"), where = file.where() + ": " + key;
  Vocabulary v;
  v.tokens = file.texts(key);
  if (v.tokens.size() > static_cast<std::size_t>(rows))
    throw CheckpointError(where, "holds " + std::to_string(v.tokens.size()) + " tokens, the embedding has " +
                                     std::to_string(rows) + " rows");
  v.types.assign(v.tokens.size(), kNormal);
  if (file.has(key_of("token_type"))) v.types = file.integers(key_of("token_type"));
  if (v.types.size() != v.tokens.size())
    throw CheckpointError(file.where() + ": " + key_of("token_type"),
                          "holds another number of entries than tokens");
  // Rows that only fill the embedding up to a round number are no tokens.
  while (!v.types.empty() && v.types.back() == kUnused) {
    v.types.pop_back();
    v.tokens.pop_back();
  }
  for (std::size_t id = 0; id < v.tokens.size(); ++id) {
    if (v.tokens[id].empty() || v.tokens[id].size() > kLongestToken)
      throw CheckpointError(where, "token " + std::to_string(id) + " is " +
                                       std::to_string(v.tokens[id].size()) + " bytes long");
    if (const auto [other, fresh] = v.ids.emplace(v.tokens[id], id); !fresh)
      throw CheckpointError(
          where, "tokens " + std::to_string(other->second) + " and " + std::to_string(id) + " are the same");
  }
  return v;
}

/// The pairs of a byte-level BPE, as the file lists them: "left right".
json listed_merges(const GgufFile& file, const Vocabulary& v) {
  json merges = json::array();
  for (const std::string_view merge : file.texts(key_of("merges"))) {
    const std::size_t gap = merge.find(' ', 1);
    const std::string_view left = merge.substr(0, gap),
                           right = gap < merge.size() ? merge.substr(gap + 1) : "";
    if (!v.ids.contains(left) || !v.ids.contains(right) || !v.ids.contains(std::string(left).append(right)))
      throw CheckpointError(file.where() + ": " + key_of("merges"),
                            "entry " + std::to_string(merges.size()) + " makes no token of two tokens");
    merges.push_back({left, right});
  }
  return merges;
}

/// SentencePiece merges whatever makes the piece of the highest score: all pairs that make a piece, best
/// first.
json scored_merges(const GgufFile& file, const Vocabulary& v) {
  std::vector<double> scores = file.numbers(key_of("scores"));
  const std::string where = file.where() + ": " + key_of("scores");
  if (scores.size() < v.tokens.size())
    throw CheckpointError(where, "holds fewer entries than there are tokens");
  std::vector<std::tuple<double, std::size_t, std::size_t>> pairs;
  for (std::size_t id = 0; id < v.tokens.size(); ++id) {
    if (std::isnan(scores[id]))
      throw CheckpointError(where, "entry " + std::to_string(id) + " is not a number");
    if (v.types[id] != kNormal) continue;
    for (std::size_t cut = 1; cut < v.tokens[id].size(); ++cut) {
      const auto left = v.ids.find(v.tokens[id].substr(0, cut)), right = v.ids.find(v.tokens[id].substr(cut));
      if (left != v.ids.end() && right != v.ids.end())
        pairs.emplace_back(-scores[id], left->second, right->second);
    }
  }
  std::sort(pairs.begin(), pairs.end());
  json merges = json::array();
  for (const auto& [score, left, right] : pairs) merges.push_back({v.tokens[left], v.tokens[right]});
  return merges;
}

json added_tokens(const Vocabulary& v) {
  json added = json::array();
  for (std::size_t id = 0; id < v.tokens.size(); ++id) {
    if (v.types[id] != kControl && v.types[id] != kUserDefined && v.types[id] != kUnknown) continue;
    added.push_back({{"id", id},
                     {"content", v.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", v.types[id] != kUserDefined}});
  }
  return added;
}

json byte_level(bool split_words) {
  return {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", split_words}};
}

/// How a byte-level BPE cuts text before it merges, by llama.cpp's name for it. False for an unknown name.
bool cut_text(const std::string& name, json& tokenizer) {
  json first;
  if (name == "smollm") {
    first = {{"type", "Digits"}, {"individual_digits", true}};
  } else if (name == "qwen2") {
    tokenizer["normalizer"] = {{"type", "NFC"}};
    first = {{"type", "Split"},
             {"pattern", {{"Regex", kQwen2Pattern}}},
             {"behavior", "Isolated"},
             {"invert", false}};
  } else if (name != "gpt-2" && name != "default") {
    return false;
  }
  tokenizer["pre_tokenizer"] = byte_level(name != "qwen2");
  if (!first.is_null())
    tokenizer["pre_tokenizer"] = {{"type", "Sequence"},
                                  {"pretokenizers", {first, byte_level(name != "qwen2")}}};
  return true;
}

/// SentencePiece writes spaces as U+2581, one of them in front of the text.
void mark_spaces(bool one_in_front, json& tokenizer) {
  const json space = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}};
  const json back = {{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}};
  json rules = json::array(), decoders = {back, {{"type", "ByteFallback"}}, {{"type", "Fuse"}}};
  if (one_in_front) {
    rules.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  rules.push_back(space);
  tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", rules}};
  tokenizer["decoder"] = {{"type", "Sequence"}, {"decoders", decoders}};
}

/// The text of a special token, or null.
json special(const GgufFile& file, const Vocabulary& v, const char* name) {
  const std::string key = key_of(name) + "_token_id";
  const std::int64_t id = file.integer(key, -1);
  if (!file.has(key)) return nullptr;
  if (id < 0 || id >= static_cast<std::int64_t>(v.tokens.size()))
    throw CheckpointError(file.where() + ": " + key,
                          "lies outside the vocabulary of " + std::to_string(v.tokens.size()));
  return v.tokens[static_cast<std::size_t>(id)];
}

/// Puts the begin token in front of every text.
json begin_template(const json& token, std::int64_t id) {
  const json begin = {{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
  const auto text = [](const char* name, int type) -> json {
    return {{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", json::array({begin, text("A", 0)})},
          {"pair", json::array({begin, text("A", 0), text("B", 1)})},
          {"special_tokens",
           {{token.get<std::string>(),
             {{"id", token}, {"ids", json::array({id})}, {"tokens", json::array({token})}}}}}};
}

std::string config_json(const GgufFile& file, const Vocabulary& v) {
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  constexpr std::pair<const char*, const char*> kSpecial[] = {
      {"bos", "bos_token"}, {"eos", "eos_token"}, {"unknown", "unk_token"}, {"padding", "pad_token"}};
  for (const auto& [name, key] : kSpecial)
    if (json token = special(file, v, name); !token.is_null()) config[key] = std::move(token);
  if (file.has("tokenizer.chat_template")) config["chat_template"] = file.text("tokenizer.chat_template");
  return config.dump(2) + "\n";
}

}  // namespace

GgufTokenizer read_gguf_tokenizer(const GgufFile& file, std::int64_t rows) {
  const std::string kind = file.text(key_of("model"), "none"), cut = file.text(key_of("pre"), "default");
  const bool pieces = kind == "llama";
  if (!pieces && kind != "gpt2")
    return {"", "",
            "its tokenizer is of the kind '" + printable(kind) + "'; those that are rebuilt: gpt2, llama"};
  json tokenizer = {{"version", "1.0"},          {"truncation", nullptr},       {"padding", nullptr},
                    {"added_tokens", {}},        {"normalizer", nullptr},       {"pre_tokenizer", nullptr},
                    {"post_processor", nullptr}, {"decoder", byte_level(true)}, {"model", {}}};
  if (pieces) {
    mark_spaces(file.flag(key_of("add_space_prefix"), true), tokenizer);
  } else if (!cut_text(cut, tokenizer)) {
    return {"", "",
            "its tokenizer cuts text as '" + printable(cut) +
                "'; those that are rebuilt: smollm, qwen2, gpt-2, default"};
  }
  const Vocabulary v = read_vocabulary(file, rows);
  tokenizer["added_tokens"] = added_tokens(v);
  const json begin = special(file, v, "bos");
  if (!begin.is_null() && file.flag(key_of("add_bos_token"), pieces))
    tokenizer["post_processor"] = begin_template(begin, file.integer(key_of("bos_token_id")));
  json& model = tokenizer["model"];
  model = {{"type", "BPE"},
           {"dropout", nullptr},
           {"unk_token", pieces ? special(file, v, "unknown") : json()},
           {"continuing_subword_prefix", nullptr},
           {"end_of_word_suffix", nullptr},
           {"fuse_unk", pieces},
           {"byte_fallback", pieces},
           {"ignore_merges", false}};
  json vocabulary = json::object();
  for (std::size_t id = 0; id < v.tokens.size(); ++id) vocabulary[std::string(v.tokens[id])] = id;
  model["vocab"] = std::move(vocabulary);
  model["merges"] = pieces ? scored_merges(file, v) : listed_merges(file, v);
  try {
    return {tokenizer.dump(), config_json(file, v), ""};
  } catch (const json::exception&) {
    throw CheckpointError(file.where() + ": " + key_of("tokens"), "holds a text that is not UTF-8");
  }
}

}  // namespace mcit
