// Model folders, adapters, tokenizers and pictures that were damaged or made to do damage: an error that
// names the file and what is wrong with it, at once and within a bound of memory. tests/fuzz goes on where
// these cases end; what it has found is here as well.
#include <chrono>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include <sys/stat.h>

#include "core/json.hpp"
#include "data/preprocessor.hpp"
#include "data/tokenizer.hpp"
#include "fuzz/memory_bound.hpp"
#include "mcit/errors.hpp"
#include "model/clip.hpp"
#include "model/mllm.hpp"
#include "model/safetensors.hpp"
#include "unit/core/temporary.hpp"

#include "torch_catch.hpp"

#include <catch2/matchers/catch_matchers_string.hpp>

using namespace mcit;
using Catch::Matchers::ContainsSubstring;

namespace {

namespace fs = std::filesystem;

const fs::path kTests = fs::path(MCIT_SOURCE_DIR) / "tests", kParity = kTests / "parity";
constexpr const char *kIndex = "model.safetensors.index.json", *kFirst = "model-00001-of-00002.safetensors",
                     *kSecond = "model-00002-of-00002.safetensors";

/// A copy of a fixture's checkpoint/ and adapter/.
class Copy {
 public:
  explicit Copy(const std::string& fixture) : fixture_(fixture) {
    for (const char* part : {"checkpoint", "adapter"})
      if (fs::exists(kParity / fixture / part))
        fs::copy(kParity / fixture / part, folder_ / part, fs::copy_options::recursive);
  }
  fs::path model() const { return folder_ / "checkpoint"; }
  fs::path adapter() const { return folder_ / "adapter"; }
  void load(bool adapted = false) const {
    if (fixture_ == "clip" || fixture_ == "siglip")
      load_clip(model());
    else
      Mllm::load(model(), at::kCPU, {}, adapted ? adapter() : fs::path());
  }

 private:
  std::string fixture_;
  test::TemporaryFolder folder_;
};

/// What the error says; it must come soon, whatever is claimed, and be one of ours.
std::string refusal(const std::function<void()>& read) {
  const auto begin = std::chrono::steady_clock::now();
  std::string said = "(nothing)";
  try {
    const test::MemoryBound bound(256 << 20);
    read();
  } catch (const CheckpointError& error) {
    said = error.what();
  } catch (const DataError& error) {
    said = error.what();
  }
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
  return said;
}

void refuses(const std::string& fixture, const std::function<void(const Copy&)>& damage,
             const std::string& why, bool adapted = false) {
  const Copy copy(fixture);
  damage(copy);
  INFO(fixture);
  const std::string said = refusal([&] { copy.load(adapted); });
  CHECK_THAT(said, ContainsSubstring(why) && ContainsSubstring(copy.model().parent_path().string()));
}

void change_json(const fs::path& file, const std::function<void(Json&)>& change) {
  Json value = read_json(file);
  change(value);
  write_json(file, value);
}

/// A safetensors file with another header in front of the same bytes.
void change_header(const fs::path& file, const std::function<void(std::string&)>& change) {
  const std::string bytes = test::slurp(file);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  std::string header = bytes.substr(8, length), front(8, '\0');
  const std::string data = bytes.substr(8 + length);
  change(header);
  length = header.size();
  std::memcpy(front.data(), &length, 8);
  test::write(file, front + header + data);
}

void change_entry(const fs::path& file, const std::string& tensor, const std::function<void(Json&)>& change) {
  change_header(file, [&](std::string& header) {
    Json json = parse_json(header, file.string());
    change(json.at(tensor));
    header = dump_json(json);
  });
}

/// The tensor comes back from `change`, undefined for none.
void change_tensor(const Copy& copy, const std::string& name, const std::function<Tensor(Tensor)>& change) {
  change_json(copy.model() / kIndex, [&](Json& index) {
    Json& map = index.at("weight_map");
    const std::string shard = map.contains(name) ? map.at(name).get<std::string>() : kFirst;
    SafetensorsFile file = read_safetensors(copy.model() / shard);
    const auto found = file.tensors.find(name);
    const Tensor changed = change(found == file.tensors.end() ? Tensor() : found->second);
    if (changed.defined()) {
      file.tensors[name] = changed;
      map[name] = shard;
    } else {
      file.tensors.erase(name);
      map.erase(name);
    }
    write_safetensors(copy.model() / shard, file.tensors, file.metadata);
  });
}

struct Victim {
  const char *fixture, *tensor, *near;
};
const std::vector<Victim> kVictims = {
    {"llava", "language_model.model.norm.weight", "language_model.model.norms.weight"},
    {"instructblip", "vision_model.post_layernorm.weight", "vision_model.post_layernorms.weight"},
    {"clip", "visual_projection.weight", "visual_projections.weight"}};

/// A value of a JSON file of the checkpoint, by its path. @param value JSON
void refuses_value(const std::string& fixture, const char* file, const std::string& path,
                   const std::string& value, const std::string& why) {
  INFO(path << " = " << value);
  refuses(
      fixture,
      [&](const Copy& copy) {
        change_json(copy.model() / file,
                    [&](Json& json) { json[Json::json_pointer(path)] = Json::parse(value); });
      },
      why);
}

std::string nested(std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); }

}  // namespace

