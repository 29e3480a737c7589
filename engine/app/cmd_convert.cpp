// mcit convert: a language model of llama.cpp as a Hugging Face folder.

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "mcit/errors.hpp"
#include "model/device.hpp"
#include "model/gguf.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string file, out, dtype = "float16";
};

void write_model(const fs::path& folder, const GgufModel& model, const std::string& dtype) {
  Json config = parse_json(model.config_json, "config.json"), generation = Json::object();
  config["torch_dtype"] = dtype;
  // What chat-tuned models were tuned with, where it is one that we can write.
  if (model.tokenizer_config_json.find("<|im_start|>") != std::string::npos)
    config["prompt_template"] = "chatml";
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (!config[key].is_null()) generation[key] = config[key];
  write_model_file(folder, model.tensors, dtype_named(dtype), {}, dump_json(config, 2) + "\n");
  write_json(folder / "generation_config.json", generation);
  if (model.tokenizer_json.empty()) return;
  write_atomic(folder / "tokenizer.json", model.tokenizer_json);
  write_atomic(folder / "tokenizer_config.json", model.tokenizer_config_json);
}

void convert(const Flags& flags) {
  const at::NoGradGuard no_grad;
  at::set_num_threads(1);  // bound by memory: more threads would wait for one another
  if (fs::exists(flags.out) && !(fs::is_directory(flags.out) && fs::is_empty(flags.out)))
    throw ConfigError("--out", "'" + flags.out + "' is already there", "name a new or an empty folder");
  const GgufModel model = read_gguf(flags.file, dtype_named(flags.dtype));
  write_folder(flags.out, [&](const fs::path& folder) { write_model(folder, model, flags.dtype); });
  std::int64_t numbers = 0;
  for (const auto& [name, tensor] : model.tensors) numbers += tensor.numel();
  std::cout << flags.out << ": " << model.tensors.size() << " tensors, " << numbers << " numbers in "
            << flags.dtype << "\n";
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(flags.out)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  for (const fs::path& file : files)
    std::cout << "  " << file.filename().string() << " " << fs::file_size(file) << " bytes\n";
  if (!model.tokenizer_missing.empty())
    log::warn("no tokenizer.json: ", model.tokenizer_missing,
              "; copy that of the original model into the folder");
}

}  // namespace

void add_convert(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("convert", "Write a GGUF language model as a Hugging Face folder");
  command->add_option("FILE", flags->file, "A .gguf file of llama.cpp")
      ->required()
      ->check(CLI::ExistingFile)
      ->type_name("");
  command->add_option("--out", flags->out, "Folder to write; must not exist yet, or be empty")
      ->required()
      ->type_name("DIR");
  command->add_option("--dtype", flags->dtype, "Type of all tensors")
      ->check(CLI::IsMember({"float16", "bfloat16", "float32"}))
      ->capture_default_str();
  command->footer(
      "Architectures llama and qwen2, tensors F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q6_K. config.json,\n"
      "model.safetensors, generation_config.json, tokenizer.json and tokenizer_config.json are what "
      "transformers\n"
      "would read.\n"
      "Example:\n  mcit convert SmolLM2-135M-Instruct.Q4_1.gguf --out models/smollm2-135m");
  command->callback([flags] { convert(*flags); });
}

}  // namespace mcit
