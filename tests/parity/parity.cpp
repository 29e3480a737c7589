// One fixture folder against this engine: what transformers and PEFT computed from a tiny checkpoint
// (make_fixtures.py, README.md), recomputed from the same files. One line a check; ends with 1 at the first
// that fails.
#include <ATen/Parallel.h>

#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/experiment.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "mcit/errors.hpp"
#include "model/peft.hpp"
#include "model/safetensors.hpp"
#include "train/optimizer.hpp"

using namespace mcit;

namespace {

using Ids = std::vector<std::int64_t>;

struct Failed : std::exception {};

class Report {
 public:
  explicit Report(std::string family) : family_(std::move(family)) {}
  void within(const std::string& name, double difference, double tolerance) {
    char text[64];
    std::snprintf(text, sizeof text, "%.1e (at most %.1e)", difference, tolerance);
    line(name, difference <= tolerance, text);
  }
  void close(const std::string& name, const Tensor& ours, const Tensor& theirs, double tolerance) {
    if (ours.sizes() != theirs.sizes()) {
      std::ostringstream text;
      text << "shape " << ours.sizes() << ", not " << theirs.sizes();
      line(name, false, text.str());
    }
    within(name,
           (ours.to(at::kCPU, at::kDouble) - theirs.to(at::kCPU, at::kDouble)).abs().max().item<double>(),
           tolerance);
  }
  void equal(const std::string& name, bool holds, const std::string& what = "equal") {
    line(name, holds, holds ? what : "differs");
  }

 private:
  void line(const std::string& name, bool holds, const std::string& text) {
    std::cout << (holds ? "ok    " : "FAIL  ") << family_ << ": " << name << ": " << text << std::endl;
    if (!holds) throw Failed();
  }
  std::string family_;
};

/// A linear layer's LoRA, not folded into its weight.
class PlainLora final : public Adapter {
 public:
  PlainLora(Tensor a, Tensor b, double scale) : a_(std::move(a)), b_(std::move(b)), scale_(scale) {}
  Tensor down() const override { return a_; }
  Tensor up() const override { return b_; }
  Tensor mix(const Tensor& z, const Tensor&, RouteContext&, const std::string&) const override {
    return z * scale_;
  }
  Parameters parameters() const override { return {{"lora_A.weight", a_}, {"lora_B.weight", b_}}; }

 private:
  Tensor a_, b_;
  double scale_;
};

struct Fixture {
  explicit Fixture(std::filesystem::path path)
      : folder(std::move(path)),
        checkpoint(folder / "checkpoint"),
        json(read_json(folder / "expected.json")),
        tensors(read_safetensors(folder / "expected.safetensors").tensors),
        atol(json.at("precision").at("suggested_atol").get<double>()) {}

  const Tensor& at(const std::string& name) const {
    const auto found = tensors.find(name);
    if (found == tensors.end()) throw DataError((folder / "expected.safetensors").string(), "has no " + name);
    return found->second;
  }
  bool has(const std::string& name) const { return tensors.contains(name); }
  std::string picture(const std::string& file) const { return (folder / file).string(); }