TEST_CASE("the whole fixtures load") {
  for (const Victim& victim : kVictims)
    CHECK_NOTHROW(Copy(victim.fixture).load(victim.fixture == kVictims[0].fixture));
}

TEST_CASE("a damaged shard is refused") {
  for (const auto& [fixture, tensor, near] : kVictims) {
    for (const char* shard : {kFirst, kSecond}) {
      const std::string name = shard;
      const auto cut = [&](std::uintmax_t size) {
        return [&, size](const Copy& copy) { fs::resize_file(copy.model() / name, size); };
      };
      refuses(fixture, cut(fs::file_size(kParity / fixture / "checkpoint" / name) - 1),
              "the file may be cut short");
      refuses(fixture, cut(100), name + ": its header claims");
      refuses(fixture, cut(7), name + ": is too short for a safetensors file");
      refuses(fixture, cut(0), name + ": is too short for a safetensors file");
      for (const std::uint64_t length : {1ULL << 31, 1ULL << 63, ~0ULL})
        refuses(
            fixture,
            [&](const Copy& copy) {
              std::string bytes = test::slurp(copy.model() / name);
              std::memcpy(bytes.data(), &length, 8);
              test::write(copy.model() / name, bytes);
            },
            name + ": its header claims " + std::to_string(length) + " bytes");
      refuses(
          fixture,
          [&](const Copy& copy) {
            change_header(copy.model() / name, [](std::string& header) { header = nested(1000); });
          },
          name + ": its header is nested too deeply");
      refuses(
          fixture,
          [&](const Copy& copy) {
            change_header(copy.model() / name, [](std::string& header) {
              const std::string first = header.substr(0, header.find('}') + 1);
              header = first + "," + header.substr(1);
            });
          },
          name + ": its header names a tensor twice");
      refuses(
          fixture,
          [&](const Copy& copy) {
            fs::remove(copy.model() / name);
            ::mkfifo((copy.model() / name).c_str(), 0600);  // nobody will ever write into it
          },
          name + ": is not a regular file");
    }
  }
}

