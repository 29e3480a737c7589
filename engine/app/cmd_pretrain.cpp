#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/json.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/random.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
#include "mini/pretrain.hpp"
#include "model/safetensors.hpp"
#include "train/align.hpp"
#include "train/pretrain.hpp"

namespace mcit {
namespace {

struct Settings {
  MllmConfig llava;
  ClipConfig clip;
  PretrainOptions train;
  mini::MixtureOptions mixture;
  std::string base;  ///< a model whose connector is to be aligned; empty: a model from nothing
  std::string prompt_template = "plain";  ///< of the aligned model, in training and later
  AlignOptions align;
  std::filesystem::path out;
  std::int64_t threads = 1, evaluate = 400;
  at::ScalarType dtype = at::kHalf;
};

/// Shapes and training of a model from nothing.
void read_new_model(const Config& config, Settings& s) {
  const Config vision = config.child("vision");
  VisionConfig& v = s.llava.vision;
  v.image_size = vision.integer("image_size", 64, 8, 1024);
  v.patch_size = vision.integer("patch_size", 8, 1, 1024);
  v.hidden_size = vision.integer("hidden_size", 160, 8);
  v.intermediate_size = vision.integer("intermediate_size", 4 * v.hidden_size, 8);
  v.num_attention_heads = vision.integer("heads", 5, 1);
  v.num_hidden_layers = vision.integer("layers", 5, 2);
  v.hidden_act = "gelu";
  s.llava.vision_feature_layer = -2;  // the tower's last layer belongs to the contrastive stage alone
  const Config decoder = config.child("decoder");
  DecoderConfig& t = s.llava.text;
  t.hidden_size = decoder.integer("hidden_size", 128, 8);
  t.intermediate_size = decoder.integer("intermediate_size", 352, 8);
  t.num_hidden_layers = decoder.integer("layers", 4, 1);
  t.num_attention_heads = t.num_key_value_heads = decoder.integer("heads", 4, 1);
  t.head_dim = t.hidden_size / t.num_attention_heads;
  t.max_position_embeddings = 512;
  t.rms_norm_eps = 1e-5;
  t.tie_word_embeddings = true;
  const Config text = config.child("text_tower");
  TextTowerConfig& x = s.clip.text;
  x.hidden_size = text.integer("hidden_size", 128, 8);
  x.intermediate_size = text.integer("intermediate_size", 4 * x.hidden_size, 8);
  x.num_hidden_layers = text.integer("layers", 3, 1);
  x.num_attention_heads = text.integer("heads", 4, 1);
  x.max_position_embeddings = 64;
  x.hidden_act = "gelu";
  s.clip.projection_dim = text.integer("projection_dim", 128, 8);
  const Config train = config.child("train");
  s.train.steps = train.integer("steps", s.train.steps, 1);
  s.train.batch = train.integer("batch", s.train.batch, 1);
  s.train.warmup = train.integer("warmup", s.train.warmup, 0);
  s.train.muon_lr = train.number("muon_lr", s.train.muon_lr, 0.0);
  s.train.muon_decay = train.number("muon_decay", s.train.muon_decay, 0.0);
  s.train.adam_lr = train.number("adam_lr", s.train.adam_lr, 0.0);
  s.train.clip = train.number("clip", s.train.clip, 0.0);
  s.train.patch_weight = train.number("patch_weight", s.train.patch_weight, 0.0);
  s.train.token_weight = train.number("token_weight", s.train.token_weight, 0.0);
  s.train.clip_steps = train.integer("clip_steps", s.train.clip_steps, 0);
  s.train.clip_batch = train.integer("clip_batch", s.train.clip_batch, 2);
  s.train.clip_lr = train.number("clip_lr", s.train.clip_lr, 0.0);
  s.train.save_every = train.integer("save_every", s.train.save_every, 100);
  s.mixture.grid = static_cast<int>(v.image_size / v.patch_size);
  if (v.image_size != mini::kSide)
    throw ConfigError("vision.image_size",
                      "the mixture's pictures are " + std::to_string(mini::kSide) + " pixels wide");
}

void read_alignment(const Config& config, Settings& s) {
  AlignOptions& a = s.align;
  s.prompt_template = config.choice("prompt_template", s.prompt_template, prompt_templates());
  a.word_steps = config.integer("word_steps", a.word_steps, 0);
  a.word_batch = config.integer("word_batch", a.word_batch, 1);
  a.steps = config.integer("steps", a.steps, 1);
  a.batch = config.integer("batch", a.batch, 1);
  a.warmup = config.integer("warmup", a.warmup, 0);
  a.lr = config.number("lr", a.lr, 0.0);
  a.clip = config.number("clip", a.clip, 0.0);
  a.save_every = config.integer("save_every", a.save_every, 1);
  a.seed = s.train.seed;
}

Settings read_settings(const Config& config) {
  Settings s;
  s.train.seed = static_cast<std::uint64_t>(config.integer("seed", 1, 0));
  s.threads = config.integer("threads", 1, 0, 1024);
  s.evaluate = config.integer("evaluate", s.evaluate, 0);
  s.dtype = config.choice("dtype", "float16", {"float16", "float32"}) == "float16" ? at::kHalf : at::kFloat;
  const Config align = config.child("align");
  s.base = align.name_or_path("model", "");
  if (s.base.empty())
    read_new_model(config, s);
  else
    read_alignment(align, s);
  const Config mix = config.child("mixture");
  mini::MixtureWeights& w = s.mixture.weights;
  for (auto [name, weight] : {std::pair{"name", &w.name},
                              {"scene", &w.scene},
                              {"point", &w.point},
                              {"read", &w.read},
                              {"shape", &w.shape},
                              {"corner", &w.corner},
                              {"yes_no", &w.yes_no},
                              {"choose", &w.choose},
                              {"flag", &w.flag},
                              {"relation", &w.relation},
                              {"copy", &w.copy},
                              {"handwritten", &w.handwritten}})
    *weight = mix.number(name, *weight, 0.0);
  s.mixture.jitter = mix.number("jitter", s.mixture.jitter, 0.0, 1.0);
  s.mixture.max_letters = static_cast<int>(mix.integer("max_letters", s.mixture.max_letters, 1, 6));
  s.mixture.turns = static_cast<int>(mix.integer("turns", s.mixture.turns, 1, 6));
  config.finish();
  return s;
}

/// Draws mixture samples in the form the trainer reads.
class Source {
 public:
  Source(const mini::Mixture& mixture, const Encoder& encoder, const Preprocessor& preprocessor,
         const Settings& settings)
      : mixture_(mixture), encoder_(encoder), preprocessor_(preprocessor), settings_(settings) {}