  std::filesystem::path folder, checkpoint;
  Json json;
  StateDict tensors;
  double atol;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;
  at::TensorOptions options() const { return at::TensorOptions(dtype).device(device); }
};

Ids ids_of(const Tensor& tensor) {
  const Tensor flat = tensor.contiguous().view(-1);
  return {flat.const_data_ptr<std::int64_t>(), flat.const_data_ptr<std::int64_t>() + flat.numel()};
}

void check_tokenizers(const Fixture& f, Report& report) {
  const Json cases = read_json(f.folder / "tokenizer_cases.json");
  for (const auto& [name, list] : cases.items()) {
    const auto folder = name == "tokenizer" ? f.checkpoint : f.checkpoint / name;
    const Tokenizer tokenizer = Tokenizer::from_file(folder / "tokenizer.json");
    bool same = true;
    for (const Json& one : list) {
      const auto text = one.at("text").get<std::string>();
      const Ids special = one.at("ids_with_special").get<Ids>();
      same = same && tokenizer.encode(text, false) == one.at("ids").get<Ids>() &&
             tokenizer.encode(text, true) == special &&
             tokenizer.decode(special, false) == one.at("decoded").get<std::string>() &&
             tokenizer.decode(special, true) == one.at("decoded_skip_special").get<std::string>();
    }
    report.equal(name + " cases", same, std::to_string(list.size()) + " equal");
  }
}

/// Puts the fixture's adapter on sites; returns its tensors by their keys in the adapter's file.
Parameters attach(const PeftFolder& adapter, const std::vector<Site*>& sites,
                  const std::map<std::string, Tensor>& tensors, const at::TensorOptions& options) {
  Parameters out;
  for (const PeftFolder::Lora& lora : adapter.loras) {
    const auto site =
        std::find_if(sites.begin(), sites.end(), [&](const Site* one) { return one->name() == lora.module; });
    if (site == sites.end()) throw CheckpointError(lora.down_key, "belongs to no linear layer of the model");
    const Tensor down = lora.down.to(options).clone(), up = lora.up.to(options).clone();
    (*site)->attach("lora", std::make_shared<PlainLora>(down, up, lora.scale));
    out.push_back({lora.down_key, down});
    out.push_back({lora.up_key, up});
  }
  for (const PeftFolder::Saved& saved : adapter.saved) {
    Tensor own = tensors.at(saved.name);
    own.copy_(saved.value);
    out.push_back({saved.key, own});
  }
  return out;
}

/// Gradients of the loss, then the losses of three AdamW steps.
void check_training(const Fixture& f, Report& report, Parameters trained,
                    const std::function<Tensor()>& loss_of) {
  const Json& lora = f.json.at("lora");
  const Json& settings = lora.at("train_settings");
  const auto losses = lora.at("train_losses").get<std::vector<double>>();
  for (Parameter& p : trained) p.value.set_requires_grad(true);
  AdamW adam(trained, {.weight_decay = settings.at("weight_decay").get<double>()});
  for (std::size_t step = 0; step < losses.size(); ++step) {
    const Tensor loss = loss_of();
    // Later losses carry what Adam makes of tiny gradients' rounding.
    report.within("LoRA loss after " + std::to_string(step) + " steps",
                  std::abs(loss.item<double>() - losses[step]), (step == 0 ? 2 : 10) * f.atol);
    if (step + 1 == losses.size()) break;
    loss.backward();
    if (step == 0) {
      double worst = 0.0;
      for (const Parameter& p : trained) {
        const Tensor theirs = f.at("lora.grad." + p.name);
        const double scale = std::max(1.0, theirs.abs().max().item<double>());
        worst = std::max(worst, (p.value.grad().cpu() - theirs).abs().max().item<double>() / scale);
      }
      report.within("LoRA gradients of " + std::to_string(trained.size()) + " tensors", worst, 1e-4);
    }
    adam.step({{"adapter", settings.at("lr").get<double>()}});
    adam.zero_grad();
  }
}

// ---- CLIP and SigLIP --------------------------------------------------------------------------------------

void check_towers(const Fixture& f, Report& report) {
  const OpenClip open = open_clip(f.checkpoint, f.checkpoint, f.device, false, f.dtype);
  Clip& clip = *open.clip;
  const Tensor raw = f.at("input.pixel_values"), pixels = raw.to(f.options());
  std::vector<Ids> texts;
  {
    const at::NoGradGuard no_grad;
    for (std::int64_t i = 0; i < 2; ++i)
      report.equal(
          "pixel_values of image_" + std::string(1, static_cast<char>('a' + i)),
          at::equal(open.preprocessor.load(f.picture(i == 0 ? "image_a.png" : "image_b.png"))[0], raw[i]));
    const Tokenizer tokenizer = Tokenizer::from_file(f.checkpoint / "tokenizer.json");
    const Json& samples = f.json.at("samples");
    for (const Json& text : samples.at("texts")) texts.push_back(tokenizer.encode(text.get<std::string>()));
    bool same = true;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const Ids whole = samples.at("input_ids")[i].get<Ids>();  // padded behind
      same = same && whole.size() >= texts[i].size() &&
             std::equal(texts[i].begin(), texts[i].end(), whole.begin());
    }
    report.equal("input_ids", same);
    const Tensor image = clip.embed_images(pixels), text = clip.embed_texts(texts);
    report.close("image_embeds", image, f.at("image_embeds"), f.atol);
    report.close("text_embeds", text, f.at("text_embeds"), f.atol);
    report.close("logits", clip.scores(image, text), f.at("logits"), f.atol);
  }
  if (!std::filesystem::exists(f.folder / "adapter")) return;
  std::vector<Site*> sites;
  clip.each_site([&](Site& site) { sites.push_back(&site); });
  MllmConfig plain;
  plain.family = Family::text;  // names stay as they are
  Parameters trained = attach(read_peft(f.folder / "adapter", plain), sites, clip.tensors(), f.options());
  const auto forward = [&] { return clip.scores(clip.embed_images(pixels), clip.embed_texts(texts)); };
  {
    const at::NoGradGuard no_grad;
    report.close("LoRA logits", forward(), f.at("lora.logits"), f.atol);
  }
  const bool sigmoid = clip.config().siglip;
  check_training(f, report, std::move(trained), [&] {
    const Tensor logits = forward();
    if (sigmoid) {
      const Tensor signs = 2 * at::eye(logits.size(0), logits.options().requires_grad(false)) - 1;
      return -at::log_sigmoid(signs * logits).sum(-1).mean();
    }
    const Tensor target = at::arange(logits.size(0), at::TensorOptions(at::kLong).device(logits.device()));
    return (at::cross_entropy_loss(logits, target) + at::cross_entropy_loss(logits.t(), target)) / 2;
  });
}