TEST_CASE("a damaged tensor is refused") {
  for (const auto& [fixture, name, near] : kVictims) {
    const std::string tensor = name, hint = near;
    const auto entry = [&](const std::function<void(Json&)>& change) {
      return [&, change](const Copy& copy) {
        const Json index = read_json(copy.model() / kIndex);
        change_entry(copy.model() / index.at("weight_map").at(tensor).get<std::string>(), tensor, change);
      };
    };
    refuses(fixture, entry([](Json& e) {
              e["data_offsets"] = {1ULL << 40, (1ULL << 40) + 4};
            }),
            tensor + ": data_offsets lie outside the file");
    refuses(fixture, entry([](Json& e) {
              e["data_offsets"] = {UINT64_MAX - 1, UINT64_MAX};
            }),
            tensor + ": data_offsets lie outside the file");
    refuses(fixture, entry([](Json& e) {
              const std::uint64_t begin = e["data_offsets"][0], end = e["data_offsets"][1],
                                  step = begin > 0 ? 8 : 0;
              e["data_offsets"] = {begin - step, end - step};
              if (step == 0) e["shape"] = {0};
            }),
            tensor);
    refuses(fixture, entry([](Json& e) {
              e["shape"] = {0, 1ULL << 62, 4};
            }),
            tensor + ": its shape overflows");
    refuses(fixture, entry([](Json& e) { e["shape"] = std::vector<int>(100, 1); }),
            tensor + ": has 100 dimensions");
    refuses(
        fixture,
        [&](const Copy& copy) {
          change_tensor(copy, tensor, [](const Tensor& t) { return t.to(at::kInt); });
        },
        tensor + ": has dtype Int; weights are floating point");
    refuses(
        fixture,
        [&](const Copy& copy) {
          change_tensor(copy, tensor, [](const Tensor& t) { return at::cat({t, t}); });
        },
        tensor + ": has shape [");
    refuses(
        fixture,
        [&](const Copy& copy) {
          Tensor kept;
          change_tensor(copy, tensor, [&](const Tensor& t) {
            kept = t.clone();
            return Tensor();
          });
          change_tensor(copy, hint, [&](const Tensor&) { return kept; });
        },
        tensor + ": is missing from the checkpoint; did you mean '" + hint + "'?");
    refuses(
        fixture,
        [&](const Copy& copy) {
          change_tensor(copy, "extra.weight", [](const Tensor&) { return at::ones({2}); });
        },
        "extra.weight: is no tensor of this model");
  }
  refuses(
      "llava",
      [](const Copy& copy) {
        change_header(copy.model() / kFirst, [](std::string& header) {
          Json json = parse_json(header, "header");
          std::vector<Json*> entries;
          for (auto& [name, value] : json.items())
            if (value.contains("shape") && value["shape"] == Json({64})) entries.push_back(&value);
          (*entries.at(1))["data_offsets"] = (*entries.at(0))["data_offsets"];
          header = dump_json(json);
        });
      },
      std::string(kFirst) + ": two tensors share the same bytes");
}

TEST_CASE("a shard index that leads astray is refused") {
  const std::string tensor = kVictims[0].tensor;
  const auto shard = [&](const Json& value, const std::string& why) {
    INFO(value);
    refuses(
        "llava",
        [&](const Copy& copy) {
          test::write(copy.model().parent_path() / "x.safetensors",
                      to_safetensors({{tensor, at::ones({64})}}));
          change_json(copy.model() / kIndex, [&](Json& index) { index["weight_map"][tensor] = value; });
        },
        why);
  };
  for (const Json& astray :
       {Json("../x.safetensors"), Json("/tmp/x.safetensors"), Json("./x.safetensors"), Json(""), Json(".."),
        Json(kIndex), Json("pytorch_model.bin"), Json(7), Json(), Json::array({kFirst})})
    shard(astray, std::string(kIndex) + ": '" + tensor + "' lies in no safetensors file of this folder");
  shard("missing.safetensors", "missing.safetensors: cannot be opened");
  const std::string own = read_json(kParity / "llava/checkpoint" / kIndex).at("weight_map").at(tensor);
  const std::string other = own == kFirst ? kSecond : kFirst;
  shard(other, other + ": lacks tensor '" + tensor + "' that the index promises");
  const auto index = [&](const std::string& text, const std::string& why) {
    refuses(
        "llava", [&](const Copy& copy) { test::write(copy.model() / kIndex, text); }, kIndex + (": " + why));
  };
  index("", "is not JSON");
  index("[]", "is not a JSON object");
  index("{}", "has no weight_map");
  index(R"({"weight_map": ["a"]})", "has no weight_map");
  index(R"({"weight_map": {"a": "b.safetensors", "a": "c.safetensors"}})", "names a tensor twice");
  index(R"({"weight_map": )" + nested(1'000'000) + "}", "is nested too deeply");
}

TEST_CASE("pickles are never opened") {
  const auto only = [](const char* name) {
    return [name](const Copy& copy) {
      for (const char* file : {kIndex, kFirst, kSecond}) fs::remove(copy.model() / file);
      test::write(copy.model() / name, "{}");
    };
  };
  for (const Victim& victim : kVictims) {
    refuses(victim.fixture, only("pytorch_model.bin"), "checkpoint/pytorch_model.bin: is a pickle");
    refuses(victim.fixture, only("pytorch_model.bin.index.json"), "save the model as safetensors");
    refuses(victim.fixture, only("model.bin"), "holds neither model.safetensors nor");
  }
  refuses(
      "llava",
      [](const Copy& copy) {
        fs::rename(copy.adapter() / "adapter_model.safetensors", copy.adapter() / "adapter_model.bin");
      },
      "adapter_model.bin: is a pickle, which could run code", true);
}

