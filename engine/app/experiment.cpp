#include "app/experiment.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <set>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/system.hpp"
#include "data/suite_files.hpp"
#include "mcit/errors.hpp"
#include "mini/domains.hpp"
#include "mini/stream.hpp"

namespace mcit {

std::filesystem::path share_dir() {
  if (const char* given = std::getenv("MCIT_SHARE"); given != nullptr && *given != '\0') return given;
  return executable_dir().parent_path() / "share" / "mcit";
}

std::filesystem::path find_model(const std::string& name) {
  if (std::filesystem::is_directory(name)) return name;
  const auto builtin = share_dir() / name / "base";
  if (name.find('/') == std::string::npos && std::filesystem::exists(builtin / "config.json")) return builtin;
  const auto fetched = user_cache_dir() / "models" / name;
  if (name.find('/') == std::string::npos && std::filesystem::exists(fetched / "config.json")) return fetched;
  if (std::filesystem::is_regular_file(name) && name.ends_with(".gguf"))
    throw ConfigError("model", "'" + name + "' is a file",
                      "mcit convert " + name + " --out DIR makes a model folder of it");
  throw ConfigError("model", "'" + name + "' is neither a folder nor a known model",
                    "built in: mini; smollm2 and smollm2-135m once ./dev fetch smollm2 has made them");
}

TextEncoder clip_text_encoder(const Tokenizer& tokenizer, const TextTowerConfig& text) {
  // The first CLIP files name 2 as their end token and mean the one that their tokenizer writes.
  const std::vector<std::int64_t> empty = tokenizer.encode("", true);
  const std::int64_t end = empty.size() > 1 ? empty.back() : text.eos_token_id;
  return [=, most = static_cast<std::size_t>(text.max_position_embeddings)](const std::string& words) {
    // A word's token may carry the blank in front of it. CLIP's own tokenizer drops blanks.
    std::vector<std::int64_t> ids = tokenizer.encode(" " + words, true);
    if (!ids.empty() && ids.back() == end) ids.pop_back();
    if (ids.size() >= most) ids.resize(most - 1);
    ids.push_back(end);
    return ids;
  };
}

namespace {

/// What of a folder decides about a model's numbers; the same whatever order the system lists shards in.
void hash_folder(Hasher& hasher, const std::filesystem::path& folder) {
  for (const char* file :
       {"config.json", "model.safetensors", "model.safetensors.index.json", "mm_projector.safetensors",
        "tokenizer.json", "preprocessor_config.json", "processor_config.json", "generation_config.json",
        "qformer_tokenizer/tokenizer.json"})
    if (std::filesystem::exists(folder / file)) hasher.field(file).field(hash_file(folder / file));
  std::set<std::filesystem::path> shards;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("model-") && entry.path().extension() == ".safetensors")
      shards.insert(entry.path());
  for (const auto& shard : shards) hasher.field(hash_file(shard));
}

}  // namespace

std::string model_folder_hash(const std::filesystem::path& folder, bool pad_square,
                              const std::filesystem::path& adapter, const std::filesystem::path& tower) {
  Hasher hasher;
  for (const auto& part : {folder, folder / "clip", tower})
    if (!part.empty() && std::filesystem::is_directory(part)) hash_folder(hasher.field("folder"), part);
  hasher.update(std::int64_t{pad_square});
  if (!adapter.empty())
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      hasher.field(hash_file(adapter / file));
  return hasher.hex();
}

Tensor OpenClip::embed(const Tensor& pixels) const {
  const at::NoGradGuard no_grad;
  const Tensor& weights = clip->token_embedding();
  return clip->embed_images(pixels.to(weights.device(), weights.scalar_type())).to(at::kCPU, at::kFloat);
}