// ---- decoders, with or without eyes -----------------------------------------------------------------------

class Generative {
 public:
  Generative(const Fixture& fixture, Report& report)
      : f_(fixture),
        report_(report),
        open_(open_model(f_.checkpoint, f_.device, false, {}, f_.dtype)),
        model_(*open_.model) {
    install(model_);
  }

  void check() {
    {
      const at::NoGradGuard no_grad;
      check_inputs();
      check_forward();
      check_batch();
      check_cache();
      check_saved();
    }
    report_.within("loss", std::abs(loss(model_).item<double>() - f_.json.at("loss").get<double>()),
                   2 * f_.atol);
    check_adapter();
  }

 private:
  /// The one that writes the fixture's prompt: text models have several.
  std::string prompt_template() const {
    const Json& sample = f_.json.at("samples").at("a");
    for (const std::string& name : prompt_templates()) {
      const auto example = make_encoder(open_, name).test(record("a"), 0, 0, 16);
      if (example.prompt == sample.at("prompt").get<std::string>()) return name;
    }
    return "";
  }

  /// Pictures' features come from the tower as it is, nothing is stored.
  void install(Mllm& model) {
    if (!model.config().sees()) return;
    model.set_images({[&](const std::string& path) {
                        const at::NoGradGuard no_grad;
                        return model.vision_features(pixels(path));
                      },
                      [&](const std::string& path) { return open_.preprocessor.load(path); },
                      [&](const std::string& path) { return open_.preprocessor.shape_of(path); }});
  }

  Tensor pixels(const std::string& path) const { return open_.preprocessor.load(path); }