TEST_CASE("absurd values of config.json are refused") {
  const auto llava = [](const char* path, const char* value, const char* why) {
    refuses_value("llava", "config.json", path, value, why);
  };
  const std::string size = "it must be a size from 1 to";
  for (const char* part : {"text_config", "vision_config"})
    for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"})
      for (const char* value : {"0", "-1", "2147483648", "1000000000000000000", "-9223372036854775808"}) {
        const std::string path = std::string("/") + part + "/" + key;
        refuses_value("llava", "config.json", path, value, std::string(part) + "." + key + ": is " + value);
        refuses_value("llava", "config.json", path, value, size);
      }
  llava("/text_config/hidden_size", "18446744073709551615", "text_config.hidden_size: expected an integer");
  llava("/text_config/hidden_size", "1e18", "text_config.hidden_size: expected an integer");
  llava("/text_config/num_attention_heads", "5", "config.json asks for [60, 64]");
  llava("/text_config/head_dim", "4194306", "text_config.head_dim: is 4194306");
  llava("/text_config/max_position_embeddings", "-1", "max_position_embeddings: is -1");
  llava("/text_config/rope_theta", "0", "text_config.rope_theta: must be a positive number");
  llava("/text_config/rope_theta", "1e300", "text_config.rope_theta: must be a positive number");
  llava("/text_config/rms_norm_eps", "-1", "text_config.rms_norm_eps: must be a positive number");
  llava("/text_config/eos_token_id", "\"two\"", "text_config.eos_token_id: expected integers");
  llava("/text_config", "[]", "text_config: is not a JSON object");
  llava("/text_config/model_type", "\"mixtral\"", "text_config.model_type: 'mixtral' is not supported");
  llava("/vision_config", "7", "vision_config: is not a JSON object");
  llava("/vision_config/num_attention_heads", "5", "hidden_size is no multiple of num_attention_heads");
  llava("/vision_config/patch_size", "0", "vision_config.patch_size: is 0");
  llava("/vision_config/patch_size", "29", "vision_config.patch_size: is 29; it must be a size from 1 to 28");
  llava("/vision_config/image_size", "0", "vision_config.image_size: is 0");
  llava("/vision_config/image_size", "1000000", "vision_config.image_size: is 1000000");
  llava("/vision_feature_layer", "[-2, -1]", "vision_feature_layer: expected an integer");
  llava("/vision_feature_layer", "5", "vision_feature_layer: the tower has no layer 5");
  llava("/image_token_index", "448", "image_token_index: lies outside the vocabulary of 448");
  llava("/image_token_index", "-1", "image_token_index: lies outside the vocabulary of 448");
  llava("/model_type", "\"llama4\"", "config.json.model_type: 'llama4' is not supported");
  llava("/model_type", "null", "config.json.model_type: '' is not supported");
  // A picture may leave a rest that no patch covers, as SigLIP's 384 pixels of 14 do.
  const Copy rest("llava");
  change_json(rest.model() / "config.json", [](Json& c) { c["vision_config"]["image_size"] = 30; });
  CHECK_NOTHROW(rest.load());

  const auto blip = [](const char* path, const char* value, const char* why) {
    refuses_value("instructblip", "config.json", path, value, why);
  };
  for (const char* key : {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                          "intermediate_size", "max_position_embeddings", "cross_attention_frequency"})
    for (const char* value : {"0", "2147483648"})
      refuses_value("instructblip", "config.json", std::string("/qformer_config/") + key, value,
                    std::string("qformer_config.") + key + ": is " + value);
  blip("/qformer_config/encoder_hidden_size", "1", "is not the tower's hidden_size 40");
  blip("/num_query_tokens", "-3", "num_query_tokens: is -3");
  blip("/image_token_index", "448", "image_token_index: lies outside the vocabulary of 448");
  for (const char* value : {"0", "-1", "9223372036854775807"}) {
    refuses_value("clip", "config.json", "/projection_dim", value,
                  std::string("projection_dim: is ") + value);
    refuses_value("clip", "config.json", "/text_config/max_position_embeddings", value,
                  std::string("max_position_embeddings: is ") + value);
  }
  refuses_value("siglip", "config.json", "/text_config/pad_token_id", "100000000",
                "pad_token_id: lies outside the vocabulary");
}

