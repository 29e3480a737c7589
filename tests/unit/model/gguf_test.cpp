// Language models in GGUF: the numbers and ids of llama.cpp's own package and of `tokenizers`
// (tests/parity/make_gguf.py); damaged and hostile files, one clear error each.
#include "model/gguf.hpp"

#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "data/tokenizer.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"
#include "unit/core/temporary.hpp"

#include "torch_catch.hpp"

#include <catch2/matchers/catch_matchers_exception.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

using namespace mcit;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::MessageMatches;

namespace {

const std::filesystem::path kFixtures = std::filesystem::path(MCIT_SOURCE_DIR) / "tests/fixtures/gguf";

GgufModel fixture(const std::string& name, std::optional<at::ScalarType> dtype = {}) {
  return read_gguf(kFixtures / (name + ".gguf"), dtype);
}

template <class T>
std::string raw(T value) {
  std::string out(sizeof value, '\0');
  std::memcpy(out.data(), &value, sizeof value);
  return out;
}
std::string text(const std::string& value) { return raw<std::uint64_t>(value.size()) + value; }

// Typed values, as they lie in the metadata.
std::string u32(std::uint32_t value) { return raw<std::uint32_t>(4) + raw(value); }
std::string f32(float value) { return raw<std::uint32_t>(6) + raw(value); }
std::string word(const std::string& value) { return raw<std::uint32_t>(8) + text(value); }
std::string list(std::uint32_t kind, const std::vector<std::string>& entries) {
  std::string out = raw<std::uint32_t>(9) + raw(kind) + raw<std::uint64_t>(entries.size());
  for (const std::string& entry : entries) out += entry;
  return out;
}
std::string words(const std::vector<std::string>& values) {
  std::vector<std::string> entries;
  for (const std::string& value : values) entries.push_back(text(value));
  return list(8, entries);
}

constexpr std::size_t kHeader = 1400;  ///< bytes before the tensors of small(), about

/// A file in parts, to be damaged in one of them.
struct Parts {
  struct Info {
    std::string name;
    std::vector<std::uint64_t> dims;  // innermost first
    std::uint32_t type = 0;
    std::optional<std::uint64_t> offset = {};
  };
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::optional<std::uint64_t> tensor_count = {}, key_count = {};
  std::vector<std::pair<std::string, std::string>> keys;
  std::vector<Info> tensors;

  void set(const std::string& key, const std::string& value) {
    for (auto& [name, old] : keys)
      if (name == key) {
        old = value;
        return;
      }
    keys.emplace_back(key, value);
  }
  void erase(const std::string& key) {
    std::erase_if(keys, [&](const auto& entry) { return entry.first == key; });
  }
  std::string bytes() const {
    std::string out = magic + raw(version) + raw(tensor_count.value_or(tensors.size())) +
                      raw(key_count.value_or(keys.size()));
    for (const auto& [key, value] : keys) out += text(key) + value;
    std::uint64_t end = 0;
    for (const Info& info : tensors) {
      out += text(info.name) + raw(static_cast<std::uint32_t>(info.dims.size()));
      std::uint64_t size = 4;
      for (const std::uint64_t dim : info.dims) {
        out += raw(dim);
        size *= dim;
      }
      out += raw(info.type) + raw(info.offset.value_or(end));
      end += (size + 31) / 32 * 32;
    }
    out.resize((out.size() + 31) / 32 * 32);
    return out + std::string(std::min<std::uint64_t>(end, 1 << 16), '\0');
  }
};

/// One block of width 4 with two heads, and a byte-level tokenizer of six tokens.
Parts small() {
  Parts p;
  p.keys = {{"general.architecture", word("llama")},
            {"llama.embedding_length", u32(4)},
            {"llama.feed_forward_length", u32(3)},
            {"llama.block_count", u32(1)},
            {"llama.attention.head_count", u32(2)},
            {"llama.context_length", u32(16)},
            {"llama.attention.layer_norm_rms_epsilon", f32(1e-5F)},
            {"tokenizer.ggml.model", word("gpt2")},
            {"tokenizer.ggml.tokens", words({"a", "b", "ab", "<s>", "c", "d"})},
            {"tokenizer.ggml.token_type",
             list(5, {raw<std::int32_t>(1), raw<std::int32_t>(1), raw<std::int32_t>(1), raw<std::int32_t>(3),
                      raw<std::int32_t>(1), raw<std::int32_t>(1)})},
            {"tokenizer.ggml.merges", words({"a b"})},
            {"tokenizer.ggml.bos_token_id", u32(3)}};
  p.tensors = {{"token_embd.weight", {4, 6}},   {"blk.0.attn_norm.weight", {4}},
               {"blk.0.attn_q.weight", {4, 4}}, {"blk.0.attn_k.weight", {4, 4}},
               {"blk.0.attn_v.weight", {4, 4}}, {"blk.0.attn_output.weight", {4, 4}},
               {"blk.0.ffn_norm.weight", {4}},  {"blk.0.ffn_gate.weight", {4, 3}},
               {"blk.0.ffn_up.weight", {4, 3}}, {"blk.0.ffn_down.weight", {3, 4}},
               {"output_norm.weight", {4}}};
  return p;
}

GgufModel read_bytes(const std::string& bytes) {
  const test::TemporaryFolder folder;
  test::write(folder / "x.gguf", bytes);
  return read_gguf(folder / "x.gguf");
}

void refuses(const std::function<void(Parts&)>& damage, const std::string& why) {
  Parts parts = small();
  damage(parts);
  INFO(why);
  CHECK_THROWS_MATCHES(read_bytes(parts.bytes()), CheckpointError,
                       MessageMatches(ContainsSubstring(why) && ContainsSubstring("x.gguf")));
}

}  // namespace

