#include "fuzz/targets.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <initializer_list>

#include "core/files.hpp"
#include "data/preprocessor.hpp"
#include "data/tokenizer.hpp"
#include "fuzz/mutate.hpp"
#include "model/clip.hpp"
#include "model/gguf.hpp"
#include "model/mllm.hpp"
#include "model/peft.hpp"
#include "model/safetensors.hpp"

namespace mcit::fuzz {
namespace {

namespace fs = std::filesystem;

const fs::path kTests = fs::path(MCIT_SOURCE_DIR) / "tests";

/// The fixtures' files with these endings, in the order of their paths.
std::vector<std::string> inputs_of(std::initializer_list<const char*> endings, const fs::path& under = "") {
  constexpr std::uintmax_t kLargest = 512 << 10;
  std::vector<fs::path> files;
  for (const char* folder : {"parity", "fixtures/gguf", "fixtures/images"})
    for (const auto& entry : fs::recursive_directory_iterator(kTests / folder))
      for (const char* ending : endings)
        if (entry.path().string().ends_with(ending) && entry.file_size() <= kLargest &&
            entry.path().string().starts_with((kTests / under).string()))
          files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  std::vector<std::string> out;
  for (const fs::path& file : files) out.push_back(read_file(file));
  return out;
}

void put(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
}

/// A whole file beside the damaged one.
void lend(const fs::path& from, const fs::path& folder, const char* name) {
  fs::copy_file(from / name, folder / name, fs::copy_options::overwrite_existing);
}

/// Reads every byte, so that a tensor that reaches outside of its file is found.
void touch(const StateDict& tensors) {
  unsigned sum = 0;
  for (const auto& [name, tensor] : tensors) {
    const Tensor flat = tensor.contiguous();
    const auto* bytes = static_cast<const unsigned char*>(flat.const_data_ptr());
    for (std::size_t i = 0; i < flat.nbytes(); ++i) sum += bytes[i];
  }
  volatile unsigned kept = sum;
  (void)kept;
}

bool is_json(const std::string& input) { return input.starts_with("{"); }

std::string damage(const std::vector<std::string>& inputs, Rng& rng) { return mutated(inputs, rng); }

/// Mostly the header alone, with the length that it has then.
std::string damage_container(const std::vector<std::string>& inputs, Rng& rng) {
  const std::string& input = inputs[rng.below(inputs.size())];
  const std::string& other = inputs[rng.below(inputs.size())];
  constexpr std::size_t kLength = 8;
  if (is_json(input) || rng.chance(0.2)) return mutated(input, other, rng);
  std::uint64_t length = 0;
  std::memcpy(&length, input.data(), kLength);
  const std::string header = mutated(input.substr(kLength, length), other, rng);
  std::string out(kLength, '\0');
  length = header.size();
  std::memcpy(out.data(), &length, kLength);
  return out + header + input.substr(std::min(input.size(), kLength + length));
}

std::string damage_png(const std::vector<std::string>& inputs, Rng& rng) {
  std::string out = mutated(inputs, rng);
  if (rng.chance(0.8)) mend_checksums(out);
  return out;
}

void feed_safetensors(const std::string& input, const fs::path& folder) {
  if (!is_json(input)) {
    put(folder / "x.safetensors", input);
    touch(read_safetensors(folder / "x.safetensors").tensors);
    return;
  }
  for (const char* shard : {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"})
    if (!fs::exists(folder / shard)) lend(kTests / "parity/llava/checkpoint", folder, shard);
  put(folder / "model.safetensors.index.json", input);
  touch(read_checkpoint_tensors(folder));
}

void feed_gguf(const std::string& input, const fs::path& folder) {
  put(folder / "x.gguf", input);
  touch(read_gguf(folder / "x.gguf").tensors);
}

void feed_tokenizer(const std::string& input, const fs::path&) {
  const Tokenizer tokenizer = Tokenizer::from_json(input, "tokenizer.json");
  std::vector<std::int64_t> ids = tokenizer.encode("USER: <image>\nWhat is 3 × 14?  Größe, 犬 🐕\t</s> ");
  for (std::int64_t id = 0; id < tokenizer.size() && id < 64; ++id) ids.push_back(id);
  for (const bool skip : {false, true}) tokenizer.decode(ids, skip);
  tokenizer.token_to_id("<image>");
}

void feed_picture(const std::string& input, const fs::path& folder) {
  put(folder / "picture", input);
  const PictureSize size = read_picture_size(folder / "picture");
  const Image image = read_image(folder / "picture");
  if (size.width != image.width || size.height != image.height)
    throw std::logic_error("the header's size is not the picture's");
}

/// As `mcit inspect` does it: no tensor is there, and none is needed.
void feed_config(const std::string& input, const fs::path& folder) {
  const bool generation = input.find("model_type") == std::string::npos;
  fs::remove(folder / "generation_config.json");
  if (generation) lend(kTests / "parity/llava/checkpoint", folder, "config.json");
  put(folder / (generation ? "generation_config.json" : "config.json"), input);
  Weights none = Weights::for_inspection({});
  const std::string type = model_type(folder);
  if (type == "clip" || type == "siglip") {
    const ClipConfig config = read_clip_config(folder);
    const Clip model(config, none);
    clip_config_json(config, "float16");
  } else {
    const MllmConfig config = read_mllm_config(folder);
    const Mllm model(config, none);
    mllm_config_json(config, "float16");
  }
}

void feed_preprocessor(const std::string& input, const fs::path& folder) {
  constexpr std::size_t kMost = 4 << 20;  // bytes of tiles from which on their pixels are not computed
  const bool section = input.find("\"image_processor\"") != std::string::npos;
  fs::remove(folder / "preprocessor_config.json");
  put(folder / (section ? "processor_config.json" : "preprocessor_config.json"), input);
  const Preprocessor reader = Preprocessor::from_folder(folder);
  const Image image{9, 5, std::vector<std::uint8_t>(std::size_t{9} * 5 * 3, 77)};
  reader.shape({5, 9});
  std::size_t bytes = 0;
  for (const Image& tile : reader.tiles(image)) bytes += tile.rgb.size();
  if (bytes <= kMost) reader.pixels(image);
}

void feed_adapter(const std::string& input, const fs::path& folder) {
  const fs::path fixture = kTests / "parity/smolvlm";
  static const MllmConfig config = read_mllm_config(fixture / "checkpoint");
  static const StateDict model = read_mllm_tensors(fixture / "checkpoint", config);
  constexpr const char *kSettings = "adapter_config.json", *kTensors = "adapter_model.safetensors";
  lend(fixture / "adapter", folder, is_json(input) ? kTensors : kSettings);
  put(folder / (is_json(input) ? kSettings : kTensors), input);
  StateDict tensors = model;
  merge_peft(tensors, config, folder);
}

}  // namespace

std::vector<Target> all_targets() {
  std::vector<std::string> processors = inputs_of({"processor_config.json"});
  processors.push_back("{\"image_processor\": " + processors.front() + "}");
  // The original LLaVA's form: a LLaMA's file that names a tower's folder.
  std::vector<std::string> configs = inputs_of({"/config.json", "/generation_config.json"});
  configs.push_back("{\"mm_vision_tower\": \"" + (kTests / "parity/clip/checkpoint").string() + "\", " +
                    read_file(kTests / "parity/llama/checkpoint/config.json").substr(1));
  return {
      {"safetensors", inputs_of({".safetensors", ".safetensors.index.json"}), damage_container,
       feed_safetensors},
      {"gguf", inputs_of({".gguf"}), damage, feed_gguf},
      {"tokenizer", inputs_of({"/tokenizer.json"}), damage, feed_tokenizer},
      {"png", inputs_of({".png"}), damage_png, feed_picture},
      {"jpeg", inputs_of({".jpg"}), damage, feed_picture},
      {"config", configs, damage, feed_config},
      {"preprocessor", processors, damage, feed_preprocessor},
      {"adapter", inputs_of({"adapter_config.json", "adapter_model.safetensors"}, "parity/smolvlm/adapter"),
       damage_container, feed_adapter}};
}

}  // namespace mcit::fuzz
