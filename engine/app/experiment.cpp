#include "app/experiment.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/system.hpp"
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
  throw ConfigError("model", "'" + name + "' is neither a folder nor a built-in model", "built in: mini");
}

namespace {

/// CLIP towers for image and text features: their own tokenizer, or the model's where they have none.
void install_clip(OpenModel& model, const std::filesystem::path& folder, at::Device device) {
  std::shared_ptr<Clip> clip = load_clip(folder, device);
  const auto own = folder / "tokenizer.json";
  const Tokenizer tokenizer = std::filesystem::exists(own) ? Tokenizer::from_file(own) : model.tokenizer;
  const TextEncoder encode = clip_text_encoder(tokenizer, clip->config().text);
  model.model->set_clip(clip, encode);
}

}  // namespace

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

std::string model_folder_hash(const std::filesystem::path& folder, bool pad_square,
                              const std::filesystem::path& adapter) {
  Hasher hasher;
  for (const char* file :
       {"config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json",
        "preprocessor_config.json", "clip/config.json", "clip/model.safetensors", "clip/tokenizer.json"})
    if (std::filesystem::exists(folder / file)) hasher.field(file).field(hash_file(folder / file));
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("model-") && entry.path().extension() == ".safetensors")
      hasher.field(hash_file(entry.path()));
  hasher.update(std::int64_t{pad_square});
  if (!adapter.empty())
    for (const char* file : {"adapter_config.json", "adapter_model.safetensors"})
      hasher.field(hash_file(adapter / file));
  return hasher.hex();
}

OpenModel open_model(const std::filesystem::path& folder, at::Device device, bool pad_square,
                     const std::filesystem::path& adapter) {
  OpenModel out{folder, Mllm::load(folder, device, std::nullopt, adapter),
                Tokenizer::from_file(folder / "tokenizer.json"),
                Preprocessor::from_folder(folder, pad_square),
                model_folder_hash(folder, pad_square, adapter)};
  const std::int64_t image = out.model->config().image_token_id;
  if (out.tokenizer.token_to_id("<image>") != image)
    throw CheckpointError((folder / "tokenizer.json").string(),
                          "its <image> token is not the model's image token " + std::to_string(image),
                          "tokenizer and config.json belong to different models");
  if (std::filesystem::exists(folder / "clip" / "config.json")) install_clip(out, folder / "clip", device);
  return out;
}

Encoder make_encoder(const OpenModel& model, const std::string& prompt_template) {
  const LlavaConfig& c = model.model->config();
  return Encoder(model.tokenizer, {prompt_template, c.image_tokens(), c.image_token_id,
                                   c.text.eos_token_ids.front(), c.text.max_position_embeddings});
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
  Suite suite = read_suite(find_suite(name, {share_dir()}), order);
  if (suite.builtin) suite.data = builtin_data(suite, data.empty());
  if (!data.empty()) suite.data = data;
  if (suite.data.empty())
    throw ConfigError("suite '" + suite.name + "'", "does not say where its data lies", "give --data DIR");
  if (!std::filesystem::is_directory(suite.data))
    throw DataError(suite.data.string(), "is no folder",
                    "give --data DIR, the folder that holds the suite's files");
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
