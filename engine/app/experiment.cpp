#include "app/experiment.hpp"

#include <ATen/Parallel.h>

#include <algorithm>
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

namespace {

/// CLIP towers for image and text features: their own tokenizer, or the model's where they have none.
void install_clip(OpenModel& model, const std::filesystem::path& folder, at::Device device) {
  std::shared_ptr<Clip> clip = load_clip(folder, device);
  const auto own = folder / "tokenizer.json";
  const Tokenizer tokenizer = std::filesystem::exists(own) ? Tokenizer::from_file(own) : model.tokenizer;
  const TextTowerConfig& text = clip->config().text;
  // The first CLIP files name 2 as their end token and mean the one that their tokenizer writes.
  const std::vector<std::int64_t> empty = tokenizer.encode("", true);
  const std::int64_t end = empty.size() > 1 ? empty.back() : text.eos_token_id;
  model.model->set_clip(
      clip, [=, most = static_cast<std::size_t>(text.max_position_embeddings)](const std::string& words) {
        std::vector<std::int64_t> ids = tokenizer.encode(words, true);
        if (!ids.empty() && ids.back() == end) ids.pop_back();
        if (ids.size() >= most) ids.resize(most - 1);
        ids.push_back(end);
        return ids;
      });
}

}  // namespace

OpenModel open_model(const std::filesystem::path& folder, at::Device device, bool pad_square) {
  Hasher hasher;
  for (const char* file :
       {"config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json",
        "preprocessor_config.json", "clip/config.json", "clip/model.safetensors", "clip/tokenizer.json"})
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
  if (std::filesystem::exists(folder / "clip" / "config.json")) install_clip(out, folder / "clip", device);
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
    const std::string probe = suite.probe.empty() ? "" : suite.probe.begin()->string();
    if (!probe.empty() && std::find(options.tasks.begin(), options.tasks.end(), probe) == options.tasks.end())
      options.tasks.push_back(probe);
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

namespace {

/// Turns the records of a suite's files into examples, checking that every picture is there.
class RowEncoder {
 public:
  RowEncoder(const Suite& suite, const Encoder& encoder) : suite_(suite), encoder_(encoder) {}

  std::vector<ExamplePtr> train(const std::filesystem::path& file, const std::vector<Record>& records,
                                std::int64_t task, const std::string& suffix) {
    return encode(file, records, suffix,
                  [&](const Record& record, std::int64_t row) { return encoder_.train(record, task, row); });
  }
  std::vector<ExamplePtr> test(const std::filesystem::path& file, const std::vector<Record>& records,
                               std::int64_t task, const std::string& suffix, std::int64_t room) {
    return encode(file, records, suffix, [&](const Record& record, std::int64_t row) {
      return encoder_.test(record, task, row, room);
    });
  }

 private:
  template <class Encode>
  std::vector<ExamplePtr> encode(const std::filesystem::path& file, const std::vector<Record>& records,
                                 const std::string& suffix, const Encode& encode_row) {
    std::vector<ExamplePtr> out;
    for (std::size_t i = 0; i < records.size(); ++i) {
      Record record = records[i];
      record.turns.front().first += suffix;
      try {
        Example example = encode_row(record, static_cast<std::int64_t>(i));
        example.image = picture(record, file, i);
        out.push_back(std::make_shared<const Example>(std::move(example)));
      } catch (const DataError& e) {
        const std::string where = file.string() + ": row " + std::to_string(i + 1);
        if (std::string(e.what()).starts_with(where)) throw;
        throw DataError(where, e.what());
      }
    }
    return out;
  }

  std::string picture(const Record& record, const std::filesystem::path& file, std::size_t row) {
    if (record.image.empty()) return {};
    const std::string path = (suite_.data / suite_.image_root / record.image).string();
    if (!known_.contains(path) && !std::filesystem::is_regular_file(path))
      throw DataError(file.string() + ": row " + std::to_string(row + 1) + ": image",
                      "'" + path + "' does not exist", "check image_root and --data");
    known_.insert(path);
    return path;
  }

  const Suite& suite_;
  const Encoder& encoder_;
  std::set<std::string> known_;
};

StreamTask encode_task(const Suite& suite, const SuiteTask& spec, std::int64_t index, const Encoder& encoder,
                       RowEncoder& rows) {
  StreamTask task;
  const auto train_file = suite.data / spec.train, test_file = suite.data / spec.test;
  const std::vector<Record> train = read_records(train_file, RecordKind::train),
                            test = read_records(test_file, RecordKind::test);
  task.train = rows.train(train_file, train, index, spec.suffix);
  task.eval.name = spec.name;
  task.eval.index = index;
  task.eval.examples = rows.test(test_file, test, index, spec.suffix, spec.max_new_tokens);
  Hasher digest;
  digest.field(encoder.digest())
      .field(spec.scorer)
      .update(spec.max_new_tokens)
      .field(hash_file(test_file))
      .field(spec.suffix);
  for (const ExamplePtr& example : task.eval.examples)
    if (!example->image.empty()) digest.field(hash_file(example->image));
  for (const Record& record : test) task.eval.golds.push_back(record.golds);
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
  return task;
}

}  // namespace

EncodedSuite encode_suite(const Suite& suite, const Encoder& encoder) {
  EncodedSuite out;
  RowEncoder rows(suite, encoder);
  for (const SuiteTask& spec : suite.tasks) {
    out.tasks.push_back(encode_task(suite, spec, static_cast<std::int64_t>(out.tasks.size()), encoder, rows));
    for (const auto& file : {spec.train, spec.test})
      out.data_hashes[file.string()] = hash_file(suite.data / file);
  }
  if (!suite.probe.empty()) {
    const auto file = suite.data / suite.probe;
    out.probe = rows.train(file, read_records(file, RecordKind::train), -1, "");
    out.data_hashes[suite.probe.string()] = hash_file(file);
  }
  return out;
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
