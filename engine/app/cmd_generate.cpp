#include <CLI/CLI.hpp>
#include <iostream>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "mcit/errors.hpp"
#include "model/safetensors.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string model = "mini", adapter, image, prompt, prompt_template, dump, device = "cpu", dtype = "auto";
  std::int64_t max_new_tokens = 32, threads = 0;
  bool pad_square = false;
};

void generate(const Flags& flags) {
  const at::NoGradGuard no_grad;
  set_threads(flags.threads);
  const std::filesystem::path folder = find_model(flags.model);
  OpenModel open = open_model(folder, open_device(flags.device), flags.pad_square, flags.adapter,
                              flags.dtype == "auto" ? std::nullopt : std::optional(dtype_named(flags.dtype)));
  const Encoder encoder = make_encoder(open, flags.prompt_template);
  Record record{.id = "prompt", .image = flags.image, .turns = {{flags.prompt, ""}}, .golds = {""}};
  const auto example = std::make_shared<const Example>(encoder.test(record, 0, 0, flags.max_new_tokens));
  Mllm& model = *open.model;
  Tensor pixels, features;
  if (!flags.image.empty()) {
    pixels = open.preprocessor.load(flags.image);
    features = model.vision_features(pixels);
    model.set_images({[&](const std::string&) { return features.to(at::kCPU, at::kFloat); },
                      {},
                      [&](const std::string& path) { return open.preprocessor.shape_of(path); }});
  }
  const Batch batch{{example}};
  Prefill prefill = model.prefill(batch, flags.max_new_tokens);
  std::cout << encoder.decode(model.decode(prefill, flags.max_new_tokens)[0]) << "\n";
  if (flags.dump.empty()) return;
  StateDict out = {{"input_ids", at::tensor(example->tokens, at::kLong).unsqueeze(0)},
                   {"logits", model.all_logits(batch, features).to(at::kCPU).unsqueeze(0).contiguous()}};
  if (pixels.defined()) {
    const bool tiled = open.preprocessor.tiled();
    const PictureSize size = open.preprocessor.shape_of(flags.image).size;
    out["pixel_values"] = tiled ? pixels.unsqueeze(0) : pixels;
    if (tiled) out["image_sizes"] = at::tensor({size.height, size.width}, at::kLong).unsqueeze(0);
  }
  if (model.config().family == Family::instructblip)
    out["qformer_input_ids"] = at::tensor(open.instruction_ids(example->prompt), at::kLong).unsqueeze(0);
  write_safetensors(flags.dump, out);
}

}  // namespace

void add_generate(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("generate", "Answer one question about one picture");
  command->add_option("--model", flags->model, "Model folder in Hugging Face form, or mini")
      ->capture_default_str()
      ->type_name("DIR|NAME");
  command->add_option("--adapter", flags->adapter, "PEFT folder of a LoRA to merge into the weights")
      ->check(CLI::ExistingDirectory)
      ->type_name("DIR");
  command->add_option("--image", flags->image, "JPEG or PNG")->check(CLI::ExistingFile)->type_name("FILE");
  command->add_option("--prompt", flags->prompt, "The question")->required()->type_name("TEXT");
  command
      ->add_option("--template", flags->prompt_template,
                   "Prompt template: plain, llava, vicuna_v1, chatml, smolvlm or question [the model's own]")
      ->type_name("NAME");
  command->add_option("--max-new-tokens", flags->max_new_tokens, "Longest answer")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--dump", flags->dump, "Also write pixel_values, input_ids and logits as safetensors")
      ->type_name("FILE");
  command->add_option("--device", flags->device, "cpu, cuda or cuda:N")->capture_default_str();
  command->add_option("--dtype", flags->dtype, "Of the weights; auto: float32 on the CPU, as stored on CUDA")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float16"}));
  command->add_option("--threads", flags->threads, "Threads, 0 for all cores")->capture_default_str();
  command->add_flag("--pad-square", flags->pad_square,
                    "Pad pictures to a square first, as the original LLaVA does");
  command->footer("Example:\n  mcit generate --image dog.png --prompt \"what is this ?\"");
  command->callback([flags] { generate(*flags); });
}

}  // namespace mcit
