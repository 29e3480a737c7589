#include "app/experiment.hpp"

#include <ATen/Parallel.h>

#include <cstdlib>
#include <set>

#include "core/files.hpp"
#include "core/hash.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/system.hpp"
#include "mcit/errors.hpp"
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

OpenModel open_model(const std::filesystem::path& folder, at::Device device, bool pad_square) {
  Hasher hasher;
  for (const char* file : {"config.json", "model.safetensors", "model.safetensors.index.json",
                           "tokenizer.json", "preprocessor_config.json"})
    if (std::filesystem::exists(folder / file)) hasher.field(file).field(hash_file(folder / file));
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().starts_with("model-") && entry.path().extension() == ".safetensors")
      hasher.field(hash_file(entry.path()));
  hasher.update(std::int64_t{pad_square});
  OpenModel out{folder, Mllm::load(folder, device), Tokenizer::from_file(folder / "tokenizer.json"),
                Preprocessor::from_folder(folder, pad_square), hasher.hex()};
  const std::int64_t image = out.model->config().image_token_id;
  if (out.tokenizer.token_to_id("<image>") != image)
    throw CheckpointError((folder / "tokenizer.json").string(),
                          "its <image> token is not the model's image token " + std::to_string(image),
                          "tokenizer and config.json belong to different models");
  if (std::filesystem::exists(folder / "clip" / "config.json"))
    out.model->set_clip(
        load_clip(folder / "clip", device),
        [tokenizer = out.tokenizer, ends = out.model->config().text.eos_token_ids](const std::string& text) {
          std::vector<std::int64_t> ids = tokenizer.encode(text, true);
          ids.push_back(ends.front());
          return ids;
        });
  return out;
}

Encoder make_encoder(const OpenModel& model, const std::string& prompt_template) {
  const LlavaConfig& c = model.model->config();
  return Encoder(model.tokenizer, {prompt_template, c.image_tokens(), c.image_token_id,
                                   c.text.eos_token_ids.front(), c.text.max_position_embeddings});
}

Suite open_suite(const std::string& name, const std::vector<std::string>& order,
                 const std::filesystem::path& data) {
  Suite suite = read_suite(find_suite(name, {share_dir()}), order);
  mini::MiniOptions options;
  if (suite.builtin) {
    options = mini::read_options(*suite.builtin);
    if (!options.tasks.empty())
      throw ConfigError(suite.builtin->where("tasks"), "the suite's [[tasks]] say which tasks there are",
                        "remove the key");
    suite.file.finish();
  }
  if (!data.empty()) {
    suite.data = data;
  } else if (suite.builtin) {
    const mini::Pack pack(share_dir() / "mini" / "pack");
    for (const SuiteTask& task : suite.tasks) options.tasks.push_back(task.name);
    std::unique_ptr<Progress> progress;
    suite.data = mini::materialise(
        pack, options, user_cache_dir() / "data", [&](std::string_view task, std::size_t, std::size_t count) {
          if (!progress)
            progress = std::make_unique<Progress>("drawing the built-in tasks",
                                                  static_cast<std::int64_t>(count), "tasks");
          progress->advance(1, task);
        });
  }
  if (suite.data.empty())
    throw ConfigError("suite '" + suite.name + "'", "does not say where its data lies", "give --data DIR");
  if (!std::filesystem::is_directory(suite.data))
    throw DataError(suite.data.string(), "is no folder",
                    "give --data DIR, the folder that holds the suite's files");
  return suite;
}

namespace {

/// Every answer that a task's records give, once each, sorted.
std::vector<std::string> all_answers(const std::vector<Record>& train, const std::vector<Record>& test) {
  std::set<std::string> out;
  for (const Record& record : train)
    for (const auto& [question, answer] : record.turns) out.insert(answer);
  for (const Record& record : test) out.insert(record.golds.begin(), record.golds.end());
  return {out.begin(), out.end()};
}

}  // namespace