OpenClip open_clip(const std::filesystem::path& folder, const std::filesystem::path& shared,
                   at::Device device, bool pad_square, std::optional<at::ScalarType> dtype) {
  const auto folder_of = [&](const char* file) {
    return std::filesystem::exists(folder / file) ? folder : shared;
  };
  OpenClip out{load_clip(folder, device, dtype),
               Preprocessor::from_folder(folder_of("preprocessor_config.json"), pad_square),
               {}};
  if (out.preprocessor.tiled())
    throw CheckpointError((folder / "preprocessor_config.json").string(),
                          "is missing, and the model's own cuts pictures into tiles",
                          "the CLIP towers need their own");
  out.encode = clip_text_encoder(Tokenizer::from_file(folder_of("tokenizer.json") / "tokenizer.json"),
                                 out.clip->config().text);
  return out;
}

OpenModel open_model(const std::filesystem::path& folder, at::Device device, bool pad_square,
                     const std::filesystem::path& adapter, std::optional<at::ScalarType> dtype) {
  std::unique_ptr<Progress> bar;
  std::int64_t taken = 0, shown = 0;
  const auto progress = [&](std::int64_t bytes, std::int64_t of) {
    constexpr std::int64_t kMega = 1 << 20, kWorthABar = 1024 * kMega;
    if (!bar && of >= kWorthABar) bar = std::make_unique<Progress>("reading weights", of / kMega, "MiB");
    taken += bytes;
    if (bar) bar->advance(taken / kMega - shown);
    shown = taken / kMega;
  };
  OpenModel out{folder,
                Mllm::load(folder, device, dtype, adapter, progress),
                Tokenizer::from_file(folder / "tokenizer.json"),
                {},
                std::nullopt,
                {}};
  Mllm& model = *out.model;
  const MllmConfig& config = model.config();
  if (config.image_token_id >= 0 && out.tokenizer.token_to_id("<image>") != config.image_token_id)
    throw CheckpointError(
        (folder / "tokenizer.json").string(),
        "its <image> token is not the model's image token " + std::to_string(config.image_token_id),
        "tokenizer and config.json belong to different models");
  if (config.sees())
    out.preprocessor = Preprocessor::from_folder(
        config.tower.empty() || std::filesystem::exists(folder / "preprocessor_config.json") ? folder
                                                                                             : config.tower,
        pad_square || config.pad_square);
  if (config.family == Family::instructblip) {
    out.instruction_ids = [tokenizer = Tokenizer::from_file(folder / "qformer_tokenizer" / "tokenizer.json")](
                              const std::string& text) { return tokenizer.encode(text, true); };
    model.set_instructions(out.instruction_ids);
  }
  if (std::filesystem::exists(folder / "clip" / "config.json")) {
    out.clip = open_clip(folder / "clip", folder, device, pad_square, dtype);
    model.set_clip(
        out.clip->clip,
        [clip = *out.clip](const std::vector<std::string>& paths) {
          std::vector<Tensor> pixels;
          for (const std::string& path : paths) pixels.push_back(clip.preprocessor.load(path));
          return clip.embed(at::cat(pixels));
        },
        out.clip->encode);
  }
  return out;
}

Encoder make_encoder(const OpenModel& model, const std::string& prompt_template) {
  const Mllm& m = *model.model;
  const MllmConfig& c = m.config();
  EncoderOptions options{.prompt_template = prompt_template.empty() ? usual_template(c) : prompt_template,
                         .picture = {},
                         .image_token_id = c.image_token_id,
                         .eos_token_id = c.text.eos_token_ids.front(),
                         .max_length = c.text.max_position_embeddings,
                         .vocabulary = c.text.vocab_size,
                         .model = m.info().family + " " + std::to_string(m.info().image_tokens)};
  if (m.reads_shape())
    options.picture = [&m, preprocessor = model.preprocessor](const std::string& path) {
      return m.picture_text(preprocessor.shape_of(path));
    };
  else if (c.sees())
    options.picture = [text = m.picture_text({})](const std::string&) { return text; };
  return Encoder(model.tokenizer, std::move(options));
}