TEST_CASE("tensors have the numbers of llama.cpp's package and Hugging Face's names") {
  for (const std::string name : {"plain", "q4_0", "q4_1", "q8_0", "q4_k", "q6_k", "qwen2_q8_0"}) {
    INFO(name);
    const GgufModel model = fixture(name);
    const StateDict expected = read_safetensors(kFixtures / (name + ".safetensors")).tensors;
    REQUIRE(model.tensors.size() == expected.size());
    for (const auto& [key, tensor] : expected) {
      INFO(key);
      REQUIRE(model.tensors.contains(key));
      const Tensor& found = model.tensors.at(key);
      REQUIRE(found.sizes() == tensor.sizes());
      REQUIRE(found.scalar_type() == tensor.scalar_type());
      CHECK(std::memcmp(found.contiguous().data_ptr(), tensor.data_ptr(), tensor.nbytes()) == 0);
    }
  }
  for (const auto& [name, tensor] : fixture("plain", at::kBFloat16).tensors)
    CHECK(tensor.scalar_type() == at::kBFloat16);
}

TEST_CASE("the configuration is that of the class") {
  const GgufModel llama = fixture("plain");
  Json config = parse_json(llama.config_json, "config");
  CHECK(config.at("architectures") == Json::array({"LlamaForCausalLM"}));
  CHECK(config.at("model_type") == "llama");
  CHECK(config.at("num_hidden_layers") == 2);
  CHECK(config.at("num_key_value_heads") == 1);
  CHECK(config.at("head_dim") == 8);
  CHECK(config.at("vocab_size") == 8);
  CHECK(config.at("rms_norm_eps") == 1e-5);
  CHECK(config.at("rope_theta") == 100000.0);
  CHECK(config.at("tie_word_embeddings") == false);
  CHECK(config.at("bos_token_id").is_null());
  CHECK(llama.tokenizer_json.empty());
  CHECK_THAT(llama.tokenizer_missing, ContainsSubstring("'none'"));

  config = parse_json(fixture("qwen2").config_json, "config");
  CHECK(config.at("architectures") == Json::array({"Qwen2ForCausalLM"}));
  CHECK(config.at("tie_word_embeddings") == true);
  CHECK(config.at("eos_token_id") == config.at("bos_token_id").get<int>() + 1);
}

TEST_CASE("rebuilt tokenizers give the ids of their originals") {
  const Json cases = read_json(kFixtures / "tokenizer_cases.json");
  for (const std::string name : {"smollm", "qwen2", "gpt2", "pieces"}) {
    INFO(name);
    const GgufModel model = fixture(name);
    const Tokenizer tokenizer = Tokenizer::from_json(model.tokenizer_json, name);
    const Json config = parse_json(model.config_json, "config");
    CHECK(tokenizer.size() == config.at("vocab_size").get<int>() - 2);  // without the two unused rows
    for (const Json& entry : cases) {
      INFO(entry.at("text"));
      CHECK(tokenizer.encode(entry.at("text").get<std::string>()) ==
            entry.at(name).get<std::vector<std::int64_t>>());
    }
    const Json settings = parse_json(model.tokenizer_config_json, "settings");
    const std::string eos = settings.at("eos_token");
    CHECK(tokenizer.token_to_id(eos) == config.at("eos_token_id").get<std::int64_t>());
    const std::vector<std::int64_t> ended = tokenizer.encode("A dog." + eos, false);
    CHECK(ended.back() == config.at("eos_token_id"));
    CHECK(tokenizer.decode(ended) == "A dog.");
    CHECK(settings.contains("chat_template"));
  }
}