  PretrainSample operator()(std::uint64_t index) const {
    Rng rng(derive(settings_.train.seed, {"sample", index}));
    return convert(mixture_.draw(rng));
  }

  PretrainSample convert(const mini::Sample& sample) const {
    PretrainSample out;
    const bool pictured = sample.kind != "copy";
    Record record{.id = sample.kind,
                  .image = pictured ? "drawn" : "",
                  .turns = {{sample.question, sample.answer}},
                  .golds = {sample.answer}};
    for (const mini::Question& question : sample.more)
      record.turns.emplace_back(question.text, question.answer);
    out.example = encoder_.train(record, 0, 0);
    if (pictured) {
      out.pixels =
          preprocessor_.pixels({mini::kSide, mini::kSide, {sample.pixels.begin(), sample.pixels.end()}})[0];
      out.patches.assign(sample.patches.begin(), sample.patches.end());
    }
    out.caption = encoder_.tokenizer().encode(" " + sample.caption, true);
    out.caption.push_back(encoder_.end_token());
    return out;
  }

 private:
  const mini::Mixture& mixture_;
  const Encoder& encoder_;
  const Preprocessor& preprocessor_;
  const Settings& settings_;
};

/// Percent of exact answers on fresh draws of each kind, which training never saw.
std::map<std::string, double> evaluate_kinds(Mllm& model, const mini::Mixture& mixture, const Source& source,
                                             const Encoder& encoder, const Settings& s) {
  const at::NoGradGuard no_grad;
  std::map<std::string, double> out;
  Progress progress("evaluating", static_cast<std::int64_t>(mini::Mixture::kinds().size()) * s.evaluate,
                    "pictures");
  for (const std::string& kind : mini::Mixture::kinds()) {
    Rng rng(derive(s.train.seed, {"evaluate", std::string_view(kind)}));
    std::int64_t right = 0;
    for (std::int64_t begin = 0; begin < s.evaluate; begin += 50) {
      const std::int64_t count = std::min<std::int64_t>(50, s.evaluate - begin);
      Batch batch;
      std::vector<Tensor> pixels;
      for (std::int64_t i = 0; i < count; ++i) {
        PretrainSample sample = source.convert(mixture.draw(rng, kind));
        if (sample.pixels.defined()) pixels.push_back(sample.pixels);
        batch.examples.push_back(std::make_shared<const Example>(std::move(sample.example)));
      }
      // The model asks for features while the tower is as it was loaded, for pixels once it was trained.
      const Tensor features =
          pixels.empty() || model.tower_changed() ? Tensor() : model.vision_features(at::stack(pixels));
      std::int64_t next = 0;
      model.set_images(
          {[&](const std::string&) { return features.narrow(0, next++, 1); },
           [&](const std::string&) { return pixels[static_cast<std::size_t>(next++)].unsqueeze(0); }});
      Prefill prefill = model.prefill(batch, 12);
      const auto answers = model.decode(prefill, 12);
      for (std::size_t i = 0; i < answers.size(); ++i)
        right += encoder.decode(answers[i]) == batch.examples[i]->answer ? 1 : 0;
      progress.advance(count);
      if (interrupted()) throw Interrupted();
    }
    out[kind] = std::round(1000.0 * static_cast<double>(right) / static_cast<double>(s.evaluate)) / 10.0;
  }
  return out;
}

void copy_text(const std::filesystem::path& from, const std::filesystem::path& to) {
  write_atomic(to, read_file(from));
}

std::string preprocessor_json(std::int64_t side) {
  return Json({{"image_processor_type", "CLIPImageProcessor"},
               {"do_convert_rgb", true},
               {"do_resize", true},
               {"size", {{"shortest_edge", side}}},
               {"resample", 3},
               {"do_center_crop", true},
               {"crop_size", {{"height", side}, {"width", side}}},
               {"do_rescale", true},
               {"rescale_factor", 1.0 / 255.0},
               {"do_normalize", true},
               {"image_mean", {0.5, 0.5, 0.5}},
               {"image_std", {0.25, 0.25, 0.25}}})
             .dump(2) +
         "\n";
}

struct Flags {
  std::string config, out, measure, device = "cpu";
  std::vector<std::string> sets;
  bool json = false;
};

void print_scores(const std::map<std::string, double>& scores, bool json) {
  if (json) {
    std::cout << dump_json(Json(scores), 2) << "\n";
    return;
  }
  std::cout << "exact answers on fresh pictures of the training style, percent:\n";
  for (const auto& [kind, percent] : scores) std::cout << "  " << kind << " " << percent << "\n";
}

/// The table that pretrain() ends with, of a model folder as it is.
void measure(const Flags& flags, Settings s) {
  s.evaluate = std::max<std::int64_t>(s.evaluate, 1);
  const mini::Pack pack(share_dir() / "mini" / "pack");
  const mini::Mixture mixture(pack, s.mixture);
  OpenModel open = open_model(find_model(flags.measure), open_device(flags.device), false);
  const Encoder encoder = make_encoder(open, "");
  print_scores(
      evaluate_kinds(*open.model, mixture, Source(mixture, encoder, open.preprocessor, s), encoder, s),
      flags.json);
}

/// A model whose tower and decoder were pre-trained apart: its connector learns on the mixture.
void align(const Flags& flags, const Settings& s) {
  const std::filesystem::path base = find_model(s.base), parts = s.out / "align.safetensors";
  MllmConfig config = read_mllm_config(base);
  if (config.family != Family::llava)
    throw ConfigError("align.model", "'" + base.string() + "' is no LLaVA-shaped model");
  mini::MixtureOptions options = s.mixture;
  options.grid = static_cast<int>(config.vision.image_size / config.vision.patch_size);
  if (mini::kSide % options.grid != 0) {
    if (s.align.word_steps > 0)
      throw ConfigError("align.word_steps",
                        "the pictures' " + std::to_string(mini::kSide) + " pixels cannot be cut into " +
                            std::to_string(options.grid) + " patches a side",
                        "0 leaves the stage out");
    options.grid = s.mixture.grid;
  }
  const mini::Pack pack(share_dir() / "mini" / "pack");
  const mini::Mixture mixture(pack, options);
  config.prompt_template = s.prompt_template;
  StateDict tensors = read_mllm_tensors(base, config);
  add_initial_connector(tensors, config, s.align.seed);
  Weights weights(std::move(tensors), open_device(flags.device), at::kFloat);
  OpenModel open{base,
                 std::make_unique<Mllm>(config, weights),
                 Tokenizer::from_file(base / "tokenizer.json"),
                 Preprocessor::from_folder(base),
                 std::nullopt,
                 {}};
  const Encoder encoder = make_encoder(open, "");
  const Source source(mixture, encoder, open.preprocessor, s);
  std::filesystem::create_directories(s.out);
  AlignOptions stages = s.align;
  for (const std::string& label : mixture.labels()) {
    const std::string word = mini::label_words(label).first;
    // The background is a full stop: a word that ends something and names nothing.
    stages.patch_words.push_back(open.tokenizer.encode(word.empty() ? "." : " " + word, false).front());
  }
  PretrainReport report;
  if (!align_connector(*open.model, source, stages, parts, report)) throw Interrupted();
  const std::map<std::string, double> scores = evaluate_kinds(*open.model, mixture, source, encoder, s);
  open.model->save(
      s.out, s.dtype,
      {{"mcit_seed", std::to_string(s.align.seed)},
       {"mcit_steps", std::to_string(s.align.word_steps) + " + " + std::to_string(s.align.steps)},
       {"mcit_data", "pack " + pack.digest()},
       {"mcit_build", build_info()},
       {"mcit_loss_curve", Json(report.loss_curve).dump()},
       {"mcit_cpu_seconds", std::to_string(std::llround(report.cpu_seconds))},
       {"mcit_exact_percent", Json(scores).dump()}});
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "preprocessor_config.json",
                           "processor_config.json", "generation_config.json", "ORIGIN.txt"})
    if (std::filesystem::exists(base / name)) copy_text(base / name, s.out / name);
  std::filesystem::remove(parts);
  print_scores(scores, flags.json);
}