TEST_CASE("sizes that the tensors have not are refused before memory is taken for them") {
  const auto llava = [](const char* path, const char* value, const char* why) {
    refuses_value("llava", "config.json", path, value, why);
  };
  llava("/text_config/vocab_size", "16777216", "config.json asks for [16777216, 64]");
  llava("/text_config/intermediate_size", "16777216", "config.json asks for [16777216, 64]");
  llava("/text_config/num_hidden_layers", "512",
        "language_model.model.layers.3.input_layernorm.weight: is missing");
  llava("/vision_config/num_hidden_layers", "512", "vision_tower.vision_model.encoder.layers.4");
  llava("/vision_config/image_size", "4096", "config.json asks for [342226, 48]");
  llava("/vision_config/image_size", "36", "config.json asks for [26, 48]");
  refuses_value("instructblip", "config.json", "/num_query_tokens", "16777216",
                "config.json asks for [1, 16777216, 32]");
  refuses_value("instructblip", "config.json", "/qformer_config/vocab_size", "16777216",
                "config.json asks for [16777216, 32]");
  refuses_value("clip", "config.json", "/projection_dim", "16777216", "config.json asks for [16777216, 48]");
  refuses_value("clip", "config.json", "/text_config/vocab_size", "16777216",
                "config.json asks for [16777216, 36]");
}

TEST_CASE("JSON files of another form are refused") {
  for (const auto& [file, needs] :
       {std::pair("config.json", true), std::pair("generation_config.json", false)}) {
    const std::string name = file;
    const auto whole = [&](const std::string& text, const std::string& why) {
      refuses(
          "llava", [&](const Copy& copy) { test::write(copy.model() / name, text); }, name + ": " + why);
    };
    whole("", "is not JSON");
    whole("{\"a\": ", "is not JSON");
    whole("[]", "is not a JSON object");
    whole("7", "is not a JSON object");
    whole("{\"a\": " + nested(1'000'000) + "}", "is nested too deeply");
    whole("{\"a\": 1e999}", "is not JSON");
    whole("{\"a\": \"\xff\"}", "is not JSON");
    whole(std::string(17 << 20, ' '), "has 17825792 bytes, at most");
  }
  refuses(
      "llava", [](const Copy& copy) { fs::remove(copy.model() / "config.json"); }, "holds no config.json");
  for (const auto& [value, why] :
       {std::pair("\"2\"", "expected integers"), std::pair("[2, \"3\"]", "expected integers"),
        std::pair("[2, 1.5]", "expected integers"), std::pair("448", "448 lies outside"),
        std::pair("[-1]", "-1 lies outside")})
    refuses_value("llava", "generation_config.json", "/eos_token_id", value,
                  std::string("generation_config.json.eos_token_id: ") + why);
}

TEST_CASE("links that lead round in a circle are refused") {
  const auto circle = [](const fs::path& file) {
    fs::remove(file);
    fs::create_symlink(file.filename(), file);
  };
  for (const char* name : {"model.safetensors", kIndex, kFirst, "config.json"})
    refuses(
        "llava",
        [&](const Copy& copy) {
          if (name == std::string("model.safetensors")) fs::remove(copy.model() / kIndex);
          circle(copy.model() / name);
        },
        "checkpoint");
  refuses(
      "llava", [&](const Copy& copy) { circle(copy.adapter() / "adapter_model.safetensors"); },
      "adapter_model.safetensors: cannot be opened", true);
  const Copy copy("llava");
  for (const char* name : {"tokenizer.json", "preprocessor_config.json"}) circle(copy.model() / name);
  fs::remove(copy.model() / "processor_config.json");
  CHECK_THAT(refusal([&] { Tokenizer::from_file(copy.model() / "tokenizer.json"); }),
             ContainsSubstring("tokenizer.json: does not exist"));
  CHECK_THAT(refusal([&] { Preprocessor::from_folder(copy.model()); }),
             ContainsSubstring("preprocessor_config.json: does not exist"));
}

TEST_CASE("an original LLaVA's tower of a name that is none is refused") {
  for (const std::string& name :
       {std::string(300, 'x'), std::string(5000, 'x'), std::string("../../.."), std::string("/")})
    refuses_value("llava", "config.json", "/mm_vision_tower", Json(name).dump(), "config.json");
}

