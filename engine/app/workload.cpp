#include "app/workload.hpp"

#include <algorithm>
#include <set>

#include "app/experiment.hpp"
#include "core/files.hpp"
#include "core/hash.hpp"
#include "data/classification.hpp"
#include "data/records.hpp"
#include "data/suite_files.hpp"
#include "mcit/errors.hpp"
#include "model/clip_model.hpp"

namespace mcit {
namespace {

/// Every answer that a task's records give, once each, sorted.
std::vector<std::string> all_answers(const std::vector<Record>& train, const std::vector<Record>& test) {
  std::set<std::string> out;
  for (const Record& record : train)
    for (const auto& [question, answer] : record.turns) out.insert(answer);
  for (const Record& record : test) out.insert(record.golds.begin(), record.golds.end());
  return {out.begin(), out.end()};
}

/// Where rows come from.
struct RowSource {
  std::filesystem::path file;      ///< for errors
  std::filesystem::path pictures;  ///< folder that their pictures start from
  std::string suffix;              ///< of questions
};

RowSource source_of(const Suite& suite, const SuiteTask& task, RecordKind kind) {
  return {suite.data / (kind == RecordKind::train ? task.train : task.test), picture_root(suite, task, kind),
          task.suffix};
}

/// Turns the records of a suite's files into examples, checking that every picture is there.
class RowEncoder {
 public:
  explicit RowEncoder(const Encoder& encoder) : encoder_(encoder) {}

  std::vector<ExamplePtr> train(const RowSource& source, const std::vector<Record>& records,
                                std::int64_t task) {
    return encode(source, records,
                  [&](const Record& record, std::int64_t row) { return encoder_.train(record, task, row); });
  }
  std::vector<ExamplePtr> test(const RowSource& source, const std::vector<Record>& records, std::int64_t task,
                               std::int64_t room) {
    return encode(source, records, [&](const Record& record, std::int64_t row) {
      return encoder_.test(record, task, row, room);
    });
  }

 private:
  template <class Encode>
  std::vector<ExamplePtr> encode(const RowSource& source, const std::vector<Record>& records,
                                 const Encode& encode_row) {
    std::vector<ExamplePtr> out;
    for (std::size_t i = 0; i < records.size(); ++i) {
      Record record = records[i];
      record.turns.front().first += source.suffix;
      const std::string where = source.file.string() + ": row " + std::to_string(record.row);
      try {
        record.image = picture(record, source, where);
        Example example = encode_row(record, static_cast<std::int64_t>(i));
        out.push_back(std::make_shared<const Example>(std::move(example)));
      } catch (const DataError& e) {
        if (std::string(e.what()).starts_with(where)) throw;
        throw DataError(where, e.what());
      }
    }
    return out;
  }

  std::string picture(const Record& record, const RowSource& source, const std::string& where) {
    if (record.image.empty()) return {};
    const std::string path = (source.pictures / record.image).string();
    if (!known_.contains(path) && !std::filesystem::is_regular_file(path))
      throw DataError(where + ": image", "'" + path + "' does not exist",
                      "check image_root and --data; mcit check-data names all that is missing");
    known_.insert(path);
    return path;
  }