void pretrain(const Flags& flags) {
  Config config = Config::read(flags.config);
  for (const std::string& assignment : flags.sets) config.set(assignment);
  Settings s = read_settings(config);
  if (!flags.measure.empty()) {
    set_threads(s.threads);
    return measure(flags, s);
  }
  if (flags.out.empty()) throw ConfigError("--out", "is not given", "--out DIR says where the model goes");
  s.out = flags.out;
  set_threads(s.threads);
  if (!s.base.empty()) return align(flags, s);
  if (flags.device != "cpu")
    throw ConfigError("--device", "'" + flags.device + "' is for a connector alone",
                      "a model from nothing learns on the CPU");
  const std::filesystem::path assets = share_dir() / "mini";
  const mini::Pack pack(assets / "pack");
  const mini::Mixture mixture(pack, s.mixture);
  s.train.patch_labels = static_cast<std::int64_t>(mixture.labels().size());
  const Tokenizer tokenizer = Tokenizer::from_file(assets / "base" / "tokenizer.json");
  const auto id = [&](const char* token) {
    const auto found = tokenizer.token_to_id(token);
    if (!found) throw CheckpointError("tokenizer.json", std::string("has no token ") + token);
    return *found;
  };
  DecoderConfig& t = s.llava.text;
  t.vocab_size = s.clip.text.vocab_size = tokenizer.size();
  for (const std::string& label : mixture.labels()) {
    const auto words = mini::label_words(label);
    const auto word = [&](const std::string& text) {
      return text.empty() ? id("<pad>") : tokenizer.encode(" " + text, false).front();
    };
    s.train.patch_words.push_back({word(words.first), word(words.second)});
  }
  t.bos_token_id = s.clip.text.bos_token_id = id("<s>");
  t.eos_token_ids = {id("</s>")};
  t.pad_token_id = id("<pad>");
  s.clip.text.eos_token_id = id("</s>");
  s.llava.image_token_id = id("<image>");
  s.llava.prompt_template = "plain";
  s.clip.vision = s.llava.vision;

  std::filesystem::create_directories(s.out);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    if (std::filesystem::equivalent(assets / "base", s.out)) break;
    copy_text(assets / "base" / name, s.out / name);
  }
  write_atomic(s.out / "preprocessor_config.json", preprocessor_json(s.llava.vision.image_size));
  const Preprocessor preprocessor = Preprocessor::from_folder(s.out);
  const Encoder encoder(tokenizer, {.prompt_template = "plain",
                                    .picture = fixed_picture(s.llava.image_tokens()),
                                    .image_token_id = s.llava.image_token_id,
                                    .eos_token_id = t.eos_token_ids.front(),
                                    .max_length = t.max_position_embeddings,
                                    .model = {}});
  const Source source(mixture, encoder, preprocessor, s);

  Mllm model(s.llava, initial_llava(s.llava, s.train.seed));
  PretrainReport report;
  const auto snapshot = s.out / "pretrain.safetensors";
  if (!pretrain_language(model, source, s.train, snapshot, report)) throw Interrupted();
  const std::map<std::string, double> scores = evaluate_kinds(model, mixture, source, encoder, s);

  // The CLIP folder shares the tower; its own parts are the last vision layer, the projections and the text
  // tower.
  StateDict clip_tensors = initial_clip(s.clip, s.train.seed);
  const std::string tower = "vision_tower.";
  for (const auto& [name, tensor] : model.tensors())
    if (name.starts_with(tower)) clip_tensors[name.substr(tower.size())] = tensor.detach().clone();
  Weights weights(std::move(clip_tensors));
  Clip clip(s.clip, weights);
  pretrain_clip(clip, source, s.train, report);

  const std::map<std::string, std::string> note = {
      {"mcit_config", config.resolved()},
      {"mcit_seed", std::to_string(s.train.seed)},
      {"mcit_steps", std::to_string(s.train.steps)},
      {"mcit_data", "pack " + pack.digest()},
      {"mcit_build", build_info()},
      {"mcit_loss_curve", Json(report.loss_curve).dump()},
      {"mcit_patch_curve", Json(report.patch_curve).dump()},
      {"mcit_clip_curve", Json(report.clip_curve).dump()},
      {"mcit_cpu_seconds", std::to_string(std::llround(report.cpu_seconds))},
      {"mcit_exact_percent", Json(scores).dump()}};
  // What LLaVA never reads of the tower is stored once, with the trained last layer of the CLIP folder.
  const StateDict clip_now = clip.tensors();
  const at::NoGradGuard no_grad;
  for (auto& [name, tensor] : model.tensors())
    if (name.starts_with(tower)) tensor.copy_(clip_now.at(name.substr(tower.size())));
  model.save(s.out, s.dtype, note);
  clip.save(s.out / "clip", s.dtype, note);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"})
    copy_text(s.out / name, s.out / "clip" / name);
  std::filesystem::remove(snapshot);
  print_scores(scores, flags.json);
}

}  // namespace