TEST_CASE("adapters that do not fit are refused") {
  const auto setting = [](const char* key, const std::string& value, const std::string& why) {
    INFO(key << " = " << value);
    refuses(
        "llava",
        [&](const Copy& copy) {
          change_json(copy.adapter() / "adapter_config.json", [&](Json& c) { c[key] = Json::parse(value); });
        },
        "adapter_config.json: " + why, true);
  };
  setting("r", "0", "r: must be at least 1");
  setting("r", "\"4\"", "'r': expected an integer");
  setting("lora_alpha", "null", "'lora_alpha': expected a number");
  setting("peft_type", "\"LOHA\"", "peft_type: is not LORA");
  setting("use_rslora", "1", "use_rslora: is neither true nor false");
  setting("use_dora", "true", "use_dora: asks for more than plain LoRA");
  setting("rank_pattern", "[]", "rank_pattern: is not an object");
  setting("rank_pattern", R"({"q_proj": 0})", "rank_pattern: needs ranks of at least 1");
  setting("rank_pattern", R"({"q_proj": 4.5})", "rank_pattern: needs ranks of at least 1");
  setting("alpha_pattern", R"({"q_proj": "8"})", "alpha_pattern: q_proj: is no number");
  for (const std::string expression :
       {"(", "*", "(a){1000}", "(((a{99}){99}){99}){99}", "(?=(?=(?=.*).*).*)q_proj", "(a)\\\\1", "[z-a]"})
    for (const char* key : {"rank_pattern", "alpha_pattern"})
      setting(key, "{\"" + expression + "\": 4}", std::string(key) + ": '");
  setting("rank_pattern", "{\"" + std::string(300, 'a') + "\": 4}", "rank_pattern: '");

  const auto tensors = [](const std::function<void(StateDict&)>& change, const std::string& why) {
    refuses(
        "llava",
        [&](const Copy& copy) {
          SafetensorsFile file = read_safetensors(copy.adapter() / "adapter_model.safetensors");
          change(file.tensors);
          write_safetensors(copy.adapter() / "adapter_model.safetensors", file.tensors, file.metadata);
        },
        "adapter_model.safetensors: " + why, true);
  };
  const auto of = [](StateDict& t, const std::string& half) {
    return std::find_if(t.begin(), t.end(), [&](const auto& e) { return e.first.ends_with(half); });
  };
  for (const std::string half : {".lora_A.weight", ".lora_B.weight"}) {
    const std::string other = half == ".lora_A.weight" ? ".lora_B.weight'" : ".lora_A.weight'";
    tensors([&](StateDict& t) { t.erase(of(t, half)); }, "base_model.model.");
    tensors([&](StateDict& t) { t.erase(of(t, half)); }, "base_model.model.");
    tensors([&](StateDict& t) { of(t, half)->second = of(t, half)->second.to(at::kChar); },
            "base_model.model.");
  }
  tensors([&](StateDict& t) { t["lora_A.weight"] = at::ones({4, 4}); }, "lora_A.weight: does not begin with");
  tensors(
      [&](StateDict& t) {
        t["base_model.model.other.layers.0.q_proj.lora_A.weight"] = at::ones({4, 64});
        t["base_model.model.other.layers.0.q_proj.lora_B.weight"] = at::ones({64, 4});
      },
      "base_model.model.other.layers.0.q_proj.lora_A.weight: belongs to 'other.layers.0.q_proj.weight', "
      "which the "
      "model has not; the adapter is of another model");
  tensors([&](StateDict& t) { of(t, ".lora_A.weight")->second = at::ones({5, 64}); }, "base_model.model.");
  tensors(
      [&](StateDict& t) {
        const auto one = of(t, ".lora_A.weight");
        t[one->first.substr(0, one->first.size() - 6) + "default.weight"] = one->second;
      },
      "base_model.model.");
}