TEST_CASE("damaged GGUF containers are refused") {
  refuses([](Parts& p) { p.magic = "GGML"; }, "does not begin like a GGUF file");
  refuses([](Parts& p) { p.version = 1; }, "has version 1; versions 2 and 3");
  refuses([](Parts& p) { p.version = 3U << 24; }, "big-endian");
  refuses([](Parts& p) { p.key_count = UINT64_MAX; }, "more than it can hold");
  refuses([](Parts& p) { p.tensor_count = UINT64_MAX / 32; }, "more than it can hold");
  refuses([](Parts& p) { p.keys[0].second = raw<std::uint32_t>(8) + raw<std::uint64_t>(UINT64_MAX); },
          "ends in the middle of its header");
  refuses([](Parts& p) { p.set("k", raw<std::uint32_t>(99)); }, "k: has the unknown type 99");
  refuses([](Parts& p) { p.set("k", list(9, {})); }, "k: is an array of arrays");
  refuses(
      [](Parts& p) {
        p.set("k", raw<std::uint32_t>(9) + raw<std::uint32_t>(4) + raw<std::uint64_t>(UINT64_MAX));
      },
      "k: claims 18446744073709551615 entries");
  refuses(
      [](Parts& p) {
        p.set("k", raw<std::uint32_t>(9) + raw<std::uint32_t>(8) + raw<std::uint64_t>(1ULL << 60));
      },
      "x.gguf: ");
  refuses([](Parts& p) { p.keys.push_back(p.keys[1]); }, "stands twice in the metadata");
  refuses([](Parts& p) { p.set(std::string(70000, 'k'), u32(1)); }, "has a name of 70000 bytes");
  refuses([](Parts& p) { p.set("general.alignment", u32(24)); }, "general.alignment: is 24");

  refuses([](Parts& p) { p.tensors[0].dims = {}; }, "has 0 dimensions");
  refuses([](Parts& p) { p.tensors[0].dims = {1, 1, 1, 1, 1}; }, "has 5 dimensions");
  refuses([](Parts& p) { p.tensors[0].dims = {4, 0}; }, "empty or overflows");
  refuses([](Parts& p) { p.tensors[0].dims = {1ULL << 40, 1ULL << 40}; }, "empty or overflows");
  refuses([](Parts& p) { p.tensors[0].dims = {1ULL << 62, 1}; }, "empty or overflows");
  refuses([](Parts& p) { p.tensors[0].dims = {4, 1ULL << 40}; }, "lies outside the file");
  refuses([](Parts& p) { p.tensors[0].type = 16; },
          "is stored as type 16, which is not read; known: F32 F16");
  refuses([](Parts& p) { p.tensors[0].type = 2; }, "a row of 4 is no whole number of Q4_0 blocks of 32");
  refuses([](Parts& p) { p.tensors[0].offset = 4; }, "its offset is no multiple of 32");
  refuses([](Parts& p) { p.tensors[0].offset = 1ULL << 40; }, "lies outside the file");
  refuses([](Parts& p) { p.tensors[0].offset = UINT64_MAX - 31; }, "lies outside the file");
  refuses([](Parts& p) { p.tensors[1].offset = 64; },
          "blk.0.attn_norm.weight: overlaps tensor 'token_embd.weight'");
  refuses([](Parts& p) { p.tensors[1].name = "token_embd.weight"; }, "stands twice in the file");
  refuses([](Parts& p) { p.set("\x1b[31m", raw<std::uint32_t>(99)); }, "?[31m: has");
  CHECK_THROWS_AS(read_bytes(""), CheckpointError);
  CHECK_THROWS_AS(read_gguf("/nowhere/x.gguf"), CheckpointError);
}