  Record record(const std::string& name) const {
    const Json& sample = f_.json.at("samples").at(name);
    const bool pictured = sample.contains("image");
    return {.id = name,
            .image = pictured ? f_.picture(sample.at("image").get<std::string>()) : "",
            .turns = {{sample.at("question").get<std::string>(), sample.at("answer").get<std::string>()}},
            .golds = {""}};
  }
  ExamplePtr prompt(const std::string& name) const {
    return std::make_shared<const Example>(encoder_.test(record(name), 0, 0, 16));
  }
  Batch one() const { return {{prompt("a")}}; }
  Batch both() const { return {{prompt("a"), prompt("b")}}; }
  Tensor features(const Batch& batch) const {
    if (!model_.config().sees()) return {};
    std::vector<Tensor> parts;
    for (const ExamplePtr& example : batch.examples)
      parts.push_back(model_.vision_features(pixels(example->image)));
    return at::cat(parts);
  }
  /// The reference's Q-Former reads prompt and answer, as its processor was given both; training reads the
  /// prompt.
  Tensor loss(Mllm& model) const {
    Example example = encoder_.train(record("a"), 0, 0);
    example.prompt += f_.json.at("samples").at("a").at("answer_text").get<std::string>();
    return answer_loss(model.forward({{std::make_shared<const Example>(std::move(example))}}));
  }

  void check_inputs() {
    for (const auto& [name, sample] : f_.json.at("samples").items()) {
      const ExamplePtr example = prompt(name);
      report_.equal("prompt of sample " + name, example->prompt == sample.at("prompt").get<std::string>());
      report_.equal("input_ids of sample " + name, example->tokens == sample.at("input_ids").get<Ids>());
    }
    const Example train = encoder_.train(record("a"), 0, 0);
    report_.equal("input_ids of the training row", train.tokens == ids_of(f_.at("train_input.input_ids")));
    Ids labels = ids_of(f_.at("train_input.labels"));
    labels.erase(labels.begin());
    labels.push_back(-100);
    report_.equal("labels of the training row", train.labels == labels);
    if (!model_.config().sees()) return;
    const Tensor ours = open_.preprocessor.load(one().examples[0]->image),
                 theirs = f_.at("input.pixel_values");
    report_.equal("pixel_values", at::equal(ours, theirs.dim() == 5 ? theirs[0] : theirs));
    for (std::int64_t b = 0; b < 2; ++b) {
      const Tensor mine = open_.preprocessor.load(both().examples[static_cast<std::size_t>(b)]->image);
      Tensor all = f_.at("batch_input.pixel_values")[b];
      if (all.dim() == 4) all = all.narrow(0, 0, mine.size(0));  // the rest is padding
      report_.equal("pixel_values in the batch, row " + std::to_string(b), at::equal(mine.view_as(all), all));
    }
    if (f_.has("input.qformer_input_ids"))
      report_.equal("qformer_input_ids", open_.instruction_ids(one().examples[0]->prompt) ==
                                             ids_of(f_.at("input.qformer_input_ids")));
  }

  void check_forward() {
    const Batch batch = one();
    const Tensor seen = features(batch);
    if (seen.defined()) {
      const bool queries = model_.config().family == Family::instructblip;
      const char* probe = queries ? "probe.vision_last_hidden" : "probe.projector_input";
      report_.close(probe + 6, seen, f_.at(probe), f_.atol);
      if (!model_.reads_shape() || model_.config().family == Family::idefics3) {
        const Tensor projected = f_.at("probe.projected");
        report_.close("projected",
                      model_.visual_tokens(seen, {{{}, batch.examples[0]->prompt}}).view_as(projected),
                      projected, f_.atol);
      }
    }
    report_.close("inputs_embeds", model_.input_embeddings(batch), f_.at("probe.inputs_embeds")[0], f_.atol);
    std::vector<Tensor> states;
    const Tensor logits = model_.all_logits(batch, seen, &states);
    report_.close("decoder_layer_0", states.front(), f_.at("probe.decoder_layer_0")[0], f_.atol);
    report_.close("final_norm", states.back(), f_.at("probe.final_norm")[0], f_.atol);
    report_.close("logits", logits, f_.at("logits")[0], f_.atol);
  }