TEST_CASE("patterns of adapters take no time") {
  // Each of them takes ages when its ways are tried one after the other.
  for (const std::string expression : {"(a*)*b", "(x+x+)+y", "(.*)*z", "(.*.*.*.*.*.*)*z", "(.|.|.|.|.)*z",
                                       "((((((.*)*)*)*)*)*)*z", "([a-z_.0-9]+)+\\\\.nothing"}) {
    INFO(expression);
    const Copy copy("llava");
    change_json(copy.adapter() / "adapter_config.json", [&](Json& c) {
      c["rank_pattern"] = c["alpha_pattern"] = Json::parse("{\"" + expression + "\": 4}");
    });
    CHECK(refusal([&] { copy.load(true); }) == "(nothing)");
  }
  const Copy copy("llava");
  change_json(copy.adapter() / "adapter_config.json", [](Json& c) {
    for (int i = 0; i < 1000; ++i) c["rank_pattern"][std::to_string(i) + std::string(200, '.') + "x"] = 4;
  });
  CHECK_THAT(refusal([&] { copy.load(true); }), ContainsSubstring("more patterns than can be tried"));
}

TEST_CASE("damaged tokenizers are refused") {
  const test::TemporaryFolder folder;
  const fs::path file = folder / "tokenizer.json";
  const auto whole = [&](const std::string& text, const std::string& why) {
    test::write(file, text);
    CHECK_THAT(refusal([&] { Tokenizer::from_file(file); }),
               ContainsSubstring("tokenizer.json: ") && ContainsSubstring(why));
  };
  const std::string good = test::slurp(kParity / "llava/checkpoint/tokenizer.json");
  whole("", "is no tokenizer");
  whole(good.substr(0, good.size() / 2), "is no tokenizer");
  whole("[]", "is no tokenizer");
  whole("{}", "is no tokenizer");
  whole(nested(1'000'000), "is no tokenizer");
  whole("{\"a\": " + nested(1'000'000) + "}", "is no tokenizer");
  whole(std::string(100'000'000, ' '), "is no tokenizer");
  fs::resize_file(file, 1ULL << 40);  // holes
  CHECK_THAT(refusal([&] { Tokenizer::from_file(file); }),
             ContainsSubstring("has 1099511627776 bytes, at most"));
  fs::remove(file);
  CHECK_THAT(refusal([&] { Tokenizer::from_file(file); }), ContainsSubstring("does not exist"));
}