TEST_CASE("GGUF models of another kind are refused") {
  CHECK(read_bytes(small().bytes()).tensors.size() == 11);
  refuses([](Parts& p) { p.erase("general.architecture"); }, "general.architecture: is missing");
  refuses([](Parts& p) { p.set("general.architecture", word("gemma")); },
          "'gemma' is not supported; known: llama");
  refuses([](Parts& p) { p.erase("llama.block_count"); }, "llama.block_count: is missing");
  refuses([](Parts& p) { p.set("llama.block_count", word("one")); }, "llama.block_count: is not an integer");
  refuses([](Parts& p) { p.set("llama.block_count", list(4, {raw<std::uint32_t>(1)})); },
          "is not a single value");
  refuses([](Parts& p) { p.set("llama.block_count", u32(0)); }, "llama.block_count: is 0");
  refuses([](Parts& p) { p.set("llama.block_count", u32(2000000000)); },
          "blk.1.attn_norm.weight: is missing");
  refuses([](Parts& p) { p.set("llama.attention.head_count_kv", u32(3)); },
          "is no multiple of head_count_kv");
  refuses([](Parts& p) { p.set("llama.embedding_length", u32(8)); },
          "token_embd.weight: has the shape [6,4], the metadata say [6,8]");
  refuses([](Parts& p) { p.set("llama.rope.dimension_count", u32(1)); }, "is not the whole of an even head");
  refuses([](Parts& p) { p.set("llama.rope.scaling.type", word("yarn")); }, "rotary positions are scaled");
  refuses([](Parts& p) { p.set("llama.expert_count", u32(8)); }, "is a mixture of experts");
  refuses([](Parts& p) { p.tensors.pop_back(); }, "output_norm.weight: is missing");
  refuses([](Parts& p) { p.tensors.erase(p.tensors.begin()); }, "token_embd.weight: is missing");
  refuses(
      [](Parts& p) {
        p.tensors.push_back({"blk.0.attn_q.bias", {4}});
      },
      "tensor 'blk.0.attn_q.bias' belongs to no such model");
  refuses([](Parts& p) { p.set("tokenizer.ggml.bos_token_id", u32(6)); }, "bos_token_id: lies outside");
}

TEST_CASE("damaged GGUF vocabularies are refused") {
  const std::string tokens = "tokenizer.ggml.tokens", merges = "tokenizer.ggml.merges";
  refuses([&](Parts& p) { p.erase(tokens); }, "tokens: is missing");
  refuses(
      [&](Parts& p) {
        p.set(tokens, words({"a", "b", "ab", "<s>", "a", "d"}));
      },
      "tokens 0 and 4 are the same");
  refuses([&](Parts& p) { p.set(tokens, words({"a", "b", "ab", "", "c", "d"})); }, "token 3 is 0 bytes long");
  refuses([&](Parts& p) { p.set(tokens, words({"a", "b", "ab", "<s>", "\xff", "d"})); }, "not UTF-8");
  refuses(
      [&](Parts& p) {
        p.set(tokens, words({"1", "2", "3", "4", "5", "6", "7"}));
      },
      "holds 7 tokens, the embedding has 6 rows");
  refuses([&](Parts& p) { p.set(tokens, words({"a", "b", "ab"})); }, "token_type: holds another number");
  for (const std::string bad : {"ab", "a ", "a c", "a x", ""})
    refuses([&](Parts& p) { p.set(merges, words({bad})); }, "entry 0 makes no token of two tokens");
  const auto pieces = [](Parts& p, float score) {
    p.set("tokenizer.ggml.model", word("llama"));
    p.set("tokenizer.ggml.scores", list(6, std::vector<std::string>(6, raw(score))));
  };
  refuses([&](Parts& p) { pieces(p, std::numeric_limits<float>::quiet_NaN()); },
          "scores: entry 0 is not a number");
  refuses([&](Parts& p) { p.set("tokenizer.ggml.model", word("llama")); }, "scores: is missing");
  // What cannot be rebuilt leaves the weights usable.
  for (const auto& [key, value] : {std::pair("model", "bert"), std::pair("pre", "tekken")}) {
    Parts p = small();
    p.set("tokenizer.ggml." + std::string(key), word(value));
    const GgufModel model = read_bytes(p.bytes());
    CHECK(model.tokenizer_json.empty());
    CHECK_THAT(model.tokenizer_missing, ContainsSubstring(value));
    CHECK(model.tensors.size() == 11);
  }
}

TEST_CASE("no cut and no changed byte of a GGUF file gets past its checks") {
  const test::TemporaryFolder folder;
  const auto file = folder / "x.gguf";
  const std::string whole = small().bytes();
  test::write(file, whole);
  CHECK_NOTHROW(read_gguf(file));
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  const auto put = [&](std::size_t at, char value) {
    bytes.seekp(static_cast<std::streamoff>(at)).put(value).flush();
  };
  for (std::size_t at = 0; at < kHeader; ++at) {
    for (const char value : {'\0', '\x7f', '\xff'}) {
      put(at, value);
      try {  // read, or refused in one line
        read_gguf(file);
      } catch (const CheckpointError&) {
      }
    }
    put(at, whole[at]);
  }
  // The last tensor has four numbers, and room for four more behind it.
  for (std::size_t length = whole.size() - 17; length > 0; length -= length > kHeader ? 61 : 1) {
    std::filesystem::resize_file(file, length);
    CHECK_THROWS_AS(read_gguf(file), CheckpointError);
  }
}