  /// Whether the reference gives this sample of the batch what it gives it alone. Its Q-Former counts the
  /// positions of a text padded on the left from the padding on; here an answer never depends on its company.
  bool comparable(std::size_t sample) const {
    if (!f_.has("batch_input.qformer_attention_mask")) return true;
    return f_.at("batch_input.qformer_attention_mask")[static_cast<std::int64_t>(sample)]
               .min()
               .item<std::int64_t>() == 1;
  }

  void check_batch() {
    const Batch batch = both();
    const Tensor packed = model_.all_logits(batch, features(batch)), padded = f_.at("batch_logits");
    const std::vector<Ids> answers = greedy(model_, batch), theirs = rows_of("batch_generated_ids");
    report_.equal("generated_ids", greedy(model_, one()) == rows_of("generated_ids"));
    std::int64_t row = 0;
    for (std::size_t b = 0; b < 2; ++b) {
      const auto length = static_cast<std::int64_t>(batch.examples[b]->tokens.size());
      // The reference padded on the left; what it has there means nothing.
      const Tensor mask = f_.at("batch_input.attention_mask")[static_cast<std::int64_t>(b)] == 1;
      const Tensor mine = packed.narrow(0, row, length);
      const bool same = comparable(b);
      const Batch alone{{batch.examples[b]}};
      const std::string name = std::string("sample ") + (b == 0 ? "a" : "b") +
                               (same ? " of the batch" : " of the batch, against itself alone");
      report_.close("logits of " + name, mine,
                    same ? padded[static_cast<std::int64_t>(b)].index({mask})
                         : model_.all_logits(alone, features(alone)),
                    f_.atol);
      report_.equal("generated_ids of " + name, answers[b] == (same ? theirs[b] : greedy(model_, alone)[0]));
      row += length;
    }
  }

  std::vector<Ids> rows_of(const std::string& name) const {
    std::vector<Ids> out;
    const Tensor ids = f_.at(name);
    for (std::int64_t b = 0; b < ids.size(0); ++b) out.push_back(ids_of(ids[b]));
    return out;
  }
  static constexpr std::int64_t kSteps = 12;
  static std::vector<Ids> greedy(Mllm& model, const Batch& batch) {
    Prefill prefill = model.prefill(batch, kSteps);
    return model.decode(prefill, kSteps, nullptr, OnEnd::keep);
  }

  /// Decoding with the cache against whole passes, and a batch of one against a batch of 32.
  void check_cache() {
    const Batch batch = one();
    const Ids cached = greedy(model_, batch)[0];
    auto longer = std::make_shared<Example>(*batch.examples[0]);
    const Tensor seen = features(batch);
    bool same = true;
    for (const std::int64_t id : cached) {
      same = same && model_.all_logits({{longer}}, seen)[-1].argmax().item<std::int64_t>() == id;
      longer->tokens.push_back(id);
      longer->labels.push_back(-100);
    }
    report_.equal("cached decoding and whole passes", same);
    Batch many;
    for (std::size_t i = 0; i < 32; ++i) many.examples.push_back(prompt(i % 2 == 0 ? "a" : "b"));
    const Tensor alone = model_.prefill(batch, 1).first_logits,
                 together = model_.prefill(many, 1).first_logits;
    report_.close("a batch of 32 and a batch of 1", together[30], alone[0], 1e-4);
  }

  void check_saved() {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / ("mcit-parity-" + std::to_string(::getpid()));
    model_.save(folder, at::kFloat);
    const auto again = Mllm::load(folder);
    std::filesystem::remove_all(folder);
    const StateDict a = model_.tensors(), b = again->tensors();
    bool same = a.size() == b.size();
    for (const auto& [name, tensor] : a)
      same = same && b.contains(name) && at::equal(tensor.cpu(), b.at(name));
    report_.equal("a saved folder, read again", same, std::to_string(a.size()) + " tensors equal");
  }