std::vector<StreamTask> encode_suite(const Suite& suite, const Encoder& encoder,
                                     std::map<std::string, std::string>& data_hashes) {
  std::vector<StreamTask> out;
  std::set<std::string> known;
  const auto picture = [&](const Record& record, const std::filesystem::path& file, std::size_t row) {
    if (record.image.empty()) return std::string();
    const std::string path = (suite.data / suite.image_root / record.image).string();
    if (!known.contains(path) && !std::filesystem::is_regular_file(path))
      throw DataError(file.string() + ": row " + std::to_string(row + 1) + ": image",
                      "'" + path + "' does not exist", "check image_root and --data");
    known.insert(path);
    return path;
  };
  for (const SuiteTask& spec : suite.tasks) {
    const auto index = static_cast<std::int64_t>(out.size());
    StreamTask task;
    const auto train_file = suite.data / spec.train, test_file = suite.data / spec.test;
    const auto with_suffix = [&](Record record) {
      if (!spec.suffix.empty()) record.turns.front().first += spec.suffix;
      return record;
    };
    // What is wrong with a row is told with its file.
    const auto encoded = [&](const std::filesystem::path& file, std::size_t row, const auto& encode) {
      try {
        Example example = encode(static_cast<std::int64_t>(row));
        return example;
      } catch (const DataError& e) {
        throw DataError(file.string() + ": row " + std::to_string(row + 1), e.what());
      }
    };
    const std::vector<Record> train = read_records(train_file, RecordKind::train),
                              test = read_records(test_file, RecordKind::test);
    for (std::size_t i = 0; i < train.size(); ++i) {
      Example example = encoded(
          train_file, i, [&](std::int64_t row) { return encoder.train(with_suffix(train[i]), index, row); });
      example.image = picture(train[i], train_file, i);
      task.train.push_back(std::make_shared<const Example>(std::move(example)));
    }
    Hasher digest;
    digest.field(encoder.digest())
        .field(spec.scorer)
        .update(spec.max_new_tokens)
        .field(hash_file(test_file))
        .field(spec.suffix);
    task.eval.name = spec.name;
    task.eval.index = index;
    for (std::size_t i = 0; i < test.size(); ++i) {
      Example example = encoded(test_file, i, [&](std::int64_t row) {
        return encoder.test(with_suffix(test[i]), index, row, spec.max_new_tokens);
      });
      example.image = picture(test[i], test_file, i);
      if (!example.image.empty()) digest.field(hash_file(example.image));
      task.eval.examples.push_back(std::make_shared<const Example>(std::move(example)));
      task.eval.golds.push_back(test[i].golds);
    }
    const std::vector<std::string> answers = spec.closed ? all_answers(train, test) : spec.answers;
    std::vector<std::vector<std::int64_t>> encoded_answers;
    for (const std::string& answer : answers) {
      encoded_answers.push_back(encoder.answer(answer));
      digest.field(answer);
    }
    if (!answers.empty())
      task.eval.answers = std::make_shared<const AnswerTrie>(encoded_answers, encoder.end_token());
    task.eval.scorer = &find_scorer(spec.scorer);
    task.eval.max_new_tokens = spec.max_new_tokens;
    task.eval.digest = digest.hex();
    task.info = {spec.name, static_cast<std::int64_t>(train.size()), static_cast<std::int64_t>(test.size()),
                 answers};
    task.steps = spec.steps;
    data_hashes[spec.train.string()] = hash_file(train_file);
    data_hashes[spec.test.string()] = hash_file(test_file);
    out.push_back(std::move(task));
  }
  return out;
}

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

std::unique_ptr<FeatureStore> install_features(OpenModel& open, std::uint64_t memory_budget, int threads) {
  Mllm& model = *open.model;
  const LlavaConfig& c = model.config();
  FeatureStoreOptions options{.folder = user_cache_dir() / "features",
                              .key = Hasher()
                                         .field(model.tower_hash())
                                         .field(open.preprocessor.digest())
                                         .field(at::toString(model.dtype()))
                                         .field(model.device().str())
                                         .hex(),
                              .shape = {c.image_tokens(), c.vision.hidden_size},
                              .memory_budget = memory_budget,
                              .threads = threads};
  const auto load = [preprocessor = open.preprocessor](const std::string& path) {
    return preprocessor.load(path);
  };
  auto store = std::make_unique<FeatureStore>(std::move(options), load, [&model](const Tensor& pixels) {
    return model.vision_features(pixels.to(model.device(), model.dtype())).to(at::kFloat);
  });
  model.set_images({[raw = store.get()](const std::string& path) { return raw->get(path); }, load});
  return store;
}

}  // namespace mcit
