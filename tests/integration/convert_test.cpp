// mcit convert: a language model of llama.cpp becomes a Hugging Face folder, whole or not at all.
#include <cstring>

#include "integration/runs.hpp"

namespace mcit::test {
namespace {

const fs::path kModels = fs::path(MCIT_SOURCE_DIR) / "tests/fixtures/gguf";

Json header_of(const fs::path& file) {
  const std::string bytes = slurp(file);
  std::uint64_t length = 0;
  REQUIRE(bytes.size() > 8);
  std::memcpy(&length, bytes.data(), 8);
  return Json::parse(bytes.substr(8, length));
}

Arguments conversion(const fs::path& model, const fs::path& out) {
  return {"convert", model.string(), "--out", out.string()};
}

}  // namespace

TEST_CASE("A GGUF file becomes a folder of Hugging Face") {
  Workplace work;
  const fs::path out = work / "model";
  const Ended ended = work.mcit(conversion(kModels / "smollm.gguf", out));
  succeeded(ended);
  CHECK(ended.warnings().empty());
  CHECK(names_in(work.path()) == std::vector<std::string>{"err-1.txt", "model", "out-1.txt"});
  CHECK(names_in(out) == std::vector<std::string>{"config.json", "generation_config.json",
                                                  "model.safetensors", "tokenizer.json",
                                                  "tokenizer_config.json"});
  CHECK(ended.out.find("model.safetensors " + std::to_string(fs::file_size(out / "model.safetensors"))) !=
        std::string::npos);
  const Json config = Json::parse(slurp(out / "config.json"));
  CHECK(config.at("model_type") == "llama");
  CHECK(config.at("torch_dtype") == "float16");
  const Json generation = Json::parse(slurp(out / "generation_config.json"));
  CHECK(generation == Json{{"bos_token_id", 1}, {"eos_token_id", 2}});
  CHECK(Json::parse(slurp(out / "tokenizer.json")).at("added_tokens").size() == 3);
  Json header = header_of(out / "model.safetensors");
  CHECK(header.at("__metadata__").at("format") == "pt");
  header.erase("__metadata__");
  CHECK(header.size() == 11);
  for (const auto& [name, entry] : header.items()) CHECK(entry.at("dtype") == "F16");
  CHECK(header.at("model.embed_tokens.weight").at("shape") == Json{config.at("vocab_size"), 32});
}

TEST_CASE("The type is chosen, and an empty folder is written into") {
  Workplace work;
  for (const auto& [type, name] : {std::pair("float32", "F32"), std::pair("bfloat16", "BF16")}) {
    const fs::path out = work / type;
    fs::create_directory(out);
    const Ended ended = work.mcit(conversion(kModels / "plain.gguf", out) + Arguments{"--dtype", type});
    succeeded(ended);
    CHECK(header_of(out / "model.safetensors").at("lm_head.weight").at("dtype") == name);
    CHECK(ended.warnings().size() == 1);  // that file has no tokenizer
    CHECK_FALSE(fs::exists(out / "tokenizer.json"));
  }
}

TEST_CASE("What cannot be converted is said, and nothing is left behind") {
  Workplace work;
  fs::create_directory(work / "taken");
  write(work / "taken/file", "");
  failed(work.mcit(conversion(kModels / "smollm.gguf", work / "taken")), {"--out", "already there"});
  write(work / "cut.gguf", slurp(kModels / "smollm.gguf").substr(0, 9000));
  failed(work.mcit(conversion(work / "cut.gguf", work / "cut")), {"cut.gguf", "cut short"});
  CHECK_FALSE(fs::exists(work / "cut"));
  // A disk that fills up while the weights are written.
  failed(work.mcit(conversion(kModels / "plain.gguf", work / "full"), 4096), {"model.safetensors"});
  for (const std::string& name : names_in(work.path())) CHECK(name.find("full") == std::string::npos);
}

}  // namespace mcit::test