namespace {

/// Makes what a suite's [mini] table describes, unless the user names data of their own, and finishes the
/// suite's table. @return the data's folder
std::filesystem::path builtin_data(const Suite& suite, bool needed) {
  const Config& table = *suite.builtin;
  mini::MiniOptions stream;
  mini::DomainOptions domains;
  const bool classify = suite.kind == "classify";
  if (classify) {
    domains = mini::read_domain_options(table);
  } else {
    stream = mini::read_options(table);
    if (!stream.tasks.empty())
      throw ConfigError(table.where("tasks"), "the suite's [[tasks]] say which tasks there are",
                        "remove the key");
  }
  suite.file.finish();
  if (!needed) return {};
  for (const SuiteTask& task : suite.tasks) stream.tasks.push_back(task.name);
  const std::string probe = suite.probe.empty() ? "" : suite.probe.begin()->string();
  if (!probe.empty() && std::find(stream.tasks.begin(), stream.tasks.end(), probe) == stream.tasks.end())
    stream.tasks.push_back(probe);
  std::unique_ptr<Progress> bar;
  const mini::MiniProgress progress = [&](std::string_view task, std::size_t, std::size_t count) {
    if (!bar)
      bar =
          std::make_unique<Progress>("drawing the built-in tasks", static_cast<std::int64_t>(count), "tasks");
    bar->advance(1, task);
  };
  const mini::Pack pack(share_dir() / "mini" / "pack");
  const auto cache = user_cache_dir() / "data";
  return classify ? mini::materialise_domains(pack, domains, cache, progress)
                  : mini::materialise(pack, stream, cache, progress);
}

}  // namespace

Suite open_suite(const std::string& name, const std::vector<std::string>& order,
                 const std::filesystem::path& data) {
  Suite suite = read_suite(find_suite(name, {share_dir()}), order, {share_dir()});
  if (suite.builtin) suite.data = builtin_data(suite, data.empty());
  if (!data.empty()) {
    // What lies in none of these is missing below the folder that was given.
    const std::filesystem::path found = find_data(suite, {data}).folder;
    suite.data = found.empty() ? data : found;
  } else if (suite.data.empty()) {
    suite.data = find_data(suite, data_roots()).folder;
  }
  if (suite.data.empty())
    throw ConfigError("suite '" + suite.name + "'", "its data was not found",
                      data_roots().empty()
                          ? "give --data DIR, or set MCIT_DATA to the folders that hold data sets"
                          : "none of its files is in the folders that MCIT_DATA names; give --data DIR");
  if (!std::filesystem::is_directory(suite.data))
    throw DataError(suite.data.string(), "is no folder",
                    "give --data DIR, the folder that holds the suite's files");
  if (!suite.builtin) locate(suite);
  return suite;
}

std::unique_ptr<Batches> QuietHost::probe() { throw Error("host.probe", "there is no suite"); }

at::Generator QuietHost::generator() { return at::globalContext().defaultGenerator(at::kCPU); }

ExamplePtr QuietHost::example(std::int64_t, std::int64_t) {
  throw Error("host.example", "no task was trained yet");
}

int set_threads(std::int64_t wanted) {
  const bool given = std::getenv("OMP_NUM_THREADS") != nullptr;  // LibTorch has read it
  const int usable = given ? at::get_num_threads() : hardware().usable_cores;
  const int threads = wanted > 0 ? static_cast<int>(wanted) : std::max(1, usable);
  at::set_num_threads(threads);
  return threads;
}

std::string engine_hash() {
  Hasher hasher;
  hasher.field(hash_file("/proc/self/exe"));
  for (const auto& folder : {executable_dir().parent_path() / "lib", executable_dir()})
    if (std::filesystem::exists(folder / "libmcit_sdk.so"))
      hasher.field(hash_file(folder / "libmcit_sdk.so"));
  return hasher.hex();
}

}  // namespace mcit
