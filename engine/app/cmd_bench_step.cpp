// mcit bench-step: the engine's side of benchmarks/speed, with the flags and the report of its peer. What is
// timed is the engine's own step, loader and evaluation; what only a comparison needs is here.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "app/commands.hpp"
#include "app/experiment.hpp"
#include "core/config.hpp"
#include "core/files.hpp"
#include "core/json.hpp"
#include "core/system.hpp"
#include "data/records.hpp"
#include "mcit/errors.hpp"
#include "mcit/parts/examples.hpp"
#include "model/safetensors.hpp"
#include "plugin/catalogue.hpp"
#include "train/hooks.hpp"
#include "train/pretrain.hpp"
#include "train/step.hpp"

namespace mcit {
namespace {

struct Flags {
  std::string model, data, strategy = "lora", adapter_in, vision_cache = "warm", report, device = "cpu",
                           dtype = "auto";
  std::vector<std::string> sets;
  std::int64_t steps = 6, warmup = 2, batch = 4, rank = 16, experts = 8, eval_samples = 16, eval_batch = 8,
               max_new = 16, threads = 1, tasks = 1;
  double alpha = 32.0, lr = 2e-4, projector_lr = 2e-5;
  bool fixed_len = false;
};

/// What a step costs: processor time where the processor computes, else time on the wall with the GPU's queue
/// empty, so that neighbours on shared cores are not measured and a GPU's work is.
double seconds_spent(const Mllm& model) {
  if (model.device().is_cpu()) return cpu_seconds();
  finish_work(model.device());
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Idle final : public Strategy {
 public:
  Parameters parameters() const override { return {}; }
  StateDict state() const override { return {}; }
  void load_state(const StateDict&) override {}
};

/// Probes with the training records.
class BenchHost final : public QuietHost {
 public:
  explicit BenchHost(const std::vector<ExamplePtr>& records) : records_(records) {}
  std::unique_ptr<Batches> probe() override { return std::make_unique<parts::ExampleBatches>(records_); }

 private:
  const std::vector<ExamplePtr>& records_;
};

/// Features by picture: made when they are asked for and then kept (warm), or made anew for every batch
/// (cold).
class Pictures {
 public:
  Pictures(OpenModel& open, bool keep) : open_(open), keep_(keep) {
    open.model->set_images({[this](const std::string& path) { return known_.at(path); },
                            [this](const std::string& path) { return open_.preprocessor.load(path); }});
  }
  void prepare(const std::vector<ExamplePtr>& examples) {
    const at::NoGradGuard no_grad;
    if (!keep_) known_.clear();
    std::vector<std::string> fresh;
    std::vector<Tensor> pixels;
    for (const ExamplePtr& example : examples) {
      if (known_.contains(example->image) ||
          std::find(fresh.begin(), fresh.end(), example->image) != fresh.end())
        continue;
      fresh.push_back(example->image);
      pixels.push_back(open_.preprocessor.load(example->image));
      if (pixels.size() == 16 || example == examples.back()) flush(fresh, pixels);
    }
    flush(fresh, pixels);
  }

 private:
  void flush(std::vector<std::string>& paths, std::vector<Tensor>& pixels) {
    if (paths.empty()) return;
    const Tensor features = open_.model->vision_features(at::cat(pixels));
    for (std::size_t i = 0; i < paths.size(); ++i)
      known_[paths[i]] = features.narrow(0, static_cast<std::int64_t>(i), 1).clone();
    paths.clear();
    pixels.clear();
  }

  OpenModel& open_;
  bool keep_;
  std::map<std::string, Tensor> known_;
};

std::vector<ExamplePtr> encode(const Encoder& encoder, const Flags& flags, RecordKind kind) {
  const std::filesystem::path folder = flags.data;
  std::vector<ExamplePtr> out;
  for (const Record& record :
       read_records(folder / (kind == RecordKind::train ? "train.json" : "test.json"), kind)) {
    const auto index = static_cast<std::int64_t>(out.size());
    const std::int64_t task = index % flags.tasks;  // records are dealt to the tasks
    Example example = kind == RecordKind::train ? encoder.train(record, task, index)
                                                : encoder.test(record, task, index, flags.max_new);
    example.image = (folder / "images" / record.image).string();
    out.push_back(std::make_shared<const Example>(std::move(example)));
  }
  return out;
}

/// The peer's initial adapter under the names of our state.
void load_adapter(Strategy& strategy, const MllmConfig& config, const std::string& file) {
  StateDict given, state = strategy.state();
  for (const auto& [name, tensor] : read_safetensors(file).tensors)
    given[canonical_name(config, name)] = tensor;
  for (auto& [name, tensor] : state) {
    std::string key = name;
    if (const auto at = key.find(".lora_router."); at != std::string::npos) key.replace(at, 13, ".router.");
    const auto found = given.find(key);
    if (found == given.end()) throw CheckpointError(file, "has no tensor '" + key + "'");
    tensor = found->second;
  }
  strategy.load_state(state);
}

std::vector<ExamplePtr> of_task(const std::vector<ExamplePtr>& records, std::int64_t task) {
  std::vector<ExamplePtr> out;
  std::copy_if(records.begin(), records.end(), std::back_inserter(out),
               [&](const ExamplePtr& example) { return example->task == task; });
  return out;
}

/// Stages before the one that is timed: what a strategy makes of them is there, without their training.
void enter_last_task(const Flags& flags, OpenModel& open, HookRunner& hooks, Pictures& pictures,
                     const std::vector<ExamplePtr>& records) {
  if (flags.tasks > 1) {
    // Features of pictures and questions are computed once in a run's life.
    pictures.prepare(records);
    (void)open.model->image_features(Batch{records});
    (void)open.model->text_features(Batch{records});
  }
  for (std::int64_t t = 0; t < flags.tasks; ++t) {
    const Task task{.index = t, .name = "bench", .tasks = {t}, .steps = flags.warmup + flags.steps};
    const std::vector<ExamplePtr> own = of_task(records, t);
    parts::ExampleBatches batches(own);
    hooks.before_task(task, batches, *open.model);
    batches.rewind(flags.batch);
    if (t + 1 < flags.tasks) hooks.after_task(task, batches, *open.model);
  }
}

Json train(const Flags& flags, OpenModel& open, HookRunner& hooks, Pictures& pictures,
           const std::vector<ExamplePtr>& records) {
  AdamW optimizer(hooks.parameters(), {});
  const std::int64_t last = flags.tasks - 1;
  const Task task{.index = last, .name = "bench", .tasks = {last}, .steps = flags.warmup + flags.steps};
  TrainOptions options;
  options.batch = flags.batch;
  options.learning_rate = {{"adapter", flags.lr}, {"connector", flags.projector_lr}, {"prompt", flags.lr}};
  const auto batch_of = [&](std::int64_t index) {
    Batch batch;
    for (std::int64_t i = 0; i < flags.batch; ++i)
      batch.examples.push_back(records[static_cast<std::size_t>(index * flags.batch + i) % records.size()]);
    open.model->route().task.assign(batch.size(), last);
    pictures.prepare(batch.examples);
    return batch;
  };
  std::vector<double> losses, seconds;
  std::int64_t tokens = 0;
  const auto before = hooks.costs();
  open.model->set_training(true);
  for (std::int64_t step = 0; step < task.steps; ++step) {
    const double begin = seconds_spent(*open.model);
    const StepResult result =
        train_step(task, step, *open.model, hooks, optimizer, batch_of, options, [](const Batch&, double) {});
    losses.push_back(result.loss);
    if (step < flags.warmup) continue;
    seconds.push_back(seconds_spent(*open.model) - begin);
    tokens += result.tokens;
  }
  open.model->set_training(false);
  optimizer.zero_grad();
  double sum = 0.0;
  for (const double s : seconds) sum += s;
  Json hooked =
      Json::object();  // what the strategy's own code takes of a step, outside of forward and backward
  for (const auto& [hook, cost] : hooks.costs()) {
    const auto known = before.find(hook);
    const double spent = cost.seconds - (known == before.end() ? 0.0 : known->second.seconds);
    if (spent > 0.0) hooked[hook] = spent / static_cast<double>(task.steps);
  }
  const auto samples = static_cast<double>(flags.batch);
  return {{"samples", flags.steps * flags.batch},
          {"samples_per_s_cpu", samples * static_cast<double>(flags.steps) / sum},
          {"samples_per_s_best", samples / *std::min_element(seconds.begin(), seconds.end())},
          {"tokens_per_s_cpu", static_cast<double>(tokens) / sum},
          {"step_s", seconds},
          {"losses", losses},
          {"hooks_s", hooked},
          {"peak_rss_mb", peak_rss_mb()}};
}

/// @param hooks routes each batch where given: every row to its own task
Json evaluate(const Flags& flags, const OpenModel& open, const Encoder& encoder, Pictures& pictures,
              const std::vector<ExamplePtr>& records, HookRunner* hooks = nullptr) {
  const at::NoGradGuard no_grad;
  Json outputs = Json::object();
  std::int64_t made = 0;
  const double begin = seconds_spent(*open.model);
  for (std::size_t at = 0; at < records.size(); at += static_cast<std::size_t>(flags.eval_batch)) {
    Batch batch;
    RouteContext& route = open.model->route();
    route.clear();
    route.task.clear();
    for (std::size_t i = at; i < std::min(records.size(), at + static_cast<std::size_t>(flags.eval_batch));
         ++i) {
      batch.examples.push_back(records[i]);
      route.task.push_back(hooks == nullptr ? -1 : records[i]->task);
    }
    pictures.prepare(batch.examples);
    if (hooks != nullptr) hooks->select(batch, *open.model);
    Prefill prefill = open.model->prefill(batch, flags.max_new);
    std::vector<std::vector<std::int64_t>> answers =
        open.model->decode(prefill, flags.max_new, nullptr, flags.fixed_len ? OnEnd::avoid : OnEnd::stop);
    for (std::size_t i = 0; i < answers.size(); ++i) {
      (void)encoder.decode(answers[i]);
      if (static_cast<std::int64_t>(answers[i].size()) < flags.max_new)
        answers[i].push_back(encoder.end_token());
      made += static_cast<std::int64_t>(answers[i].size());
      outputs[batch.examples[i]->id] = answers[i];
    }
  }
  const double seconds = seconds_spent(*open.model) - begin;
  return {{"samples", records.size()},
          {"seconds", seconds},
          {"samples_per_s_cpu", static_cast<double>(records.size()) / seconds},
          {"new_tokens", made},
          {"outputs", outputs}};
}

/// The same rows in batches of one task each and in batches that mix all tasks, in turn; the faster of each.
Json evaluate_mixed(const Flags& flags, const OpenModel& open, const Encoder& encoder, Pictures& pictures,
                    const std::vector<ExamplePtr>& records, HookRunner& hooks) {
  const auto tasks = static_cast<std::size_t>(flags.tasks),
             batch = static_cast<std::size_t>(flags.eval_batch);
  std::vector<ExamplePtr> single(tasks * batch), mixed(tasks * batch);
  for (std::size_t t = 0; t < tasks; ++t) {
    const std::vector<ExamplePtr> own = of_task(records, static_cast<std::int64_t>(t));
    for (std::size_t i = 0; i < batch; ++i)
      single[t * batch + i] = mixed[i * tasks + t] = own.at(i % std::max<std::size_t>(1, own.size()));
  }
  constexpr int kRounds = 3;
  double apart = 1e300, together = 1e300;
  for (int round = 0; round < kRounds; ++round) {
    apart =
        std::min(apart, evaluate(flags, open, encoder, pictures, single, &hooks)["seconds"].get<double>());
    together =
        std::min(together, evaluate(flags, open, encoder, pictures, mixed, &hooks)["seconds"].get<double>());
  }
  return {{"single_task_s", apart}, {"mixed_s", together}};
}

/// CLIP towers of no meaning, for strategies that ask for features of pictures and questions.
void install_random_clip(OpenModel& open, const Encoder& encoder) {
  ClipConfig config;
  config.vision = open.model->config().vision;
  config.text.vocab_size = encoder.tokenizer().size();
  config.text.num_hidden_layers = 2;
  config.text.hidden_size = config.text.intermediate_size = config.projection_dim = 64;
  config.text.num_attention_heads = 2;
  config.text.eos_token_id = encoder.end_token();
  Weights weights(initial_clip(config, 1));
  open.clip = OpenClip{std::make_shared<Clip>(config, weights), open.preprocessor,
                       clip_text_encoder(encoder.tokenizer(), config.text)};
  open.model->set_clip(
      open.clip->clip,
      [clip = *open.clip,
       known = std::map<std::string, Tensor>()](const std::vector<std::string>& paths) mutable {
        std::vector<Tensor> rows;
        for (const std::string& path : paths) {
          auto found = known.find(path);
          if (found == known.end())
            found = known.emplace(path, clip.embed(clip.preprocessor.load(path))).first;
          rows.push_back(found->second);
        }
        return at::cat(rows);
      },
      open.clip->encode);
}

/// The best of forty float32 products of a LLaMA layer's shape: how busy the machine is.
double gemm_gflops() {
  constexpr std::int64_t kRows = 832, kIn = 512, kOut = 1376;
  const Tensor a = at::rand({kRows, kIn}), b = at::rand({kOut, kIn});
  double best = 1e9;
  for (int i = 0; i < 40; ++i) {
    const double begin = cpu_seconds();
    const Tensor c = at::linear(a, b);
    best = std::min(best, cpu_seconds() - begin);
  }
  return 2.0 * static_cast<double>(kRows * kIn * kOut) / best / 1e9;
}

/// What the four hooks of a step cost when the strategy does nothing in them.
double hooks_ms(OpenModel& open) {
  constexpr int kSteps = 2000;
  Idle idle;
  HookRunner hooks(idle, "idle");
  const Task task{.index = 0, .name = "bench", .tasks = {0}, .steps = kSteps};
  Step step{.task = task, .number = 0, .backbone = *open.model, .batch = {}, .out = {}, .trainable = {}};
  const Tensor base = at::zeros({});
  const Stopwatch watch;
  for (int i = 0; i < kSteps; ++i) {
    hooks.at(task, i);
    hooks.before_forward(step);
    (void)hooks.loss(step, base);
    hooks.on_gradients(step);
    hooks.after_step(step);
  }
  return 1e3 * watch.seconds() / kSteps;
}

void bench_step(const Flags& flags) {
  set_threads(flags.threads);
  const Stopwatch loading;
  OpenModel open = open_model(flags.model, open_device(flags.device), true, {},
                              flags.dtype == "auto" ? std::nullopt : std::optional(dtype_named(flags.dtype)));
  const double load_s = loading.seconds(), loaded_mb = peak_rss_mb();
  const Encoder encoder = make_encoder(open, "vicuna_v1");
  const std::vector<ExamplePtr> training = encode(encoder, flags, RecordKind::train);
  std::vector<ExamplePtr> test = encode(encoder, flags, RecordKind::test);
  test.resize(std::min(test.size(), static_cast<std::size_t>(flags.eval_samples)));

  // Beside its peer, which has no such towers, their memory would be counted as the engine's.
  if (flags.tasks > 1 && !open.model->clip()) install_random_clip(open, encoder);

  const Catalogue catalogue(plugin_folders({}));
  Config given = Config::parse("", "command line");
  for (const std::string& assignment : flags.sets) given.set(assignment);
  std::map<std::string, Params::Value> settings = given.params();
  const bool lora = flags.strategy == "lora",
             mixture = flags.strategy == "moe_lora" || flags.strategy == "branch_lora";
  if (lora || mixture) settings.insert({{"rank", flags.rank}, {"alpha", flags.alpha}});
  if (mixture) settings.emplace("experts", flags.experts);
  BenchHost host(training);
  const StrategyPtr strategy = catalogue.create(lora ? "sequential" : flags.strategy, Params(settings), host);
  HookRunner hooks(*strategy, flags.strategy);
  StreamInfo stream{.tasks = {}, .seed = 1, .backbone = open.model->info()};
  for (std::int64_t t = 0; t < flags.tasks; ++t) stream.tasks.push_back({"bench", 0, 0, {}});
  hooks.on_stream_begin(stream);
  hooks.attach(*open.model);
  if (!flags.adapter_in.empty()) load_adapter(*strategy, open.model->config(), flags.adapter_in);
  Pictures pictures(open, flags.vision_cache == "warm");
  if (flags.vision_cache == "warm") {
    const auto used =
        std::min(training.size(), static_cast<std::size_t>((flags.warmup + flags.steps) * flags.batch));
    pictures.prepare({training.begin(), training.begin() + static_cast<std::ptrdiff_t>(used)});
    pictures.prepare(test);
  }
  enter_last_task(flags, open, hooks, pictures, training);
  Json report = {{"engine", build_info()},
                 {"device", open.model->device().str()},
                 {"dtype", at::toString(open.model->dtype())},
                 {"load_s", load_s},
                 {"load_peak_rss_mb", loaded_mb}};
  report["train"] = train(flags, open, hooks, pictures, training);
  if (flags.tasks > 1 && !test.empty())
    report["tasks"] = evaluate_mixed(flags, open, encoder, pictures, test, hooks);
  std::stable_sort(test.begin(), test.end(), [](const ExamplePtr& a, const ExamplePtr& b) {
    return a->prompt_length < b->prompt_length;
  });
  if (!test.empty()) report["eval"] = evaluate(flags, open, encoder, pictures, test);
  report["peak_rss_mb"] = peak_rss_mb();
  if (!open.model->device().is_cpu()) report["gpu_peak_mb"] = peak_device_mb(open.model->device());
  report["gemm_gflops"] = gemm_gflops();
  report["hooks_ms"] = hooks_ms(open);
  const std::string text = dump_json(report, 1) + "\n";
  if (flags.report.empty())
    std::cout << text;
  else
    write_atomic(flags.report, text);
}

}  // namespace

void add_bench_step(CLI::App& app) {
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand(
      "bench-step", "Time the training step and the evaluation; benchmarks/speed runs it beside its peer");
  const auto count = [&](const char* name, std::int64_t& value, const char* what) {
    command->add_option(name, value, what)
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber)
        ->type_name("N");
  };
  command->add_option("--model", flags->model, "LLaVA folder")
      ->required()
      ->check(CLI::ExistingDirectory)
      ->type_name("DIR");
  command->add_option("--data", flags->data, "Folder with train.json, test.json and images/")
      ->required()
      ->check(CLI::ExistingDirectory)
      ->type_name("DIR");
  command->add_option("--strategy", flags->strategy, "What is trained: lora, or a strategy")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--set", flags->sets, "One of the strategy's settings, e.g. top_k=2 (repeatable)")
      ->take_all()
      ->type_name("KEY=VALUE");
  count("--steps", flags->steps, "Timed steps");
  count("--warmup", flags->warmup, "Steps before them");
  count("--batch", flags->batch, "Records a step");
  count("--rank", flags->rank, "Rank, of all experts together");
  count("--experts", flags->experts, "Experts of moe_lora and branch_lora");
  count("--tasks", flags->tasks, "Tasks that the records are dealt to; the last one's steps are timed");
  command->add_option("--alpha", flags->alpha, "Adapters are scaled by alpha / rank")
      ->capture_default_str()
      ->type_name("X");
  command->add_option("--lr", flags->lr, "Learning rate of the adapter")
      ->capture_default_str()
      ->type_name("X");
  command->add_option("--projector-lr", flags->projector_lr, "Learning rate of the connector")
      ->capture_default_str()
      ->type_name("X");
  command->add_option("--adapter-in", flags->adapter_in, "Initial adapter and connector")
      ->check(CLI::ExistingFile)
      ->type_name("FILE");
  command
      ->add_option("--vision-cache", flags->vision_cache,
                   "warm: features are made before the clock starts; cold: in every step")
      ->check(CLI::IsMember({"warm", "cold"}))
      ->capture_default_str();
  count("--eval-samples", flags->eval_samples, "Test records to answer");
  count("--eval-batch", flags->eval_batch, "Records answered together");
  count("--max-new", flags->max_new, "Longest answer");
  command->add_flag("--fixed-len", flags->fixed_len, "Never end an answer early");
  command->add_option("--device", flags->device, "cpu, cuda or cuda:N")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--dtype", flags->dtype, "Of the weights; auto: float32 on the CPU, as stored on CUDA")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float16"}));
  count("--threads", flags->threads, "Threads, 0 for all cores");
  command->add_option("--report", flags->report, "JSON file [standard output]")->type_name("FILE");
  command->footer("benchmarks/speed/README.md describes the report and what makes a comparison fair.");
  command->callback([flags] { bench_step(*flags); });
}

}  // namespace mcit