  /// The adapter in float64. @return how far the reference's float32 is from it
  double check_exactly(const PeftFolder& adapter) {
    const OpenModel wide = open_model(f_.checkpoint, f_.device, false, {}, at::kDouble);
    Mllm& model = *wide.model;
    install(model);
    (void)attach(adapter, model.sites("all"), model.tensors(), f_.options().dtype(at::kDouble));
    const Batch batch = one();
    const Tensor seen =
        model.config().sees() ? model.vision_features(pixels(batch.examples[0]->image)) : Tensor();
    const Tensor theirs = f_.at("lora.logits")[0];
    const Tensor exact = model.all_logits(batch, seen).cpu();
    report_.close("LoRA logits in float64", exact, theirs, 10 * f_.atol);
    return (exact - theirs.to(at::kDouble)).abs().max().item<double>();
  }

  void check_adapter() {
    const std::filesystem::path folder = f_.folder / "adapter";
    if (!std::filesystem::exists(folder)) return;
    const PeftFolder adapter = read_peft(folder, model_.config());
    Parameters trained = attach(adapter, model_.sites("all"), model_.tensors(), f_.options());
    {
      const at::NoGradGuard no_grad;
      const Batch batch = one();
      // An adapter makes a few rows of these tiny models amplify rounding. A float64 run says how much the
      // reference's own logits are off.
      const double rounding = check_exactly(adapter);
      report_.close("LoRA logits", model_.all_logits(batch, features(batch)), f_.at("lora.logits")[0],
                    std::max(f_.atol, 8 * rounding));
      if (f_.has("lora.generated_ids"))
        report_.equal("LoRA generated_ids", greedy(model_, batch) == rows_of("lora.generated_ids"));
      const auto merged = Mllm::load(f_.checkpoint, f_.device, f_.dtype, folder);
      install(*merged);
      merged->set_instructions(open_.instruction_ids);
      const Tensor seen =
          model_.config().sees() ? merged->vision_features(pixels(batch.examples[0]->image)) : Tensor();
      const double moved = f_.json.at("lora").value("merged_vs_unmerged", 1e-4);
      report_.close("LoRA logits, folded into the weights", merged->all_logits(batch, seen),
                    f_.at("lora.logits")[0], 2 * moved + std::max(f_.atol, 8 * rounding));
    }
    check_training(f_, report_, std::move(trained), [&] { return loss(model_); });
  }

  const Fixture& f_;
  Report& report_;
  OpenModel open_;
  Mllm& model_;
  Encoder encoder_ = make_encoder(open_, prompt_template());
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr
        << "parity [--double] [--cuda] FIXTURE...  (folders as tests/parity/make_fixtures.py writes them)\n"
           "--double computes in float64: what is left is the reference's own rounding\n"
           "--cuda computes on a GPU, in float32 unless --double is given\n";
    return 2;
  }
  try {
    at::set_num_threads(1);
    at::ScalarType dtype = at::kFloat;
    at::Device device = at::kCPU;
    for (int i = 1; i < argc; ++i) {
      if (std::string_view(argv[i]) == "--double") {
        dtype = at::kDouble;
        continue;
      }
      if (std::string_view(argv[i]) == "--cuda") {
        device = open_device("cuda");
        continue;
      }
      Fixture fixture(std::filesystem::weakly_canonical(argv[i]));
      fixture.dtype = dtype;
      fixture.device = device;
      Report report(fixture.folder.filename().string());
      check_tokenizers(fixture, report);
      const std::string type = model_type(fixture.checkpoint);
      if (type == "clip" || type == "siglip")
        check_towers(fixture, report);
      else
        Generative(fixture, report).check();
    }
  } catch (const Failed&) {
    return 1;
  } catch (const std::exception& e) {
    std::cerr << "error: " << e.what() << "\n";
    return 1;
  }
  return 0;
}