void add_pretrain(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "pretrain", "Train the built-in base from nothing on the data pack, or a connector alone");
  command->add_option("CONFIG", flags->config, "Settings, e.g. configs/pretrain/mini.toml")
      ->required()
      ->check(CLI::ExistingFile)
      ->type_name("");
  command->add_option("--out", flags->out, "Folder of the model; an interrupted training there goes on")
      ->type_name("DIR");
  command->add_option("--set", flags->sets, "One setting, e.g. train.steps=2000 (repeatable)")
      ->take_all()
      ->type_name("KEY=VALUE");
  command
      ->add_option("--measure", flags->measure,
                   "Train nothing: only measure this model on the mixture's kinds")
      ->type_name("DIR|NAME");
  command
      ->add_option("--device", flags->device,
                   "cpu, cuda or cuda:N: where a connector learns, or --measure runs")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "The table of scores as JSON");
  command->footer(
      "Examples:\n  mcit pretrain configs/pretrain/mini.toml --out base\n"
      "  mcit pretrain configs/pretrain/mini.toml --measure mini");
  command->callback([flags] {
    try {
      pretrain(*flags);
    } catch (const Interrupted&) {
      log::warn("interrupted; what was trained is kept, the same command goes on");
      throw;
    }
  });
}

}  // namespace mcit