  const Encoder& encoder_;
  std::set<std::string> known_;
};

void hash_pictures(Hasher& digest, const std::vector<ExamplePtr>& examples) {
  for (const ExamplePtr& example : examples)
    if (!example->image.empty()) digest.field(hash_file(example->image));
}

/// Of the files of a name, and of one more where there is one.
std::string rows_hash(const Suite& suite, const std::filesystem::path& name,
                      const std::filesystem::path& more = {}) {
  const std::vector<std::filesystem::path> files = files_of(suite, name);
  if (files.size() == 1 && more.empty()) return hash_file(files.front());
  Hasher hasher;
  for (const auto& file : files) hasher.field(hash_file(file));
  if (!more.empty()) hasher.field(hash_file(more));
  return hasher.hex();
}

/// How a test file is read, but for the way that every file was read at first.
void hash_form(Hasher& digest, const RecordForm& form) {
  if (!form.name.empty() && form.name != record_forms(RecordKind::test).front()) digest.field(form.name);
  if (!form.question.empty()) digest.field(form.question);
  for (const QuestionEnd& end : form.ends) {
    for (const std::string& answer : end.answers) digest.field(answer);
    digest.field(end.text);
  }
}

StreamTask question_task(const Suite& suite, const SuiteTask& spec, std::int64_t index, Mllm& model,
                         const std::shared_ptr<const Encoder>& encoder, RowEncoder& rows) {
  StreamTask task;
  const std::vector<Record> train = read_task(suite, spec, RecordKind::train),
                            test = read_task(suite, spec, RecordKind::test);
  task.train = rows.train(source_of(suite, spec, RecordKind::train), train, index);
  task.eval.name = spec.name;
  task.eval.index = index;
  task.eval.examples = rows.test(source_of(suite, spec, RecordKind::test), test, index, spec.max_new_tokens);
  Hasher digest;
  digest.field(encoder->digest())
      .field(spec.scorer)
      .update(spec.max_new_tokens)
      .field(rows_hash(suite, spec.test, spec.test_form.golds))
      .field(spec.suffix);
  hash_form(digest, spec.test_form);
  hash_pictures(digest, task.eval.examples);
  for (const Record& record : test) task.eval.golds.push_back(record.golds);
  const std::vector<std::string> answers = spec.closed ? all_answers(train, test) : spec.answers;
  std::vector<std::vector<std::int64_t>> encoded_answers;
  for (const std::string& answer : answers) {
    encoded_answers.push_back(encoder->answer(answer));
    digest.field(answer);
  }
  std::shared_ptr<const AnswerTrie> set;
  if (!answers.empty()) set = std::make_shared<const AnswerTrie>(encoded_answers, encoder->end_token());
  task.eval.answer = generated_answers(
      model, [encoder](const std::vector<std::int64_t>& ids) { return encoder->decode(ids); }, set,
      spec.max_new_tokens);
  task.eval.scorer = &find_scorer(spec.scorer);
  task.eval.answer_set = answers;
  task.eval.digest = digest.hex();
  task.info = {spec.name, static_cast<std::int64_t>(train.size()), static_cast<std::int64_t>(test.size()),
               answers};
  task.steps = spec.steps;
  return task;
}

/// @param tower_hash changes with the weights that make a feature
FeatureStoreOptions feature_options(const std::string& tower_hash, const Preprocessor& preprocessor,
                                    const Model& model, std::uint64_t memory, int threads,
                                    std::vector<std::int64_t> shape) {
  FeatureStoreOptions out{.folder = user_cache_dir() / "features",
                          .key = Hasher()
                                     .field(tower_hash)
                                     .field(preprocessor.digest())
                                     .field(at::toString(model.dtype()))
                                     .field(model.device().str())
                                     .hex(),
                          .shape = std::move(shape),
                          .tiles = {},
                          .memory_budget = memory,
                          .threads = threads};
  if (preprocessor.tiled())
    out.tiles = [preprocessor](const std::string& path) {
      return std::int64_t{preprocessor.shape_of(path).tiles()};
    };
  return out;
}

FeatureStore::Load loader(const Preprocessor& preprocessor) {
  return [preprocessor](const std::string& path) { return preprocessor.load(path); };
}

Workload open_questions(const Suite& suite, const WorkloadOptions& options) {
  Workload out;
  OpenModel open = open_model(find_model(options.model), options.device, options.pad_square, options.adapter,
                              options.dtype);
  out.stores = install_features(open, options.feature_memory, options.loader_threads);
  const auto encoder = std::make_shared<const Encoder>(
      make_encoder(open, options.prompt_template.empty() ? suite.prompt_template : options.prompt_template));
  RowEncoder rows(*encoder);
  for (const SuiteTask& spec : suite.tasks) {
    out.tasks.push_back(
        question_task(suite, spec, static_cast<std::int64_t>(out.tasks.size()), *open.model, encoder, rows));
    out.data[spec.train.string()] = rows_hash(suite, spec.train);
    out.data[spec.test.string()] = rows_hash(suite, spec.test, spec.test_form.golds);
  }
  if (!suite.probe.empty()) {
    const auto file = suite.data / suite.probe;
    out.probe =
        rows.train({file, suite.data / suite.image_root, ""}, read_records(file, RecordKind::train), -1);
    out.data[suite.probe.string()] = hash_file(file);
  }
  out.model_hash =
      model_folder_hash(open.folder, options.pad_square, options.adapter, open.model->config().tower);
  out.model = std::move(open.model);
  return out;
}

/// The texts of class names: in the suite's template, and with what stands behind the name there alone.
ClassTexts class_texts(const std::vector<std::string>& classes, const std::string& pattern,
                       const TextEncoder& encode) {
  const std::size_t at = pattern.find("{}");
  const std::string before = pattern.substr(0, at), behind = pattern.substr(at + 2);
  ClassTexts out;
  for (const std::string& name : classes) {
    out.full.push_back(encode(before + name + behind));
    out.bare.push_back(encode(name + behind));
  }
  return out;
}

StreamTask class_task(const Suite& suite, const SuiteTask& spec, std::int64_t index, const ClassTask& data,
                      ClipModel& model) {
  const auto examples = [&](const std::vector<ClassRecord>& records) {
    std::vector<ExamplePtr> out;
    for (std::size_t i = 0; i < records.size(); ++i) {
      const ClassRecord& record = records[i];
      const std::string path = (suite.data / suite.image_root / record.image).string();
      if (!std::filesystem::is_regular_file(path))
        throw DataError("task '" + spec.name + "'", "'" + path + "' does not exist",
                        "check image_root and --data");
      out.push_back(std::make_shared<const Example>(
          Example{.task = index,
                  .index = static_cast<std::int64_t>(i),
                  .id = record.id,
                  .image = path,
                  .question = {},
                  .prompt = suite.class_template,
                  .answer = data.classes[static_cast<std::size_t>(record.label)],
                  .tokens = {},
                  .labels = {record.label},
                  .prompt_length = 0}));
    }
    return out;
  };
  StreamTask task;
  task.train = examples(data.train);
  task.eval.name = spec.name;
  task.eval.index = index;
  task.eval.examples = examples(data.test);
  Hasher digest;
  digest.field("classify").field(suite.class_template);
  for (const std::string& name : data.classes) digest.field(name);
  for (const ExamplePtr& example : task.eval.examples) {
    task.eval.golds.push_back({example->answer});
    digest.field(example->id).update(example->labels.front());
  }
  hash_pictures(digest, task.eval.examples);
  task.eval.scorer = &find_scorer("exact");
  task.eval.answer_set = data.classes;
  task.eval.answer = class_answers(model, data.classes);
  task.eval.digest = digest.hex();
  task.info = {spec.name, static_cast<std::int64_t>(task.train.size()),
               static_cast<std::int64_t>(task.eval.examples.size()), data.classes};
  task.steps = spec.steps;
  return task;
}

std::string records_hash(const ClassTask& data) {
  Hasher hasher;
  for (const std::string& name : data.classes) hasher.field(name);
  for (const auto* split : {&data.train, &data.test}) {
    hasher.update(std::int64_t(split->size()));
    for (const ClassRecord& record : *split) hasher.field(record.id).update(record.label);
  }
  return hasher.hex();
}

/// The CLIP towers of a model folder: the folder itself, or clip/ in the folder of an MLLM.
std::filesystem::path clip_folder(const std::filesystem::path& folder) {
  if (model_type(folder) == "clip") return folder;
  if (std::filesystem::exists(folder / "clip" / "config.json")) return folder / "clip";
  throw ConfigError("model",
                    "'" + folder.string() + "' has no CLIP towers, and the suite is of kind \"classify\"",
                    "name a folder of a CLIP model, or of one with clip/ beside its config.json");
}

Workload open_classes(const Suite& suite, const WorkloadOptions& options) {
  Workload out;
  if (!options.adapter.empty())
    throw ConfigError("adapter", "is for language models, and the suite is of kind \"classify\"");
  const std::filesystem::path folder = find_model(options.model), towers = clip_folder(folder);
  const OpenClip open = open_clip(towers, folder, options.device, options.pad_square, options.dtype);
  auto model = std::make_unique<ClipModel>(open.clip);
  out.stores.tower = std::make_unique<FeatureStore>(
      feature_options(model->tower_hash(), open.preprocessor, *model, options.feature_memory,
                      options.loader_threads, {model->info().feature_dim}),
      loader(open.preprocessor), [open](const Tensor& pixels) { return open.embed(pixels); });
  model->set_images({[raw = out.stores.tower.get()](const std::string& path) { return raw->get(path)[0]; },
                     [load = loader(open.preprocessor)](const std::string& path) { return load(path)[0]; }});

  std::vector<ClassTexts> texts;
  for (const SuiteTask& spec : suite.tasks) {
    const ClassTask data = read_class_task(suite, spec);
    out.tasks.push_back(class_task(suite, spec, static_cast<std::int64_t>(out.tasks.size()), data, *model));
    texts.push_back(class_texts(data.classes, suite.class_template, open.encode));
    out.data[spec.folder.empty() ? spec.train.string() + ", " + spec.test.string() : spec.folder.string()] =
        records_hash(data);
  }
  model->set_classes(std::move(texts));
  out.model_hash = model_folder_hash(folder, options.pad_square);
  out.model = std::move(model);
  return out;
}

}  // namespace

PictureStores install_features(OpenModel& open, std::uint64_t memory_budget, int threads) {
  Mllm& model = *open.model;
  PictureStores out;
  if (model.config().sees()) {
    const auto load = loader(open.preprocessor);
    out.tower = std::make_unique<FeatureStore>(
        feature_options(model.tower_hash(), open.preprocessor, model, memory_budget, threads,
                        model.feature_shape()),
        load, [&model](const Tensor& pixels) { return model.vision_features(pixels).to(at::kFloat); });
    model.set_images({[raw = out.tower.get()](const std::string& path) { return raw->get(path); }, load,
                      [preprocessor = open.preprocessor](const std::string& path) {
                        return preprocessor.shape_of(path);
                      }});
  }
  if (open.clip) {
    Hasher towers;
    hash_tensors(towers, open.clip->clip->tensors(), [](const std::string& name) {
      return name.starts_with("vision_model.") || name.starts_with("visual_projection");
    });
    out.clip = std::make_unique<FeatureStore>(
        feature_options(towers.hex(), open.clip->preprocessor, model, memory_budget, threads,
                        {open.clip->clip->config().projection_dim}),
        loader(open.clip->preprocessor),
        [clip = *open.clip](const Tensor& pixels) { return clip.embed(pixels); });
    model.set_clip(
        open.clip->clip,
        [raw = out.clip.get()](const std::vector<std::string>& paths) {
          raw->prefetch(paths);
          std::vector<Tensor> rows;
          for (const std::string& path : paths) rows.push_back(raw->get(path));
          return at::cat(rows);
        },
        open.clip->encode);
  }
  return out;
}

TrainOptions read_train_options(const Config& table, TrainOptions t) {
  t.steps = table.integer("steps", t.steps, 0);
  t.batch = table.integer("batch", t.batch, 1, 1 << 16);
  t.accumulation = table.integer("accumulation", 1, 1, 1 << 16);
  t.learning_rate["adapter"] = table.number("lr", t.learning_rate["adapter"], 0.0);
  t.learning_rate["connector"] = table.number("connector_lr", t.learning_rate["connector"], 0.0);
  t.learning_rate["prompt"] = table.number("prompt_lr", t.learning_rate["prompt"], 0.0);
  t.learning_rate["base"] = table.number("base_lr", t.learning_rate["base"], 0.0);
  t.schedule = table.choice("schedule", t.schedule, {"cosine", "linear", "constant"});
  t.warmup = table.number("warmup", t.warmup, 0.0, 1.0);
  t.clip = table.number("clip", t.clip, 0.0);
  t.adamw.weight_decay = table.number("weight_decay", 0.0, 0.0);
  t.adamw.beta1 = table.number("beta1", t.adamw.beta1, 0.0, 1.0);
  t.adamw.beta2 = table.number("beta2", t.adamw.beta2, 0.0, 1.0);
  return t;
}

Workload open_workload(const Suite& suite, const WorkloadOptions& options) {
  return suite.kind == "classify" ? open_classes(suite, options) : open_questions(suite, options);
}

}  // namespace mcit