TEST_CASE("padding and truncation that a tokenizer asks for do not count") {
  const std::string good = test::slurp(kParity / "llava/checkpoint/tokenizer.json");
  const Tokenizer plain = Tokenizer::from_json(good, "tokenizer");
  Json json = parse_json(good, "tokenizer");
  json["padding"] = {{"strategy", {{"Fixed", 1ULL << 62}}},
                     {"direction", "Right"},
                     {"pad_to_multiple_of", nullptr},
                     {"pad_id", 0},
                     {"pad_type_id", 0},
                     {"pad_token", "<pad>"}};
  json["truncation"] = {
      {"direction", "Right"}, {"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  const Tokenizer padded = Tokenizer::from_json(dump_json(json), "tokenizer");
  CHECK(padded.encode("What is in the image?") == plain.encode("What is in the image?"));
}

TEST_CASE("absurd values of preprocessor_config.json are refused") {
  const auto value = [](const std::string& fixture, const std::string& path, const std::string& text,
                        const std::string& why) {
    INFO(fixture << ": " << path << " = " << text);
    const Copy copy(fixture);
    change_json(copy.model() / "preprocessor_config.json",
                [&](Json& json) { json[Json::json_pointer(path)] = Json::parse(text); });
    CHECK_THAT(refusal([&] { Preprocessor::from_folder(copy.model()); }),
               ContainsSubstring("preprocessor_config.json") && ContainsSubstring(why));
  };
  for (const char* size : {"0", "-1", "4097", "1000000000000000000", "1.5", "\"28\"", "null", "[]"}) {
    value("llava", "/size/shortest_edge", size, "size: needs a shortest_edge from 1 to 4096");
    value("llava", "/crop_size/height", size, "crop_size: needs a height from 1 to 4096");
    value("instructblip", "/size/width", size, "size: needs a width from 1 to 4096");
    value("smolvlm", "/size/longest_edge", size, "size: needs a longest_edge from 1 to 4096");
    value("smolvlm", "/max_image_size/longest_edge", size,
          "max_image_size: needs a longest_edge from 1 to 4096");
  }
  value("smolvlm", "/max_image_size/longest_edge", "1", "size: makes 72 tiles of 1 pixels along an edge");
  for (const char* points : {"[]", "7", "[30]", "[[30]]", "[[30, 30, 30]]", "[[\"30\", 30]]", "[[0, 30]]",
                             "[[30, 31]]", "[[30, 300000000000]]", "[[3000, 3000]]"})
    value("llava_onevision", "/image_grid_pinpoints", points, "image_grid_pinpoints: ");
  for (const char* std : {"[0, 0.5, 0.5]", "[0.5, 0.5, -0.5]", "[0.5, 1e-300, 0.5]", "[0.5, 0.5]", "[]",
                          "0.5", "[0.5, 0.5, \"0.5\"]", "[0.5, 1e300, 0.5]"})
    value("llava", "/image_std", std, "image_std");
  for (const char* mean :
       {"[0.5, 0.5]", "[0.5, 0.5, 0.5, 0.5]", "{}", "[1e300, 0.5, 0.5]", "[null, 0.5, 0.5]"})
    value("llava", "/image_mean", mean, "image_mean needs three numbers");
  for (const char* factor : {"0", "-1", "1e300"})
    value("llava", "/rescale_factor", factor, "rescale_factor: is no positive factor");
  value("llava", "/resample", "9", "resample 9 is not supported");
  value("llava", "/image_processor_type", "\"Other\"", "'Other' is not supported");

  const Copy copy("llava");
  for (const auto& [text, why] : {std::pair<std::string, const char*>("", "not JSON"),
                                  {"[]", "is not a JSON object"},
                                  {nested(1000), "nested deeper than"},
                                  {std::string(1 << 20, ' '), "at most"}}) {
    test::write(copy.model() / "preprocessor_config.json", text);
    CHECK_THAT(refusal([&] { Preprocessor::from_folder(copy.model()); }),
               ContainsSubstring("preprocessor_config.json") && ContainsSubstring(why));
  }
}

TEST_CASE("pictures that would take more memory than they are worth are refused") {
  const test::TemporaryFolder folder;
  const auto big_endian = [](std::uint32_t value, std::size_t bytes) {
    std::string out;
    for (std::size_t i = bytes; i-- > 0;) out += static_cast<char>(value >> 8 * i);
    return out;
  };
  const fs::path images = kTests / "fixtures/images";
  std::string jpeg = test::slurp(images / "rgb_progressive.jpg");
  const std::size_t frame = jpeg.find("\xff\xc2"), scan = jpeg.find("\xff\xda");
  REQUIRE(frame != std::string::npos);
  std::size_t end = scan + 2;
  while (jpeg[end] != '\xff' || jpeg[end + 1] == '\0' || (jpeg[end + 1] & 0xf8) == 0xd0) ++end;
  std::string often = jpeg.substr(0, scan);
  for (int i = 0; i < 200; ++i) often += jpeg.substr(scan, end - scan);
  CHECK_THAT(refusal([&] { decode_image(often + jpeg.substr(end), "x.jpg"); }),
             ContainsSubstring("x.jpg: damaged JPEG: more scans than a picture needs"));
  jpeg.replace(frame + 5, 4, big_endian(2700, 2) + big_endian(65500, 2));
  test::write(folder / "x.jpg", jpeg);
  for (const auto& read : {std::function<void()>([&] { read_image(folder / "x.jpg"); }),
                           std::function<void()>([&] { read_picture_size(folder / "x.jpg"); })})
    CHECK_THAT(refusal(read),
               ContainsSubstring("x.jpg: the picture claims 65500 x 2700 pixels, more than its"));

  // A picture of one column, cut to squares or squeezed into them, would be a tower of gigabytes on the way.
  constexpr int kLong = 900'000;
  write_png(folder / "thin.png", Image{1, kLong, std::vector<std::uint8_t>(3U * kLong, 9)});
  for (const char* fixture : {"llava", "instructblip"}) {
    const Copy copy(fixture);
    const char* key = fixture == std::string("llava") ? "shortest_edge" : "width";
    change_json(copy.model() / "preprocessor_config.json", [&](Json& c) { c["size"][key] = 336; });
    CHECK_THAT(refusal([&] { Preprocessor::from_folder(copy.model()).load((folder / "thin.png").string()); }),
               ContainsSubstring("thin.png: resize: of 1 x 900000 pixels to 336 x ") &&
                   ContainsSubstring("takes too much memory"));
  }
  CHECK_THAT(
      refusal([&] {
        Preprocessor::from_folder(kParity / "llava/checkpoint", true).load((folder / "thin.png").string());
      }),
      ContainsSubstring("a square of 900000 pixels takes too much memory"));
}
